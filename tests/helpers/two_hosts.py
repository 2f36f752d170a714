"""Four ranks without TensorFlow, of two "hosts" that do not see each other's records: mpirun -np 4 python
tests/helpers/two_hosts.py FOLDER.

Those of the first host finish at once, and wait; those of the second one work on for longer than any rank may wait, and
give signs of life.  Then all of them wait for what never comes.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from distributed import control
from distributed.health import heartbeat, preemption, records
from distributed.world import World
from launch.job import environment

LIMIT = 3.0


def main(folder: Path) -> None:
    preemption.listen()
    world = World.from_environment(os.environ)
    records.shared_folder = lambda world, launcher: folder / f"host{world.rank // 2}"
    records.shared_folder(world, None).mkdir(exist_ok=True)
    launcher = environment.launcher()
    heartbeat.start(world, LIMIT, launcher and launcher.pid, flag="--hang-timeout")
    MPI = control.start_mpi()
    if world.rank // 2 == 1:
        for step in range(24):
            heartbeat.enter("training", step)
            time.sleep(LIMIT / 4)
    heartbeat.enter("training", 24, waiting=True)
    MPI.COMM_WORLD.Barrier()
    (folder / f"worked-{world.rank}").touch()
    heartbeat.enter("training", 25, waiting=True)
    MPI.COMM_WORLD.recv(source=world.rank)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
