"""From a file to pixels of the asked size: decode only the part that is shown, then resize it.

Nothing here is random: whoever calls says which part. Everything runs in a tf.data graph on the CPU.
"""

from collections.abc import Callable

import tensorflow as tf


def description(eighths: int) -> dict:
    """How `central_decode` makes pixels of a file, in words, as a JSON value that other programs can go by."""
    return {
        "decoder": "tf.io.decode_image; JPEG: tf.image.decode_and_crop_jpeg, default DCT",
        "exif_orientation": "ignored",
        "colours": "RGB; grey is repeated, alpha is dropped",
        "crop": f"the central square, its side {eighths}/8 of the shorter side, rounded up",
        "crop_eighths": eighths,
        "resize": "bilinear where both sides are less than halved, area means where neither side grows, "
        "else bilinear with antialiasing; rounded",
        "values": "uint8, 0 to 255; what the network does with them is inside it",
    }


def decode_window(data: tf.Tensor, choose: Callable) -> tf.Tensor:
    """Decode the part of a file that `choose(height, width) -> (y, x, h, w)`, int32, picks: uint8 [h, w, 3].

    JPEG decodes only the blocks it needs. Grey, RGBA and CMYK files become RGB, animations their first frame.
    """

    def jpeg():
        shape = tf.image.extract_jpeg_shape(data)
        return tf.image.decode_and_crop_jpeg(data, tf.stack(choose(shape[0], shape[1])), channels=3)

    def other():
        image = tf.io.decode_image(data, channels=3, expand_animations=False)
        image = tf.ensure_shape(image, [None, None, 3])
        y, x, h, w = choose(tf.shape(image)[0], tf.shape(image)[1])
        return image[y : y + h, x : x + w]

    return tf.cond(tf.io.is_jpeg(data), jpeg, other)


def central_decode(data: tf.Tensor, size: int, eighths: int) -> tf.Tensor:
    """Decode one file and show its central square: string scalar -> uint8 [size, size, 3].

    The square's side is `eighths` / 8 of the shorter side, so the aspect is kept; the same pixels if it has that size.
    """
    return resize(decode_window(data, lambda height, width: central_window(height, width, eighths)), size)


def central(images: tf.Tensor, size: int, eighths: int) -> tf.Tensor:
    """`central_decode` for images in memory: uint8 [b, h, w, 3] -> uint8 [b, size, size, 3]."""
    y, x, h, w = central_window(images.shape[1], images.shape[2], eighths)
    return resize(images[:, y : y + h, x : x + w], size)


def central_window(height, width, eighths: int):
    """The central square: y, x, h, w; ints from ints, int32 scalars from int32 scalars."""
    shorter = (height + width - abs(height - width)) // 2
    side = (shorter * eighths + 7) // 8
    return (height - side) // 2, (width - side) // 2, side, side


def resize(images: tf.Tensor, size: int) -> tf.Tensor:
    """uint8 [..., h, w, 3] -> uint8 [..., size, size, 3]; no pixel is overlooked, however much it shrinks.

    Bilinear where both sides are less than halved, since it looks at two pixels a side; means of areas where neither
    side grows; else bilinear with a filter as wide as it shrinks, which is right for all and slowest.
    """

    def resized(**how):
        return lambda: to_uint8(tf.image.resize(images, [size, size], **how))

    # A file's size is known only once it is decoded. Of 270x270 to 224x224 the three take 0.2, 0.3 and 1.1 ms.
    sides = tf.shape(images)[-3:-1]
    cases = [
        (tf.reduce_all(sides == size), lambda: images),
        (tf.reduce_all(sides < 2 * size), resized()),
        (tf.reduce_all(sides >= size), resized(method="area")),
    ]
    shape = [*images.shape[:-3], size, size, 3]
    return images if images.shape == shape else tf.ensure_shape(tf.case(cases, resized(antialias=True)), shape)


def to_uint8(images: tf.Tensor) -> tf.Tensor:
    """float32 -> uint8 of the same shape: rounded, and clipped to 0..255."""
    return tf.cast(tf.clip_by_value(tf.round(images), 0.0, 255.0), tf.uint8)
