"""Train AlexNet, VGG or a network of your own.  The same command on one device, one node or many:

    python launch/train.py                                          # one process, one device
    python launch/train_mirrored.py                                 # one process, all GPUs of this machine
    python launch/train_mirrored.py --cpu-devices 2                 # the same without GPUs
    horovodrun -np 4 python launch/train.py                         # four processes, one GPU (or CPU share) each
    horovodrun -np 8 -H a:4,b:4 python launch/train.py              # on two nodes
    mpirun -np 4 --bind-to none python launch/train.py
    sbatch launch/slurm/multi_node.sbatch                           # srun, one task per GPU
    python launch/train.py --list-models                            # what --model may name

    ... --config launch/recipes/alexnet_shapes.yaml --epochs 20     # settings from a file; a flag beats the file
"""

import os
import sys
import time
from pathlib import Path

# The repository's folders come first: `distributed` is also the name of an installed package on many machines.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distributed.health import preemption
from distributed.world import World, WorldError, speaks
from launch.job.logs.streams import outlive_readers


def main(argv: list[str] | None = None, preset: dict | None = None, **given) -> int:
    """Run the main job and return the exit code: 0 finished, 2 the user can mend it, 85 preempted (130 by Ctrl-C)
    after a complete checkpoint, 1 anything else.

    Args:
        argv: the command line; default: the process's own.
        preset: settings that replace the defaults.
        given: ``model``, ``data`` and ``callbacks`` as Python objects, see ``launch.job.run.train``.
    """
    # First of all, even before the imports that take a moment: from now on a signal is an answered request.
    stop_request = preemption.listen()
    outlive_readers()
    from launch.job.arguments import parse_arguments
    from launch.job.config import ConfigError
    from launch.job.run import run
    from launch.job.timing.startup import Startup

    argv = sys.argv[1:] if argv is None else argv
    if "--list-models" in argv:
        return list_models()
    try:
        config = parse_arguments(argv, program=Path(sys.argv[0]).name, description=__doc__, preset=preset)
        world = World.from_environment(os.environ, config.strategy)
    except (ConfigError, WorldError) as error:
        if not speaks(os.environ):
            # The chief says it for all; the launcher ends everyone as soon as one has gone.
            time.sleep(1)
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    code, _ = run(config, world, stop_request, startup=Startup.of_command(), **given)
    return code


def list_models() -> int:
    """Print what ``--model`` may name, which TensorFlow has to be loaded for, and return 0."""
    from launch.job import environment

    with environment.loading(quiet=True):
        from launch.job import model_list
    print("\n".join(model_list.lines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
