"""An evaluation's pictures in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np


def add_images(directory: Path, pictures: Mapping[str, Path], step: int) -> None:
    """Add PNG files to a folder of TensorBoard's as images.

    Args:
        directory: as ``RUN/tensorboard/evaluation``.
        pictures: tag -> file.
        step: where the slider shows them: the epoch that the evaluated weights come from.

    Raises:
        OSError: a file cannot be read or written.
    """
    import tensorflow as tf
    from PIL import Image

    try:
        writer = tf.summary.create_file_writer(str(directory))
        with writer.as_default(step=step):
            for tag, path in pictures.items():
                with Image.open(path) as image:
                    tf.summary.image(tag, np.asarray(image.convert("RGB"))[None])
        writer.close()
    except tf.errors.OpError as error:
        raise OSError(f"{directory}: {error.message}") from error
