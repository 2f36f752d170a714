"""The pictures on which an export is compared with its run."""

import keras
import numpy as np
import tensorflow as tf

from data import hold_out, load
from data.datasets import DataError, Source, Subset
from data.formats import shapes
from data.order import SequentialOrder, Share
from data.pictures.decode import described
from data.pipeline import validation_batches
from launch.job.config import ConfigError
from launch.job.user import code as user_code
from launch.job.user.call import UserCodeError
from launch.job.user.data import open_data
from launch.trained.load import Found

COUNT = 32


def sample(found: Found) -> tuple[np.ndarray, str]:
    """Pictures that the run has not been trained on, spread over all of its classes.

    They come from the run's own validation set, as validation shows them.  Where its data is not at hand, or there is
    no validation set, they are generated ones of the ``shapes`` data set.

    Returns:
        uint8 [b, s, s, 3], and what they are, in words.
    """
    size = found.record.image_size
    try:
        source = _validation(found)
        if source is not None:
            return _pixels(source, found, size), "validation pictures"
    except (DataError, ConfigError, UserCodeError, OSError, tf.errors.OpError):
        pass
    pixels, _ = shapes.draw(COUNT, 0, stream=1)
    resized = keras.ops.image.resize(pixels.astype(np.float32), (size, size))
    return np.round(resized).astype(np.uint8), "generated pictures, since its validation set is not at hand"


def _validation(found: Found) -> Source | None:
    config = found.config
    if found.record.dataset != config.dataset and not user_code.is_reference(config.dataset):
        return None  # the data came as a Python object
    if user_code.is_reference(config.dataset):
        opened = open_data(user_code.load_function(config.dataset, "--dataset"))
        return hold_out(opened, config.seed, config.validation_split).validation
    return load(found.dataset(config.data_dir and str(config.data_dir))).validation


def _pixels(source: Source, found: Found, size: int) -> np.ndarray:
    count = min(COUNT, len(source))
    # Sources list one class after the other.
    chosen = Subset(source, np.linspace(0, len(source) - 1, count).astype(np.int64))
    order = SequentialOrder(examples=count, replica_batch=count, replicas=1)
    batches = validation_batches(
        chosen,
        order=order,
        share=Share(0, 1),
        augment=found.config.augment,
        image_size=size,
        threads=1,
        decoding=described(found.record.pixels),
    )
    return next(batches.as_numpy_iterator())[0]
