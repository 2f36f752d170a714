"""Who takes part in a comparison: the command lines of Lockstep and of launch/baselines that train the same."""

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

from launch.bench.images import random_images
from launch.job import environment
from launch.job.config import ConfigError, TrainConfig

TINY = "tiny"  # launch/baselines/tiny.py
MODELS = (*get_args(get_args(TrainConfig.model_fields["model"].annotation)[0]), TINY)
PRECISIONS = ("float32", "bfloat16")
# Below it a network of keras.applications cannot be built; 32 where none is named.
LEAST_SIZE = {"keras:Xception": 71, "keras:InceptionV3": 75, "keras:InceptionResNetV2": 75}
USUAL_BATCH = {"alexnet_cifar": 64, TINY: 8}  # of others 16
LAUNCH = Path(__file__).resolve().parent.parent
BASELINES, PLUGINS = LAUNCH / "baselines", LAUNCH / "bench" / "plugins.py"
MPIRUN = [  # as Horovod's own horovodrun calls it
    *("mpirun", "--bind-to", "none", "--map-by", "slot", "--oversubscribe", "--tag-output"),
    *("--mca", "pml", "ob1", "--mca", "btl", "^openib"),
    *(["--allow-run-as-root"] if os.geteuid() == 0 else []),
]


def all_cores() -> list[int]:
    """The cores this process may use."""
    return sorted(os.sched_getaffinity(0))


class Contestant(NamedTuple):
    """Something that trains: ``commands`` to start together, each on its ``cores``, in which ``ranks`` processes work
    as one; ``batch`` is the number of images in a step of all of them."""

    name: str
    commands: list[Sequence]
    cores: list[Sequence[int]]
    ranks: int
    batch: int
    environment: dict[str, str] = {}


class Case(NamedTuple):
    """A model, its batch per rank (device), and the size of its images where that is not its own; ``label`` names these
    in tables."""

    model: str
    batch: int
    precision: str = "float32"
    pixels: int | None = None

    @property
    def label(self) -> str:
        size = "" if self.pixels is None else f", {self.pixels} pixels"
        return f"{self.model} b{self.batch}" + ("" if self.precision == "float32" else f" {self.precision}") + size

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        if self.pixels is not None:
            return self.pixels
        with environment.loading(quiet=True):
            from models import MODELS as architectures  # loads Keras and TensorFlow

        return 32 if self.model == TINY else architectures[self.model].default_size


def least_size(model: str) -> int:
    """Height and width in pixels, 32 or more, from which on a network can be built."""
    with environment.loading(quiet=True):
        from models import MODELS as architectures

    return max(32, architectures[model].min_size) if model in architectures else LEAST_SIZE.get(model, 32)


def parse_models(text: str, precisions: Sequence[str] = ("float32",), *, any_of_keras: bool = False) -> list[Case]:
    """Read ``alexnet_cifar,alexnet:16``, where a batch per rank may stand behind the colon: cases of all precisions.

    Args:
        any_of_keras: whether ``keras:NAME`` is a model too; which names there are, train.py knows.

    Raises:
        ConfigError: an unknown model, or a batch that is no whole number above 0.
    """
    cases = []
    for word in text.split(","):
        model, colon, batch = word.strip().rpartition(":")
        if not colon or model == "keras":
            model, colon, batch = word.strip(), "", ""
        if model not in MODELS and not (any_of_keras and re.fullmatch(r"keras:\w+", model)):
            raise ConfigError(f"--models has {model!r}; expected one of {', '.join(MODELS)}, as in alexnet:16,vgg16:8")
        if colon and not (batch.isdecimal() and int(batch)):
            raise ConfigError(f"--models has {word.strip()!r}; expected a batch of 1 or more behind the colon")
        images = int(batch) if colon else USUAL_BATCH.get(model, 16)
        cases += [Case(model, images, precision) for precision in precisions]
    return cases


class Place(NamedTuple):
    """Where a contestant works: with how many ranks, or replicas in one process; on which cores, by default all; and
    what starts several ranks, by default mpirun on this host."""

    ranks: int = 1
    devices: int = 1
    cores: Sequence[int] = ()
    launcher: Sequence[str] = ()


