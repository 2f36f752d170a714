"""The end of a run on several ranks, for test_leaving.py: mpirun -np N python tests/helpers/leaving.py FOLDER.

The chief leaves at once; the others come a second later.  With ONLY_MPI set, MPI alone is started, and if it is not
refused, the last rank fails while the others still have much to do.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from distributed.world import World, WorldError
from launch.job import environment


def main(folder: Path) -> None:
    world = World.from_environment(os.environ)
    environment.prepare(world, verbose=False)
    if os.environ.get("ONLY_MPI"):
        from distributed.control import start_mpi

        try:
            start_mpi()
        except WorldError as error:
            (folder / f"refused-{world.rank}").write_text(str(error))
            return
        if world.rank == world.size - 1:
            raise RuntimeError("a script of the user's")
        time.sleep(1000)
    with environment.loading(quiet=True):
        import numpy as np
        import tensorflow as tf

        from data.diagnose import is_of_input
        from distributed.strategies import Horovod
    strategy = Horovod(world)
    assert strategy.sum_workers([np.ones(1)])[0] == world.size
    if world.rank:
        time.sleep(1)
    code = strategy.control.leave(0)
    if world.rank == world.size - 1:
        time.sleep(1)
        try:
            strategy.sum_workers([np.ones(1)])
        except tf.errors.OpError as error:
            (folder / "error").write_text("of the input" if is_of_input(error) else "not of the input")
    (folder / f"left-{world.rank}").write_text(str(code))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
