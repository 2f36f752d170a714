"""Pictures of an evaluated split that are training pictures, too: they make a network look better than it is.

Pictures are compared by SHA-256: of a file's bytes, or of the decoded pixels, which also finds the same picture in
another file format.  Resized or recompressed copies have other pixels and are not found.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from data.datasets import Source

BATCH = 64


class NotLookedFor(Exception):
    """Why leakage was not looked for, as what follows "not looked for"."""


@dataclass(frozen=True)
class Twin:
    """An evaluated picture that is a training picture: their indices, and how many training pictures equal it."""

    evaluated: int
    training: int
    copies: int


def twins(evaluated: Iterable[tuple[int, bytes]], training: Iterable[tuple[int, bytes]]) -> list[Twin]:
    """The evaluated pictures whose digest a training picture has, in order, each with the first such one.

    Only the digests of the evaluated pictures are held; those of the training pictures pass by.

    Args:
        evaluated, training: (index, digest) of each picture.
    """
    wanted: dict[bytes, list[int]] = {}
    for index, digest in evaluated:
        wanted.setdefault(digest, []).append(index)
    found: dict[bytes, tuple[int, int]] = {}
    for index, digest in training:
        if digest in wanted:
            first, copies = found.get(digest, (index, 0))
            found[digest] = (min(first, index), copies + 1)
    pairs = [Twin(index, *found[digest]) for digest, indices in wanted.items() if digest in found for index in indices]
    return sorted(pairs, key=lambda twin: twin.evaluated)


def pixel_digest(pixels: np.ndarray) -> bytes:
    """SHA-256 of a picture, uint8 [h, w, 3]: of its height, its width and its values."""
    assert pixels.dtype == np.uint8 and pixels.ndim == 3, (pixels.dtype, pixels.shape)
    digest = hashlib.sha256(b"%d %d " % pixels.shape[:2])
    digest.update(np.ascontiguousarray(pixels))
    return digest.digest()


def stored_digests(source: "Source", indices: np.ndarray | None = None) -> Iterator[tuple[int, bytes]]:
    """(index, digest) of pictures as they are stored: of a file's bytes, or of the pixels where these are in memory.

    Args:
        indices: int64 [m]; all by default. Workers may take parts.
    """
    indices = np.arange(len(source)) if indices is None else indices
    digest = _bytes_digest if source.encoded else pixel_digest
    for start in range(0, len(indices), BATCH):
        some = indices[start : start + BATCH]
        pictures = source.read(some).numpy()
        yield from ((int(index), digest(picture)) for index, picture in zip(some, pictures, strict=True))


def _bytes_digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def decoded_digests(source: "Source", indices: np.ndarray | None = None) -> Iterator[tuple[int, bytes]]:
    """(index, digest) of the pixels of whole pictures, decoded as in training where they are encoded.

    Pixels in memory and in a file have the same digest where they are the same.

    Args:
        indices: int64 [m]; all by default. Workers may take parts.

    Raises:
        DataError: a picture that cannot be decoded, naming it.
    """
    if not source.encoded:
        yield from stored_digests(source, indices)
        return
    import tensorflow as tf

    from data.datasets import DataError
    from data.pictures import exif
    from data.pictures.decode import NOW, decode_window

    indices = np.arange(len(source)) if indices is None else indices

    def decoded(index: tf.Tensor, content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        held = exif.orientations(content[None])[0]
        return index, decode_window(content, held, lambda height, width: (0, 0, height, width), NOW)

    # Files of all sizes: they are read by the batch, and decoded one by one on all cores.
    read = tf.data.Dataset.from_tensor_slices(indices).batch(BATCH).map(lambda some: (some, source.read(some)))
    options = tf.data.Options()
    options.autotune.enabled = False
    pictures = read.unbatch().map(decoded, num_parallel_calls=len(os.sched_getaffinity(0))).with_options(options)
    done = 0
    try:
        for index, pixels in pictures.as_numpy_iterator():
            yield int(index), pixel_digest(pixels)
            done += 1
    except tf.errors.InvalidArgumentError as error:
        # Results come in order: what failed is the next one.
        where = source.where(int(indices[done]))
        raise DataError(f"{where} cannot be decoded as JPEG or PNG; replace or remove it.") from error