ONE_PROCESS = Place()


@dataclass(frozen=True)
class Job:
    """Makes contestants that train the same.  ``flags`` are more flags of their programs.

    Attributes:
        case: model and batch.
        folder: gets data and run directories.
        data: npz whose images are read in whole epochs; None for random ones in an epoch without end: of ``tiny`` a
            thousand, of another model one batch, which is repeated.
        classes: of random images; None for CIFAR-10's number for its model and ImageNet's for others.
    """

    case: Case
    folder: Path
    data: Path | None = None
    classes: int | None = None

    def lockstep(self, name: str, *flags: str, place: Place = ONE_PROCESS) -> Contestant:
        """The product: train.py, with data and callbacks of the benchmark's."""
        words = [
            *("--model", f"{BASELINES / 'tiny.py'}:network" if self.case.model == TINY else self.case.model),
            *("--dataset", *(("npz", "--data-dir", self.data) if self.data else (f"{PLUGINS}:endless",))),
            *("--validation-split", 0, "--callbacks", f"{PLUGINS}:callbacks", "--keep-checkpoints", 1),
            *("--run-dir", self.folder / f"{self.case.label} {name}".replace(" ", "_")),
            *("--optimizer", "sgd", "--momentum", 0.9, "--schedule", "constant", "--warmup-epochs", 0),
            *("--hang-timeout", 0),  # who is stopped between its turns does not hang
            *(("--strategy", "mirrored", "--cpu-devices", place.devices) if place.devices > 1 else ()),
        ]
        return self._contestant(name, LAUNCH / "train.py", [*words, *flags], place)

    def alone(self, name: str, cores: Sequence[int]) -> Contestant:
        """The product once on each of the cores, as processes that work at the same time and exchange nothing."""
        parts = [self.lockstep(f"{name} {number}", place=Place(cores=[core])) for number, core in enumerate(cores)]
        commands, batch = [part.commands[0] for part in parts], self.case.batch * len(parts)
        return Contestant(name, commands, [[core] for core in cores], len(parts), batch, parts[0].environment)

    def keras_fit(self, name: str, *flags: str, place: Place = ONE_PROCESS) -> Contestant:
        """Keras' fit, on several devices with MirroredStrategy."""
        mirrored = ("--mirrored", "--cpu-devices", place.devices) if place.devices > 1 else ()
        return self._baseline(name, "keras_fit.py", *mirrored, *flags, place=place)

    def by_hand(self, name: str, *flags: str, place: Place = ONE_PROCESS) -> Contestant:
        """A loop around a tf.function, several ranks with Horovod and each with its share of the cores."""
        # A link's launcher binds each rank to one core.
        share = 1 if place.launcher else max(1, len(place.cores or all_cores()) // place.ranks)
        ranks = ("--cores", share) if place.ranks > 1 else ("--alone",)
        return self._baseline(name, "horovod_manual.py", *ranks, *flags, place=place)

    @property
    def _random_images(self) -> Path:
        case = self.case
        classes = self.classes or (10 if case.model in USUAL_BATCH else 1000)
        return random_images(1000 if case.model == TINY else case.batch, case.image_size, classes, self.folder)

    def _baseline(self, name: str, script: str, *flags, place: Place) -> Contestant:
        endless = "--endless" if self.case.model == TINY else "--repeat-batch"
        data = (self.data,) if self.data else (self._random_images, endless)
        return self._contestant(name, BASELINES / script, ["--model", self.case.model, "--data", *data, *flags], place)

    def _contestant(self, name: str, script: Path, words: list, place: Place) -> Contestant:
        case, launcher = self.case, place.launcher or ([*MPIRUN, "-np", place.ranks] if place.ranks > 1 else [])
        job = ("--image-size", case.image_size, "--batch-size", case.batch, "--precision", case.precision)
        command = [*launcher, sys.executable, script, *job, "--epochs", 1_000_000, *words]
        environment = {} if self.data else {"LOCKSTEP_BENCHMARK_DATA": str(self._random_images)}
        batch = case.batch * place.ranks * place.devices
        return Contestant(name, [command], [place.cores or all_cores()], place.ranks, batch, environment)
