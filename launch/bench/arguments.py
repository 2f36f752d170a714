"""The benchmark's command line."""

import argparse
import contextlib
import inspect
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

from launch.bench import projection
from launch.bench.contestants import PRECISIONS, all_cores, parse_models
from launch.bench.links import bits_per_second
from launch.job.config import ConfigError, TrainConfig

BESIDE = {"scaling": ("grouped", "alone"), "exchange": ("factors", "allreduce", "grouped", "per-tensor", "alone")}
# Comparisons of networks, also those of keras.applications, and the models that they take if none are named.
SIZED = {
    "networks": "resnet20:64,resnet56:64,alexnet_cifar:64,vgg11:32,vgg11_bn:32,vgg16:16,keras:MobileNetV3Small:32,"
    "keras:EfficientNetV2B0:16,keras:ResNet50:16,keras:DenseNet121:16",
    "frozen": "keras:VGG16:8",
}
QUICK = {"models": "alexnet_cifar:4", "precisions": "float32", "rounds": 2, "turn_seconds": 0.1, "images": 64}
QUICK |= {"rates": "1gbit", "files": "20"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise ConfigError(f"{message}; --help lists what {self.prog} takes")


def parse(argv: list[str], description: str, comparisons: dict[str, Callable]) -> argparse.Namespace:
    """Read and check the command line, which names one of the comparisons; ``cases`` are the models in each precision.

    Raises:
        ConfigError: one sentence about the first thing that is wrong.
    """
    parser = _Parser("benchmark.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, comparison in comparisons.items():
        text = inspect.getdoc(comparison).partition("\n")[0]
        _add_flags(commands.add_parser(name, help=text, description=text), name, QUICK if "--quick" in argv else {})
    _add_project(commands)
    arguments = parser.parse_args(argv)
    if arguments.command == "project":
        if arguments.doctor and (arguments.device or arguments.link or arguments.per_host):
            raise ConfigError("--doctor brings the machine along; leave out --device, --link and --per-host")
        arguments.device, arguments.per_host = arguments.device or "a100", arguments.per_host or 8
        arguments.link = arguments.link or _link("100gbit")
    elif "models" in arguments:
        any_of_keras = arguments.command in SIZED
        arguments.cases = parse_models(arguments.models, arguments.precisions, any_of_keras=any_of_keras)
    return arguments


def _add_flags(parser: argparse.ArgumentParser, command: str, quick: dict) -> None:
    def add(flag: str, kind, default, text: str, choices=None):
        default = quick.get(flag.strip("-").replace("-", "_"), default)
        shown = "" if default is None else f" (default: {default})"
        parser.add_argument(flag, type=kind, default=default, help=text + shown, choices=choices)

    parser.add_argument("--quick", action="store_true", help="tiny and short: shows that it works, measures nothing")
    add("--rounds", _positive, 3, "turns of each contestant")
    add("--json", _target, None, "write the result there, and a picture beside it")
    if command not in ("throughput", "start"):
        add("--turn-seconds", _seconds, 2.0, "how long a turn lasts")
    if command not in ("input", "start"):
        models = "alexnet_cifar" if command in ("throughput", "checkpoint") else "alexnet_cifar,alexnet"
        models = SIZED.get(command, models)
        also = "keras:NAME" if command in SIZED else "tiny"
        text = f"MODEL or MODEL:BATCH (per rank), comma-separated; a model of train.py, or {also}"
        precisions = ",".join(PRECISIONS) if command == "throughput" else "float32"
        add("--models", str, models, text)
        add("--precisions", partial(_words, PRECISIONS), precisions, "arithmetic of the layers, comma-separated")
    if command == "throughput":
        datasets = get_args(get_args(TrainConfig.model_fields["dataset"].annotation)[0])
        add("--dataset", str, "shapes", "as for train.py", datasets)
        add("--data-dir", str, None, "as for train.py")
        add("--images", _positive, 12_800, "images of an epoch, which is a turn")
    if command == "input":
        add("--images", _positive, 20_000, "images in memory")
        add("--jpeg-dir", Path, None, "class folders of JPEG files (default: drawn ones of 500x375)")
    if beside := BESIDE.get(command):
        text = "who takes part beside Lockstep, comma-separated; all live at once, which large models may not fit"
        add("--beside", partial(_words, beside), ",".join(word for word in beside if word != "factors"), text)
    if command == "scaling":
        add("--ranks", _positive, len(all_cores()), "the most ranks, one core each")
    if command == "exchange":
        rates = "of the link, comma-separated, in tc's words; none: unshaped"
        add("--rates", str, "100mbit,1gbit,10gbit,none", rates)
        add("--longest-step", _seconds, 10.0, "leave out what a link would take longer for, in seconds")
    if command in SIZED:
        add("--image-size", _positive, None, "height and width in pixels (default: each network's least, 32 or more)")
    if command == "start":
        add("--files", _numbers, "500,50000,1280000", "of the data sets, comma-separated; they lie in memory")
        add("--ranks", _numbers, "1,2", "numbers of ranks, comma-separated")
    if command == "overhead":
        add("--cpu-devices", _positive, 2, "replicas of the MirroredStrategy; 1 leaves it out, and tiny's two ranks")


def _add_project(commands) -> None:
    text = "What a cluster that one does not have would do: images/s, efficiency, bytes and schemes, as the cost model"
    parser = commands.add_parser("project", help=f"{text} expects.", description=f"{text} expects.")
    add = parser.add_argument
    add("--ranks", type=_numbers, help="numbers of replicas, comma-separated (default: 8,64,512, or the doctor's)")
    add("--link", type=_link, help="rate between hosts in tc's words, of all links of a host (default: 100gbit)")
    add("--per-host", type=_positive, help="devices in a host (default: 8)")
    add("--device", choices=projection.DEVICES, help="whose published rates (default: a100)")
    add("--doctor", type=Path, metavar="FILE", help="a machine as launch/doctor.py --json FILE measured it")
    usual = ",".join(f"{name}:{batch}" for name, batch in projection.USUAL_BATCH.items())
    add("--models", type=_batches, dest="batches", default=usual, help=f"MODEL:BATCH per rank (default: {usual})")


def _numbers(text: str) -> list[int]:
    return [_positive(word.strip()) for word in text.split(",")]


def _batches(text: str) -> dict[str, int]:
    batches = {}
    for word in text.split(","):
        name, _, batch = word.strip().partition(":")
        if name not in projection.NETWORKS:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(projection.NETWORKS)}")
        batches[name] = _positive(batch) if batch else projection.USUAL_BATCH[name]
    return batches


def _link(text: str) -> tuple[str, float]:
    try:
        return text, bits_per_second(text)
    except ConfigError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate such as 25gbit or 100gbit") from None


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


def _target(text: str) -> Path:
    """The result's file, refused now where it could not be written after the measurement."""
    path = Path(text)
    if not (folder := path.resolve().parent).is_dir():
        raise argparse.ArgumentTypeError(f"{path} lies in no existing folder; make {path.parent} first")
    if path.is_dir() or path.suffix == ".png":
        raise argparse.ArgumentTypeError(f"{path} is a folder or a picture's name; name a file such as result.json")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"{path} cannot be written; name a file in a folder of your own")
    return path
