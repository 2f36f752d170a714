"""The benchmark's command line."""

import argparse
import os
from functools import partial
from pathlib import Path
from typing import get_args

from launch.bench.cases import Case, parse_models
from launch.bench.contestants import all_cores
from launch.job.config import ConfigError, TrainConfig

HELP = {
    "throughput": "one process on real images, whole epochs: Lockstep and Keras' fit with a per-element pipeline",
    "scaling": "1 rank on 1 core, N ranks on N cores: Lockstep and hand-written Horovod",
    "exchange": "2 ranks over slow links: Lockstep and hand-written Horovod; time and bytes (Linux, root)",
    "input": "input pipelines alone: Lockstep's and a per-element one, arrays and JPEG files",
    "overhead": "one repeated batch: Lockstep and bare fit, one process and MirroredStrategy",
    "checkpoint": "what saving costs",
}
DEFAULT_MODELS = {"throughput": "alexnet_cifar", "checkpoint": "alexnet_cifar"}
PRECISIONS = ("float32", "bfloat16")
BESIDE = {"scaling": ("grouped", "alone"), "exchange": ("factors", "allreduce", "grouped", "per-tensor", "alone")}
QUICK = {
    "models": "alexnet_cifar:4",
    "rounds": 2,
    "turn_seconds": 0.1,
    "batch_size": 8,
    "images": 64,
    "precisions": ["float32"],
    "rates": "1gbit",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise ConfigError(f"{message}; --help lists what {self.prog} takes")


def parse(argv: list[str], description: str) -> argparse.Namespace:
    """Read and check the command line; ``cases`` holds the models.

    Raises:
        ConfigError: one sentence about the first thing that is wrong.
    """
    parser = _Parser("benchmark.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in HELP.items():
        _add_flags(commands.add_parser(name, help=text, description=text), name)
    arguments = parser.parse_args(argv)
    if arguments.json:
        _check_target(arguments.json)
    if "models" in arguments:
        arguments.cases = parse_models(arguments.models, arguments.batch_size, getattr(arguments, "precision", ""))
    if "precisions" in arguments:
        arguments.cases = [
            Case(case.model, case.batch, precision) for case in arguments.cases for precision in arguments.precisions
        ]
    return arguments


def _check_target(path: Path) -> None:
    """Raise ``ConfigError`` now where the result could not be written after the measurement."""
    folder = path.resolve().parent
    if not folder.is_dir():
        raise ConfigError(f"--json {path} lies in no existing folder; make {path.parent} first")
    if path.is_dir() or path.suffix == ".png":
        raise ConfigError(f"--json {path} is a folder or a picture's name; name a file such as result.json")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError(f"--json {path} cannot be written; name a file in a folder of your own")


def _add_flags(parser: argparse.ArgumentParser, command: str) -> None:
    quick = "--quick"
    # --quick changes defaults, so that it must be known before them; a flag still beats it.
    parser.add_argument(quick, action=_Quick, nargs=0, help="tiny and short: shows that it works, measures nothing")

    def add(flag: str, default, text: str, **settings):
        settings.setdefault("type", type(default))
        shown = "" if default is None else f" (default: {default})"
        parser.add_argument(flag, default=default, help=text + shown, **settings)

    add("--rounds", 3, "turns of each contestant", type=_positive)
    add("--json", None, "write the result there, and a picture beside it", type=Path)
    if command != "throughput":
        add("--turn-seconds", 2.0, "how long a turn lasts", type=_seconds)
    if command == "input":
        add("--batch-size", 128, "images per batch", type=_positive)
        add("--images", 20_000, "images in memory", type=_positive)
        add("--jpeg-dir", None, "class folders of JPEG files (default: drawn ones of 500x375)", type=Path)
        add("--image-size", 224, "side of the images made of the files", type=_positive)
        return
    add("--models", DEFAULT_MODELS.get(command, "alexnet_cifar,alexnet"), "MODEL or MODEL:BATCH, comma-separated")
    add("--batch-size", None, "per rank where --models has none (default: alexnet_cifar 64, others 16)", type=_positive)
    if command == "throughput":
        add("--precisions", ",".join(PRECISIONS), "comma-separated", type=partial(_words, PRECISIONS))
        add("--dataset", "shapes", "as for train.py", choices=get_args(TrainConfig.model_fields["dataset"].annotation))
        add("--data-dir", None, "as for train.py", type=str)
        add("--images", 12_800, "images of an epoch, which is a turn", type=_positive)
        add("--augment", "flip_crop", "as for train.py", choices=("none", "flip_crop"))
        return
    add("--precision", "float32", "arithmetic of the layers", choices=PRECISIONS)
    if command in BESIDE:
        words = ",".join(word for word in BESIDE[command] if word != "factors")
        text = "who takes part beside Lockstep, comma-separated; all live at once, which large models may not fit"
        add("--beside", words, text, type=partial(_words, BESIDE[command]))
    if command == "scaling":
        add("--ranks", len(all_cores()), "the most ranks, one core each", type=_positive)
    if command == "exchange":
        add("--rates", "100mbit,1gbit,10gbit,none", "of the link, comma-separated, in tc's words; none: unshaped")
        add("--longest-step", 10.0, "leave out what a link would take longer for, in seconds", type=_seconds)
    if command == "overhead":
        add("--cpu-devices", 2, "replicas of the MirroredStrategy; 1 leaves it out", type=_positive)


class _Quick(argparse.Action):
    def __call__(self, parser, namespace, values, option=None):
        namespace.quick = True
        for name, value in QUICK.items():
            # Only what still has its default: flags that were given before stay.
            if hasattr(namespace, name) and getattr(namespace, name) == parser.get_default(name):
                setattr(namespace, name, value)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _words(known: tuple[str, ...], text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in known:
            raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(known)}")
    return words
