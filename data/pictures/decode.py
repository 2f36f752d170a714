"""From a file to pixels of the asked size: decode only the part that is shown, then resize it.

Nothing here is random: whoever calls says which part. Everything runs in a tf.data graph on the CPU.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from data.pictures import exif

EXIF = {"apply": "applied to JPEG files", "ignore": "ignored"}


class Decoding(NamedTuple):
    """In which of several ways files become pixels; a run keeps that with which it began.

    Attributes:
        exif: a key of EXIF: whether JPEG files are turned upright by their orientation tag.
        precise: whether JPEG is decoded by libjpeg's accurate method, and no pixel is overlooked wherever a side
            shrinks. Before, TensorFlow chose the method, and pixels were overlooked where both sides were less than
            halved.
    """

    exif: str = "apply"
    precise: bool = True

    @property
    def dct(self) -> str:
        """libjpeg's method for the cosine transform; "" for TensorFlow's choice."""
        return "INTEGER_ACCURATE" if self.precise else ""


NOW = Decoding()


def description(eighths: int, decoding: Decoding) -> dict:
    """How `central_decode` makes pixels of a file, in words, as a JSON value that other programs can go by."""
    now = "area means along sides that shrink, bilinear along sides that grow; rounded"
    before = (
        "bilinear where both sides are less than halved, area means where neither side grows, "
        "else bilinear with antialiasing; rounded"
    )
    return {
        "decoder": f"tf.io.decode_image; JPEG: tf.image.decode_and_crop_jpeg, {decoding.dct or 'default'} DCT",
        "exif_orientation": EXIF[decoding.exif],
        "colours": "RGB; grey is repeated, alpha is dropped",
        "crop": f"the central square, its side {eighths}/8 of the shorter side, rounded up",
        "crop_eighths": eighths,
        "resize": now if decoding.precise else before,
        "precise": decoding.precise,
        "values": "uint8, 0 to 255; what the network does with them is inside it",
    }


def described(pixels: dict) -> Decoding:
    """The way that a `description` tells of; one of before there was a choice says nothing of it."""
    names = {words: name for name, words in EXIF.items()}
    return Decoding(names.get(pixels.get("exif_orientation"), "ignore"), bool(pixels.get("precise", False)))


def decode_window(data: tf.Tensor, held: tf.Tensor, choose: Callable, decoding: Decoding) -> tf.Tensor:
    """Decode the part of a file that `choose(height, width) -> (y, x, h, w)`, int32, picks: uint8 [h, w, 3].

    `held` is its orientation by `exif.orientations`, int32 scalar, which is not looked at where it is to be ignored.
    JPEG decodes only the blocks it needs. Grey, RGBA and CMYK files become RGB, animations their first frame.
    """

    def stored(choose):
        shape = tf.image.extract_jpeg_shape(data)
        window = tf.stack(choose(shape[0], shape[1]))
        return tf.image.decode_and_crop_jpeg(data, window, channels=3, dct_method=decoding.dct)

    def jpeg():
        if decoding.exif == "ignore":
            return stored(choose)

        def turned():
            return exif.upright(stored(lambda *sides: exif.stored_window(held, *sides, choose)), held)

        return tf.cond(held == 1, lambda: stored(choose), turned)

    def other():
        image = tf.io.decode_image(data, channels=3, expand_animations=False)
        image = tf.ensure_shape(image, [None, None, 3])
        y, x, h, w = choose(tf.shape(image)[0], tf.shape(image)[1])
        return image[y : y + h, x : x + w]

    return tf.cond(tf.io.is_jpeg(data), jpeg, other)


def central_decode(data: tf.Tensor, held: tf.Tensor, size: int, eighths: int, decoding: Decoding) -> tf.Tensor:
    """Decode one file and show its central square: string scalar -> uint8 [size, size, 3].

    The square's side is `eighths` / 8 of the shorter side, so the aspect is kept; the same pixels if it has that size.
    """
    window = decode_window(data, held, lambda height, width: central_window(height, width, eighths), decoding)
    return resize(window, size, decoding)


def central(images: tf.Tensor, size: int, eighths: int, decoding: Decoding) -> tf.Tensor:
    """`central_decode` for images in memory: uint8 [b, h, w, 3] -> uint8 [b, size, size, 3]."""
    y, x, h, w = central_window(images.shape[1], images.shape[2], eighths)
    return resize(images[:, y : y + h, x : x + w], size, decoding)


def central_window(height, width, eighths: int):
    """The central square: y, x, h, w; ints from ints, int32 scalars from int32 scalars."""
    shorter = (height + width - abs(height - width)) // 2
    side = (shorter * eighths + 7) // 8
    return (height - side) // 2, (width - side) // 2, side, side


def resize(images: tf.Tensor, size: int, decoding: Decoding) -> tf.Tensor:
    """uint8 [..., h, w, 3] -> uint8 [..., size, size, 3].

    Means of areas along a side that shrinks, so that no pixel is overlooked; bilinear along a side that grows.
    """

    def resized(**how):
        return lambda: to_uint8(tf.image.resize(images, [size, size], **how))

    def shrunk_and_grown():
        smaller = tf.image.resize(images, tf.minimum(sides, size), method="area")
        return to_uint8(tf.image.resize(smaller, [size, size]))

    # A file's size is known only once it is decoded. Of 270x270 to 224x224 bilinear takes 0.2, area 0.3 ms; bilinear
    # with a filter as wide as it shrinks takes 1.1.
    sides = tf.shape(images)[-3:-1]
    grows = sides <= size if decoding.precise else sides < 2 * size
    cases = [
        (tf.reduce_all(sides == size), lambda: images),
        (tf.reduce_all(grows), resized()),
        (tf.reduce_all(sides >= size), resized(method="area")),
    ]
    shape = [*images.shape[:-3], size, size, 3]
    if images.shape == shape:
        return images
    other = shrunk_and_grown if decoding.precise else resized(antialias=True)
    return tf.ensure_shape(tf.case(cases, other), shape)


def to_uint8(images: tf.Tensor) -> tf.Tensor:
    """float32 -> uint8 of the same shape: rounded, and clipped to 0..255."""
    return tf.cast(tf.clip_by_value(tf.round(images), 0.0, 255.0), tf.uint8)
