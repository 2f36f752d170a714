"""Run many command lines of evaluate.py and predict.py in the processes that a launcher has started: python
tests/helpers/programs.py FOLDER.

FOLDER/programs.json maps a name to [program, command line, standard input].  The exit codes go to FOLDER/codes.json,
what the chief prints to FOLDER/NAME.out and FOLDER/NAME.err.
"""

import contextlib
import importlib
import io
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from distributed.world import World
from launch.job import environment


def main(folder: Path) -> None:
    world = World.from_environment(os.environ)
    environment.prepare(world, verbose=False)
    with environment.loading(quiet=True):
        from distributed import control
        from launch.trained.program import Workers
    from launch.evaluation import run as evaluation

    evaluation.AT_ONCE = 60.0  # seconds: what "at once" is must not hang on how busy this machine is
    cores = Workers.side_by_side.fget
    Workers.side_by_side = property(lambda workers: cores(workers) + world.rank)  # machines need not be alike
    # A program that leaves must not take the next ones with it.
    control.Control.leave = control.MpiControl.leave = lambda self, code: self.agree(code)
    codes = {}
    for name, (program, line, stdin) in json.loads((folder / "programs.json").read_text()).items():
        sys.stdin = io.TextIOWrapper(io.BytesIO(os.fsencode(stdin)), encoding="utf-8")
        start = importlib.import_module(f"launch.{program}").main
        with contextlib.ExitStack() as streams:
            if world.is_chief:
                for redirect, ending in ((contextlib.redirect_stdout, "out"), (contextlib.redirect_stderr, "err")):
                    # As `outlive_readers` makes both.
                    file = streams.enter_context(open(folder / f"{name}.{ending}", "w", errors="backslashreplace"))
                    streams.enter_context(redirect(file))
            try:
                codes[name] = start(line)
            except SystemExit as error:
                codes[name] = error.code
    if world.is_chief:
        (folder / "codes.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
