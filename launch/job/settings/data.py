"""Which pictures are trained on, and as what they reach the network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from launch.job.settings.base import Count, FileFunction, Positive, Settings, Share


class DataSettings(Settings):
    """Which pictures are trained on, and as what they reach the network."""

    dataset: Literal["shapes", "cifar10", "image_folder", "tfrecord", "csv", "npz", "hdf5"] | FileFunction = "shapes"
    """Where examples come from; shapes is generated and needs no files. Or your own: FILE.py:FUNCTION, called without
    arguments."""
    data_dir: Path | None = None
    """Folder (or file) of the data set."""
    classes: str | None = None
    """Train on these classes alone, in this order: names with commas between, or a file with one per line."""
    image_feature: str | None = None
    """Name of the feature of TFRecords that holds the encoded image; default: image/encoded. Of npz and hdf5, name of
    the array to train on, a/b within a group, beside which no other split is used; default: x_train and the like."""
    label_feature: str | None = None
    """Name of the feature of TFRecords that holds the label; default: image/class/label. Of npz and hdf5, name of the
    array of labels; default: y_train and the like."""
    skip_unreadable: Count = 0
    """Train without up to so many files that cannot be pictures by their size and first bytes; they are named; of
    image_folder and csv."""
    reindex: bool = False
    """List and look at all files anew, also where what an earlier start of the run has found still seems to hold; of
    image_folder, csv and tfrecord."""
    validation_split: Share = 0.1
    """Part of the training examples held out where the data set has no validation split of its own."""
    image_size: Positive | None = None
    """Height and width in pixels that the model sees; default: the data's own size, else the model's."""
    augment: Literal["none", "flip_crop", "inception"] = "none"
    """flip_crop: pad, crop, flip; inception: random area and aspect, flip, colour."""
    exif: Literal["apply", "ignore"] = "apply"
    """apply: JPEG photographs are turned upright by their orientation tag; in evaluation and prediction of the run,
    too. A run that is gone on with keeps what it began with."""


def problems(c) -> Iterator[str]:
    """Sentences about settings that do not go together; ``c`` is the whole ``TrainConfig``."""
    if c.dataset in ("image_folder", "tfrecord", "csv", "npz", "hdf5") and c.data_dir is None:
        yield f"--dataset {c.dataset} was given without --data-dir; name the folder or file it lies in"
    for flag, given in (("image", c.image_feature), ("label", c.label_feature)):
        if given is not None and c.dataset not in ("tfrecord", "npz", "hdf5"):
            yield f"--{flag}-feature {given} belongs to tfrecord, npz and hdf5, not to {c.dataset}; leave it out"
    if c.skip_unreadable and c.dataset not in ("image_folder", "csv"):
        yield (
            f"--skip-unreadable {c.skip_unreadable} belongs to image_folder and csv, where each picture is a file, "
            f"not to {c.dataset}; leave it out"
        )
    if c.reindex and c.dataset not in ("image_folder", "csv", "tfrecord"):
        yield f"--reindex belongs to image_folder, csv and tfrecord, of {c.dataset} nothing is kept; leave it out"
    if c.dataset == "shapes" and c.data_dir is not None:
        yield (
            f"--data-dir {c.data_dir} was given, but --dataset shapes is generated; "
            "name the data's kind with --dataset, for example image_folder"
        )
