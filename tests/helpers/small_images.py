"""A few images of three classes; ``arrays`` and ``files`` are fixtures of the test files."""

import numpy as np
import tensorflow as tf

from data.datasets import ArraySource
from data.files.source import FileSource

N = 31  # images; two steps of 12 per epoch, seven left out of each


def arrays():
    """Images in memory, 16x16."""
    rng = np.random.default_rng(0)
    return ArraySource("made", ("a", "b", "c"), rng.integers(0, 256, (N, 16, 16, 3), np.uint8), np.arange(N) % 3)


def files(tmp_path_factory):
    """JPEG and PNG files of several sizes, one grey."""
    root, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(1)
    paths = []
    for index in range(N):
        height, width = 16 + index % 5, 16 + index % 3
        pixels = rng.integers(0, 256, (height, width, 1 if index == 7 else 3), np.uint8)
        jpeg = index % 4
        paths.append(f"{index}.jpg" if jpeg else f"{index}.png")
        (root / paths[-1]).write_bytes((tf.io.encode_jpeg if jpeg else tf.io.encode_png)(pixels).numpy())
    source = FileSource("made", ("a", "b", "c"), str(root), paths, np.arange(N) % 3)
    source.turned = 0  # as who opens a folder knows; the other graph takes longer to build, see test_exif.py
    return source


def joined(batches):
    """Each column of all batches, one behind the other."""
    return tuple(np.concatenate(column) for column in zip(*batches, strict=True))
