"""Pictures on their way into shards: as they are, or made smaller."""

import os
from collections.abc import Iterator

import tensorflow as tf
from tensorflow.autograph.experimental import do_not_convert

from data.datasets import DataError, Source
from data.pictures import exif
from data.pictures.decode import NOW, decode_window, to_uint8

QUALITY = 95  # of JPEG, 4:2:0, as im2rec and the usual resized ImageNet sets have it


def encoded_images(source: Source, start: int, stop: int, shorter_side: int | None = None) -> Iterator[bytes]:
    """Encoded images start..stop-1, each decoded once to see that it can be.

    Args:
        source: pixels in memory become PNG; files stay what they are, byte for byte.
        shorter_side: make files whose shorter side is longer JPEG files of that side, upright, in their aspect.

    Raises:
        tf.errors.OpError: one cannot be decoded; those before it have been given.
    """
    if shorter_side and not source.encoded:
        raise DataError(f"--shorter-side {shorter_side} is for files, and {source.name} has pixels; leave it out.")

    def encoded(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = source.read(index[tf.newaxis])[0]
        if not source.encoded:
            return tf.io.encode_png(image), tf.shape(image)
        if shorter_side:
            return shrunk(image, shorter_side)
        # The shape goes along because TensorFlow leaves out a decoding whose result nobody uses.
        return image, tf.shape(tf.io.decode_image(image, channels=3, expand_animations=False))

    options = tf.data.Options()
    options.autotune.enabled = False  # its thread would hold up the end of every shard
    threads = len(os.sched_getaffinity(0))
    dataset = tf.data.Dataset.range(start, stop).map(do_not_convert(encoded), num_parallel_calls=threads)
    for image, _ in dataset.prefetch(64).with_options(options).as_numpy_iterator():
        yield image


def shrunk(data: tf.Tensor, shorter_side: int) -> tuple[tf.Tensor, tf.Tensor]:
    """A file, string scalar, as JPEG of that shorter side if its own is longer, else as it is; and its shape.

    Means of areas, so that no pixel is overlooked; upright, as the new file has no orientation tag.
    """
    held = exif.orientations(data[tf.newaxis])[0]
    pixels = decode_window(data, held, lambda height, width: (0, 0, height, width), NOW)
    sides = tf.shape(pixels)[:2]
    shorter = tf.reduce_min(sides)

    def smaller():
        scale = shorter_side / tf.cast(shorter, tf.float64)
        wanted = tf.cast(tf.round(tf.cast(sides, tf.float64) * scale), tf.int32)
        resized = to_uint8(tf.image.resize(pixels, wanted, method="area"))
        return tf.io.encode_jpeg(resized, quality=QUALITY)

    return tf.cond(shorter > shorter_side, smaller, lambda: data), tf.shape(pixels)
