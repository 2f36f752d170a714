"""The command line of the programs that use a trained run."""

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from distributed.world import speaks
from launch.job.logs.streams import outlive_readers
from launch.job.text_files import expanded


class Parser(argparse.ArgumentParser):
    """argparse, but that an error is one line and no page of usage."""

    def __init__(self, description: str):
        outlive_readers()  # first of all: --help is also for `| head`
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        # Under a launcher all ranks find the same mistake; one says it.
        if speaks(os.environ):
            print(f"error: {message}; --help lists all flags", file=sys.stderr, flush=True)
        sys.exit(2)

    def add_run(self) -> None:
        """Add the run and which of its checkpoints."""
        self.add_argument("run", metavar="RUN", help="a run directory, or one of its checkpoints")
        self.add_argument(
            "--checkpoint",
            default="best",
            metavar="best|last|PATH",
            help="which weights: those of the best epoch (default), of the last one, or of a folder step-XXXXXXXX",
        )

    def add_workers(self) -> None:
        """Add how to run on several devices."""
        self.add_argument(
            "--strategy",
            choices=("auto", "single", "mirrored", "horovod"),
            default="auto",
            help="as for train.py; auto: horovod under a launcher, mirrored where several GPUs are seen, else single",
        )
        self.add_argument("--cpu", action="store_true", help="compute on the CPU, also where there is a GPU")
        self.add_argument(
            "--cpu-devices", type=at_least_one, metavar="N", help="for mirrored: devices to split the CPU into"
        )
        self.add_argument(
            "--batch-size",
            type=at_least_one,
            metavar="N",
            help="pictures that the network sees at once (default: 64, or the run's --micro-batch-size)",
        )


def at_least_one(text: str) -> int:
    """A flag's value that counts something, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def none_or_more(text: str) -> int:
    """A flag's value that counts something or names a seed, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 0 or more")
    return int(text)


def expanded_path(text: str) -> Path:
    """``expanded`` as a ``Path``, for argparse."""
    return Path(expanded(text))
