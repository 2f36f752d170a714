"""Ranks without TensorFlow, for the tests of the monitor: python tests/helpers/ranks.py FOLDER LIMIT KIND@PLACE RANK.

They give the signs of life of a run whose every step is an exchange (a barrier of files), and one of them suffers a
fault (see ``deaths.py``) at step 3: "compute", before it enters the exchange; "exchange", when it seems to wait for the
others; "read", which stands for a file that never answers; "exit"; "slow" is no fault, every part takes long.
"""

import atexit
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from deaths import strike

from distributed.health import heartbeat, preemption
from distributed.world import World
from launch.job import environment

STEPS = 6


def exchange(folder: Path, step: int, world: World) -> None:
    """Return once all ranks have come to this step."""
    (folder / f"{step}-{world.rank}").touch()
    while not all((folder / f"{step}-{rank}").exists() for rank in range(world.size)):
        time.sleep(0.02)


def main(folder: Path, limit: float, fault: str, victim: int) -> None:
    kind, _, place = fault.partition("@")
    stop_request = preemption.listen()
    world = World.from_environment(os.environ)
    launcher = environment.launcher()
    heartbeat.start(world, limit, launcher and launcher.pid, flag="--hang-timeout")
    (folder / "records").write_text(str(heartbeat._folder))
    (folder / f"pid-{world.rank}").write_text(str(os.getpid()))
    stop_request.deliver_to(lambda name: None)
    mine = world.rank == victim
    slow = limit * 1.5 if kind == "slow" and mine else 0
    time.sleep(slow)
    for step in range(STEPS):
        heartbeat.enter("training", step)
        if step == 3 and mine and place == "compute":
            strike(kind)
        heartbeat.enter("first step" if step == 0 else "training", step, waiting=True)
        if step == 3 and mine and place == "exchange":
            strike(kind)
        if step == 3 and mine and place == "read":
            with open(folder / "fifo", "rb", buffering=0) as never:
                never.read(1)
        if step == 3:
            heartbeat.enter("saving")
            time.sleep(slow)
            heartbeat.enter("training", step, waiting=True)
        exchange(folder, step, world)
        for _ in range(20 if step == 4 and slow else 0):
            # Longer than any limit altogether, but alive.
            heartbeat.enter("validation")
            time.sleep(limit / 5)
    heartbeat.end(0)
    if mine and place == "exit":
        atexit.register(strike, kind)
    exchange(folder, STEPS, world)
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
