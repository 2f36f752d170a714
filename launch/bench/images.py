"""The data that all contestants of a comparison read, as npz or JPEG files."""

from pathlib import Path

import numpy as np

from launch.job import environment
from launch.job.config import ConfigError


def random_data(count: int, size: int, classes: int, folder: Path) -> Path:
    """``count`` random images of ``size`` x ``size``; who reads them takes the largest label for the last class."""
    path, random = folder / f"random-{count}-{size}-{classes}.npz", np.random.default_rng(0)
    if not path.exists():
        images = random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        np.savez(path, x_train=images, y_train=classes - 1 - np.arange(count) % classes)
    return path


def real_data(dataset: str, data_dir: str | None, images: int, folder: Path) -> tuple[Path, int]:
    """The first ``images`` examples of a data set, shuffled, at its own size or at 32x32 where it has none; and the
    number of their classes.

    Raises:
        ConfigError: whatever is wrong with the data set, or too few images.
    """
    with environment.loading(quiet=True):
        from data import load
        from data.datasets import DataError
        from data.order import SequentialOrder, Share
        from data.pipeline import validation_batches

    try:
        source = load(dataset, data_dir, seed=0, validation_split=0).train
    except DataError as error:
        raise ConfigError(str(error)) from None
    if len(source) < images:
        raise ConfigError(f"{dataset} has {len(source)} training images, but --images asks for {images}; lower it")
    order = SequentialOrder(examples=len(source), replica_batch=100, replicas=1)
    size = source.image_size[0] if source.image_size else 32
    batches = validation_batches(source, order=order, share=Share(0, 1), augment="none", image_size=size, threads=2)
    pixels, labels, weights = map(np.concatenate, zip(*batches.as_numpy_iterator(), strict=True))
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(weights))[:images]
    path = folder / f"{dataset}-{images}.npz"
    # A part of the data may lack classes, which an npz must not.
    classes, labels = np.unique(labels[chosen], return_inverse=True)
    np.savez(path, x_train=pixels[chosen], y_train=labels)
    return path, len(classes)


def draw_files(folder: Path, count: int) -> Path:
    """JPEG files of 4 classes, 500x375 as in ImageNet: soft random pictures, which compress as photographs do."""
    import tensorflow as tf

    random, size = np.random.default_rng(0), (375, 500)
    for index in range(count):
        soft = tf.image.resize(random.uniform(0, 255, (12, 16, 3)), size, "bicubic") + random.normal(0, 8, (*size, 3))
        data = tf.io.encode_jpeg(tf.cast(tf.clip_by_value(soft, 0, 255), tf.uint8), quality=90)
        path = folder / f"class{index % 4}" / f"{index:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.numpy())
    return folder
