"""The benchmark's command line."""

import argparse
import contextlib
import os
from functools import partial
from pathlib import Path
from typing import get_args

from launch.bench.jobs import all_cores, parse_models
from launch.job.config import ConfigError, TrainConfig

HELP = {
    "throughput": "one process on real images, whole epochs: Lockstep and Keras' fit with a per-element pipeline",
    "scaling": "1 rank on 1 core, N ranks on N cores: Lockstep and hand-written Horovod",
    "exchange": "2 ranks over slow links: Lockstep and hand-written Horovod; time and bytes (Linux, root)",
    "input": "input pipelines alone: Lockstep's and a per-element one, arrays and JPEG files",
    "overhead": "one repeated batch: Lockstep and bare fit, one process and MirroredStrategy; tiny: also by hand",
    "checkpoint": "what saving costs",
}
PRECISIONS = ("float32", "bfloat16")
BESIDE = {"scaling": ("grouped", "alone"), "exchange": ("factors", "allreduce", "grouped", "per-tensor", "alone")}
QUICK = {"models": "alexnet_cifar:4", "rounds": 2, "turn_seconds": 0.1, "batch_size": 8, "images": 64}
QUICK |= {"precisions": ["float32"], "rates": "1gbit"}


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
        precisions = arguments.precisions if "precisions" in arguments else [arguments.precision]
        cases = parse_models(arguments.models, arguments.batch_size)
        arguments.cases = [case._replace(precision=precision) for case in cases for precision in precisions]
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
    def add(flag: str, kind, default, text: str, *commands: str, choices=None):
        if not commands or command in commands:
            shown = "" if default is None else f" (default: {default})"
            parser.add_argument(flag, type=kind, default=default, help=text + shown, choices=choices)

    trains = tuple(name for name in HELP if name != "input")
    timed = tuple(name for name in HELP if name != "throughput")
    models = "alexnet_cifar" if command in ("throughput", "checkpoint") else "alexnet_cifar,alexnet"
    batch = "per rank where --models has none (default: alexnet_cifar 64, tiny 8, others 16)"
    beside = BESIDE.get(command, ())
    datasets = get_args(get_args(TrainConfig.model_fields["dataset"].annotation)[0])
    parser.add_argument("--quick", action=_Quick, nargs=0, help="tiny and short: shows that it works, measures nothing")
    add("--rounds", _positive, 3, "turns of each contestant")
    add("--json", Path, None, "write the result there, and a picture beside it")
    add("--turn-seconds", _seconds, 2.0, "how long a turn lasts", *timed)
    add("--models", str, models, "MODEL or MODEL:BATCH, comma-separated; a model of train.py, or tiny", *trains)
    add("--batch-size", _positive, None, batch, *trains)
    add("--batch-size", _positive, 128, "images per batch", "input")
    add(
        "--precision", str, "float32", "arithmetic of the layers", *BESIDE, "overhead", "checkpoint", choices=PRECISIONS
    )
    add("--precisions", partial(_words, PRECISIONS), ",".join(PRECISIONS), "comma-separated", "throughput")
    add("--dataset", str, "shapes", "as for train.py", "throughput", choices=datasets)
    add("--data-dir", str, None, "as for train.py", "throughput")
    add("--augment", str, "flip_crop", "as for train.py", "throughput", choices=("none", "flip_crop"))
    add("--images", _positive, 12_800, "images of an epoch, which is a turn", "throughput")
    add("--images", _positive, 20_000, "images in memory", "input")
    add("--jpeg-dir", Path, None, "class folders of JPEG files (default: drawn ones of 500x375)", "input")
    add("--image-size", _positive, 224, "side of the images made of the files", "input")
    text = "who takes part beside Lockstep, comma-separated; all live at once, which large models may not fit"
    add("--beside", partial(_words, beside), ",".join(word for word in beside if word != "factors"), text, *BESIDE)
    add("--ranks", _positive, len(all_cores()), "the most ranks, one core each", "scaling")
    rates = "of the link, comma-separated, in tc's words; none: unshaped"
    add("--rates", str, "100mbit,1gbit,10gbit,none", rates, "exchange")
    add("--longest-step", _seconds, 10.0, "leave out what a link would take longer for, in seconds", "exchange")
    add("--cpu-devices", _positive, 2, "replicas of the MirroredStrategy; 1 leaves it out", "overhead")


class _Quick(argparse.Action):
    """Changes the defaults; a flag, before it or behind it, still beats them."""

    def __call__(self, parser, namespace, values, option=None):
        namespace.quick = True
        for name, value in QUICK.items():
            if hasattr(namespace, name) and getattr(namespace, name) == parser.get_default(name):
                setattr(namespace, name, value)


def _positive(text: str) -> int:
    if text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")


def _words(known: tuple[str, ...], text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in known:
            raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(known)}")
    return words
