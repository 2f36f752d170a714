"""What is trained in a comparison: the model, the batch, the data; the same for every contestant."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from launch.job import environment
from launch.job.config import ConfigError, TrainConfig

MODELS = get_args(TrainConfig.model_fields["model"].annotation)
IMAGES = 1000  # of a made-up data set; no fewer than classes, each of which needs one


@dataclass(frozen=True)
class Case:
    """A model and its batch per rank (device); ``label`` names both in tables."""

    model: str
    batch: int
    precision: str

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        with environment.loading(quiet=True):
            from models import MODELS as architectures  # loads Keras and TensorFlow

        return architectures[self.model].default_size

    @property
    def classes(self) -> int:
        """Of made-up data: CIFAR-10's number for its model, ImageNet's for the others."""
        return 10 if self.model == "alexnet_cifar" else 1000

    @property
    def label(self) -> str:
        return f"{self.model} b{self.batch}" + ("" if self.precision == "float32" else f" {self.precision}")


def parse_models(text: str, batch: int | None, precision: str) -> list[Case]:
    """Read ``alexnet_cifar,alexnet:16``; a batch per rank stands behind the colon, ``batch`` is that of the others.

    Raises:
        ConfigError: an unknown model, or a batch that is no whole number above 0.
    """
    cases = []
    for word in text.split(","):
        model, _, own = word.strip().partition(":")
        if model not in MODELS:
            raise ConfigError(f"--models has {model!r}; expected one of {', '.join(MODELS)}, as in alexnet:16,vgg16:8")
        if own and (not own.isdecimal() or int(own) < 1):
            raise ConfigError(f"--models has {word.strip()!r}; expected a batch of 1 or more behind the colon")
        default = 64 if model == "alexnet_cifar" else 16
        cases.append(Case(model, int(own) if own else batch or default, precision))
    return cases


def made_up_data(classes: int, folder: Path) -> Path:
    """An npz of random 32x32 images, for comparisons on one repeated batch, where only their number matters."""
    path = folder / f"random-{classes}.npz"
    if not path.exists():
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
        np.savez(path, x_train=images, y_train=np.arange(IMAGES) % classes)
    return path


def real_data(dataset: str, data_dir: str | None, images: int, folder: Path) -> Path:
    """An npz of the first ``images`` examples of a data set, shuffled, at its own size or at 32x32 where it has none.

    Raises:
        ConfigError: whatever is wrong with the data set, or too few images.
    """
    with environment.loading(quiet=True):
        from data import load
        from data.datasets import DataError
        from data.pipeline import validation_batches

    try:
        source = load(dataset, data_dir, seed=0, validation_split=0).train
    except DataError as error:
        raise ConfigError(str(error)) from None
    if len(source) < images:
        raise ConfigError(f"{dataset} has {len(source)} training images, but --images asks for {images}; lower it")
    size = source.image_size[0] if source.image_size else 32
    batches = validation_batches(
        source, replica_batch=100, replicas=1, first=0, stride=1, augment="none", image_size=size, threads=2
    )
    pixels, labels, weights = map(np.concatenate, zip(*batches.as_numpy_iterator(), strict=True))
    real = np.flatnonzero(weights)
    chosen = np.random.default_rng(0).permutation(real)[:images]
    path = folder / f"{dataset}-{images}.npz"
    # A part of the data may lack classes, which an npz must not.
    np.savez(path, x_train=pixels[chosen], y_train=np.unique(labels[chosen], return_inverse=True)[1])
    return path
