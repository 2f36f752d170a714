"""What a network knows before it is trained, and which of its layers train."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from launch.job.settings.base import Positive, Settings


class TransferSettings(Settings):
    """What a network knows before it is trained, and which of its layers train."""

    weights: str | None = None
    """Begin at step 0 with these weights wherever layers and shapes fit, and train on: a run, a checkpoint, a file of
    Keras or safetensors; imagenet: those that Keras has for keras:NAME. To go on with a run, optimizer and all, is
    --resume."""
    freeze: str | None = None
    """Layers that do not train: base, which is all before the last flattening or global pooling, or names with commas
    between, in which * stands for anything."""
    unfreeze_epoch: Positive | None = None
    """The epoch, as printed, with which frozen layers begin to train."""
    unfreeze: str | None = None
    """Which of them begin to train then, names as in --freeze; default: all. Batch normalisation stays still."""
    unfreeze_learning_rate_factor: Annotated[float, Field(gt=0)] | None = None
    """What all rates are multiplied by from then on (default 0.1)."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Each layer's rate is this times the rate of the next one towards the head, which has the full one."""
    cache_features: Literal["auto", "on", "off"] = "auto"
    """Compute the outputs of frozen layers once and train on these, with the same result; auto: where pictures are not
    augmented and it pays."""
    cache_views: Positive | None = None
    """With --augment: compute them once for so many augmented views of each training picture; epoch 1 trains on the
    first, and so on, then on the first again, so that there are so many views and not endless ones."""
    features_dir: Path | None = None
    """Folder in which they are kept, and found by any run with the same weights, data and pixels; default: features in
    the run directory."""


def problems(c) -> Iterator[str]:
    """Sentences about settings that do not go together; ``c`` is the whole ``TrainConfig``."""
    if c.unfreeze_epoch is not None and c.freeze is None:
        yield f"--unfreeze-epoch {c.unfreeze_epoch} was given without --freeze, to which it belongs; give both"
    for name in ("unfreeze", "unfreeze_learning_rate_factor"):
        if (value := getattr(c, name)) is not None and c.unfreeze_epoch is None:
            flag = f"--{name.replace('_', '-')}"
            yield f"{flag} {value} was given without --unfreeze-epoch, to which it belongs; give both"
    if c.cache_features == "on" and c.augment != "none" and c.cache_views is None:
        yield (
            f"--cache-features on needs pictures that are the same in each epoch, but --augment is {c.augment}; leave "
            "one of them out, or keep a number of augmented views with --cache-views"
        )
    if c.cache_features == "off" and (given := c.cache_views or c.features_dir) is not None:
        flag = "--cache-views" if c.cache_views else "--features-dir"
        yield f"{flag} {given} was given with --cache-features off, which keeps none; leave one of them out"
    if c.cache_views is not None:
        yield from _problems_of_views(c)
    if c.unfreeze_epoch is not None and not 1 < c.unfreeze_epoch <= c.epochs:
        yield (
            f"--unfreeze-epoch {c.unfreeze_epoch} is none of the epochs 2 to {c.epochs}; leave --freeze out where "
            "nothing is to be frozen, or raise --epochs"
        )


def _problems_of_views(c) -> Iterator[str]:
    given, epochs = f"--cache-views {c.cache_views}", c.epochs if c.unfreeze_epoch is None else c.unfreeze_epoch - 1
    if c.augment == "none":
        yield f"{given} keeps augmented views, but --augment is none; add --augment flip_crop or inception"
    if c.cache_views >= epochs:
        yield (
            f"{given} has a view for each of the {epochs} epochs in which layers are frozen, so that nothing would be "
            "used twice; give fewer, or leave it out"
        )
