"""How the examples of a source look in training and in evaluation: indices in, square images out, within a graph."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from data.datasets import Source
from data.pictures import decode, exif
from data.pictures.augment import flip_crop, inception, inception_decode
from data.pictures.decode import NOW, Decoding


class Augmentation(NamedTuple):
    """What is done to the examples in training, and what evaluation then sees of them.

    Attributes:
        images: (source, indices int64 [b], seed, epoch, size, decoding) -> training views, uint8 [b, size, size, 3].
        eighths: of the shorter side, the square in the middle that evaluation sees.
    """

    images: Callable
    eighths: int


def _plain(source: Source, indices: tf.Tensor, seed: int, epoch: tf.Tensor, size: int, decoding: Decoding):
    return evaluation_images(source, indices, "none", size, decoding)


def _flip_crop(source: Source, indices: tf.Tensor, seed: int, epoch: tf.Tensor, size: int, decoding: Decoding):
    # Once all have one size: a whole batch at a time costs little more than one image at a time.
    return flip_crop(evaluation_images(source, indices, "flip_crop", size, decoding), indices, seed, epoch)


def _inception(source: Source, indices: tf.Tensor, seed: int, epoch: tf.Tensor, size: int, decoding: Decoding):
    if not source.encoded:
        return inception(source.read(indices), indices, seed, epoch, size, decoding)
    # While decoding: the crop says which part of the file is needed at all.

    def view(data, held, index, decoding):
        return inception_decode(data, held, index, seed, epoch, size, decoding)

    return _decoded(source, indices, view, size, decoding)


AUGMENTATIONS = {
    "none": Augmentation(_plain, 8),
    "flip_crop": Augmentation(_flip_crop, 8),
    "inception": Augmentation(_inception, 7),
}


def evaluation_images(source: Source, indices, augment: str, size: int, decoding: Decoding = NOW) -> tf.Tensor:
    """Evaluation views of the examples at `indices`, int64 [b]: uint8 [b, size, size, 3], or what a `ready` source has.

    The same in a pipeline and outside of one. `augment` is a key of AUGMENTATIONS.
    """
    indices = tf.convert_to_tensor(indices, tf.int64)
    if source.ready:
        return source.read(indices)
    eighths = AUGMENTATIONS[augment].eighths
    if not source.encoded:
        return decode.central(source.read(indices), size, eighths, decoding)

    def view(data, held, _, decoding):
        return decode.central_decode(data, held, size, eighths, decoding)

    return _decoded(source, indices, view, size, decoding)


def _decoded(source: Source, indices: tf.Tensor, view: Callable, size: int, decoding: Decoding) -> tf.Tensor:
    """Read the batch in one call, as offsets and opens are cheaper together; decode one by one, as sizes differ."""
    data = tf.ensure_shape(source.read(indices), indices.shape)
    # Where all are known to stand upright, the same pixels come from a graph that is built three times as fast.
    ignored = decoding.exif == "ignore" or source.turned == 0
    held = tf.ones_like(indices, tf.int32) if ignored else exif.orientations(data)

    def decoded(decoding):
        image = tf.TensorSpec([size, size, 3], tf.uint8)
        parts = (data, held, indices)
        return tf.map_fn(lambda part: view(*part, decoding), parts, fn_output_signature=image, parallel_iterations=1)

    plain = decoding._replace(exif="ignore")
    if ignored:
        return decoded(plain)
    # Two loops, so that a batch that stands upright does not pay for the other way.
    return tf.cond(tf.reduce_any(held > 1), lambda: decoded(decoding), lambda: decoded(plain))
