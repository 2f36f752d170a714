"""The images that all contestants of a comparison read, as npz or JPEG files."""

from pathlib import Path

import numpy as np

from launch.job import environment
from launch.job.config import ConfigError


def random_images(count: int, size: int, classes: int, folder: Path) -> Path:
    """``count`` random images of ``size`` x ``size``; who reads them takes the largest label for the last class."""
    path, random = folder / f"random-{count}-{size}-{classes}.npz", np.random.default_rng(0)
    if not path.exists():
        images = random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        np.savez(path, x_train=images, y_train=classes - 1 - np.arange(count) % classes)
    return path


def open_training_set(dataset: str, data_dir: str | Path | None):
    """The training examples of a data set, a ``data.datasets.Source``.

    Raises:
        ConfigError: whatever is wrong with the data set.
    """
    with environment.loading(quiet=True):
        from data import DatasetConfig, load
        from data.datasets import DataError

    try:
        return load(DatasetConfig(dataset, data_dir and str(data_dir), seed=0, validation_split=0)).train
    except DataError as error:
        raise ConfigError(str(error)) from None


def real_images(dataset: str, data_dir: str | None, count: int, folder: Path) -> tuple[Path, int]:
    """``count`` shuffled examples of a data set, at its own size or at 32x32 where it has none; and the number of
    their classes.

    Raises:
        ConfigError: whatever is wrong with the data set, or too few images.
    """
    source = open_training_set(dataset, data_dir)
    if len(source) < count:
        raise ConfigError(f"{dataset} has {len(source)} training images, but --images asks for {count}; lower it")

    from data.order import Order, Share
    from data.pipeline import training_batches

    order = Order(examples=len(source), seed=0, replica_batch=count, replicas=1)
    size = source.image_size[0] if source.image_size else 32
    stream = {"share": Share(0, 1), "start_step": 0, "augment": "none", "image_size": size, "threads": 1}
    pixels, labels, _ = next(training_batches(source, order=order, **stream).as_numpy_iterator())
    # A part of the data may lack classes, which an npz must not.
    classes, labels = np.unique(labels, return_inverse=True)
    path = folder / f"{dataset}-{count}.npz"
    np.savez(path, x_train=pixels, y_train=labels)
    return path, len(classes)


def draw_files(folder: Path, count: int) -> Path:
    """JPEG files of 4 classes, 500x375 as in ImageNet: soft random pictures, which compress as photographs do."""
    import tensorflow as tf

    random, size = np.random.default_rng(0), (375, 500)
    for index in range(count):
        soft = tf.image.resize(random.uniform(0, 255, (12, 16, 3)), size, "bicubic") + random.normal(0, 8, (*size, 3))
        path = folder / f"class{index % 4}" / f"{index:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_jpeg(tf.cast(tf.clip_by_value(soft, 0, 255), tf.uint8), quality=90).numpy())
    return folder
