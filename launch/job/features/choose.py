"""Whether the outputs of frozen layers are computed once, of which pictures, and where they lie."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from data.datasets import Source
from launch.job.config import TrainConfig
from launch.job.features import store
from launch.job.features.cut import Cut
from launch.job.preparation.inputs import Inputs


class Pass(NamedTuple):
    """What one array of features is computed from.

    Attributes:
        source: the examples of a split.
        fingerprint: of these.
        view: the epoch, from 0, as whose augmented pictures training sees them; None: as evaluation sees them.
    """

    source: Source
    fingerprint: str
    view: int | None


def passes(config: TrainConfig, inputs: Inputs, fingerprints: list[str | None]) -> list[Pass]:
    """Each view of the training split, then the validation split where there is one."""
    views = (None,) if config.cache_views is None else range(config.cache_views)
    train, validation = inputs.splits
    found = [Pass(train, fingerprints[0], view) for view in views]
    return found if validation is None else [*found, Pass(validation, fingerprints[1], None)]


def name(config: TrainConfig, inputs: Inputs, trunk: keras.Model, one: Pass, batch: int) -> str:
    """The name of a pass' array, which follows from all that its numbers do.

    Args:
        batch: images that the trunk sees at once.
    """
    facts = {"data": one.fingerprint, "size": inputs.image_size, "batch": batch, "precision": config.precision}
    facts |= {"decoding": list(inputs.decoding), "exact": config.exact}
    if config.augment != "none":
        facts |= {"augment": config.augment, "view": one.view, "seed": None if one.view is None else config.seed}
    return store.name_of(trunk, facts)


def why_not(config: TrainConfig, found: Cut | None, examples: int, used: int, wanted: str) -> str | None:
    """Why features are not to be computed once, in words; the same on all workers.

    Args:
        examples: of the training data.
        used: training examples over all steps.
    """
    if found is None:
        return "no layer with weights is frozen before all that trains"
    few = used < 2 * examples * (config.cache_views or 1)
    return "they are used less than twice" if wanted == "auto" and few else None


def no_room(found: Cut, folder: Path, wanted: list[tuple[str, int]]) -> str | None:
    """Why a disk cannot take the arrays that are not there yet, in words.

    Args:
        wanted: name and rows of each.
    """
    width = int(np.prod(found.shape))
    needed = sum(size(found, rows) for name, rows in wanted if store.open_array(folder / name, rows, width) is None)
    place = next(filter(os.path.exists, (folder, *folder.absolute().parents)))
    free = shutil.disk_usage(place).free
    if needed <= free // 2:
        return None
    return f"they take {needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free, of which half may go"


def size(found: Cut, rows: int) -> int:
    """Bytes of so many rows of features."""
    return 4 * rows * int(np.prod(found.shape))
