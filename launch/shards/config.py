"""The settings of launch/prepare.py."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PrepareConfig:
    """Write a data set as TFRecord shards, or verify shards that were written."""

    out: str
    """Folder for the shards and their manifest; empty, or begun by the same command."""
    dataset: Literal["shapes", "cifar10", "image_folder", "csv", "npz", "hdf5"] | None = None
    """What to read; needed unless --verify is given."""
    data_dir: str | None = None
    """Where it lies, as for launch/train.py."""
    shards: int = 16
    """Number of training shards; validation shards are of about the same size."""
    seed: int = 0
    """Seed of the generated data set (shapes)."""
    classes: str | None = None
    """Only these classes, in this order, as for launch/train.py."""
    skip_unreadable: int = 0
    """Leave out up to so many files that cannot be pictures by their size and first bytes; they are named; of
    image_folder and csv."""
    shorter_side: int | None = None
    """Make pictures whose shorter side is longer JPEG files of that side; the others stay as they are."""
    verify: bool = False
    """Only compare size and SHA-256 of all shards in OUT with its manifest."""
