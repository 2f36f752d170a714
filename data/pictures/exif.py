"""How a camera was held, by the orientation tag of JPEG files: CIPA DC-008 (Exif 2.32), sections 4.5.4 and 4.6.4.

A pixel of the upright picture stands in the file in another row and column: 2 mirrored, 3 turned by 180 degrees, 4
mirrored upside down, 5 to 8 with rows and columns exchanged, of which 6 and 8 are turned by 90 degrees.
"""

import tensorflow as tf

from data.pictures.orientation import ENTRIES, HEAD, SEGMENT, SHORT, SIGNATURE, TAG, may_precede

ROWS, COLUMNS = (3, 4, 6, 7), (2, 3, 7, 8)  # orientations of which rows, columns are stored in reverse order


def orientations(data: tf.Tensor) -> tf.Tensor:
    """The orientations, 1 to 8, of files: string [b] -> int32 [b]; 1 where the first 4 KiB do not begin an Exif segment
    of JPEG, or it has no valid one."""
    # Most files have no such segment; they must not pay for a loop, nor for its being left out: once for all of them.
    seen = tf.strings.regex_full_match(tf.strings.substr(data, 0, HEAD), r"\C*Exif\x00\x00\C*")

    def search(pair):
        return tf.cond(pair[0], lambda: _searched(pair[1]), lambda: tf.constant(1))

    def searched():
        return tf.map_fn(search, (seen, data), fn_output_signature=tf.int32, parallel_iterations=1)

    return tf.cond(tf.reduce_any(seen), searched, lambda: tf.ones_like(seen, tf.int32))


def _bytes(data: tf.Tensor, place, count: int) -> tf.Tensor:
    """int32 [count]: bytes from a place on, zeros where the file has none any more."""
    part = tf.strings.substr(data, tf.clip_by_value(place, 0, tf.strings.length(data)), count)
    found = tf.cast(tf.io.decode_raw(part, tf.uint8), tf.int32)
    return tf.ensure_shape(tf.pad(found, [[0, count - tf.size(found)]]), [count])


def _searched(data: tf.Tensor) -> tf.Tensor:
    signature = tf.constant(list(SIGNATURE), tf.int32)

    def step(place, found, _):
        head = _bytes(data, place, SEGMENT)
        exif = (head[1] == 0xE1) & tf.reduce_all(head[4:] == signature)
        more = (head[0] == 0xFF) & may_precede(head[1]) & ~exif & (place < HEAD)
        return place + 2 + head[2] * 256 + head[3], tf.where(exif, place + SEGMENT, found), more

    loop = (tf.constant(2), tf.constant(0), tf.constant(True))
    _, tiff, _ = tf.while_loop(lambda _, __, more: more, step, loop, parallel_iterations=1)
    return tf.cond(tiff > 0, lambda: _tag(data, tiff), lambda: tf.constant(1))


def _tag(data: tf.Tensor, tiff: tf.Tensor) -> tf.Tensor:
    head = _bytes(data, tiff, 8)
    little = tf.reduce_all(head[:4] == list(b"II*\0"))
    known = little | tf.reduce_all(head[:4] == list(b"MM\0*"))

    def number(digits):
        digits = tf.cast(tf.where(little, tf.reverse(digits, [-1]), digits), tf.int64)
        return tf.reduce_sum(digits * [256**power for power in reversed(range(digits.shape[-1]))], axis=-1)

    # As 32 bits, where a place beyond the file is one at its end.
    directory = tiff + tf.cast(tf.minimum(number(head[4:]), 2**30), tf.int32)
    table = _bytes(data, directory, 2 + 12 * ENTRIES)
    entries = tf.reshape(table[2:], [ENTRIES, 12])
    tags = tf.range(ENTRIES, dtype=tf.int64) < number(table[:2])
    tags &= number(entries[:, :2]) == TAG
    entry = entries[tf.argmax(tags)]
    value = tf.cast(number(entry[8:10]), tf.int32)
    valid = known & tf.reduce_any(tags) & (number(entry[2:4]) == SHORT) & (value >= 1) & (value <= 8)
    return tf.where(valid, value, 1)


def stored_window(orientation: tf.Tensor, height, width, choose):
    """The part of a file's rows and columns that holds what `choose` picks of the upright picture.

    Args:
        orientation: int32 scalar, 1 to 8.
        height, width: of the file's pixels, int32 scalars.
        choose: (height, width) of the upright picture -> its window y, x, h, w, int32 scalars.

    Returns:
        The window y, x, h, w in the file, int32 scalars.
    """
    turned = orientation >= 5
    y, x, h, w = choose(tf.where(turned, width, height), tf.where(turned, height, width))
    y, x, h, w = (tf.where(turned, *pair) for pair in ((x, y), (y, x), (w, h), (h, w)))
    y = tf.where(_is_one_of(orientation, ROWS), height - y - h, y)
    return y, tf.where(_is_one_of(orientation, COLUMNS), width - x - w, x), h, w


def upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Pixels [h, w, 3] as they stand in the file -> [h, w, 3], or [w, h, 3] where it is turned by 90 degrees."""

    def turned(condition, change):
        return lambda image: tf.cond(condition, lambda: change(image), lambda: image)

    image = turned(_is_one_of(orientation, ROWS), lambda image: tf.reverse(image, [0]))(pixels)
    image = turned(_is_one_of(orientation, COLUMNS), lambda image: tf.reverse(image, [1]))(image)
    return turned(orientation >= 5, lambda image: tf.transpose(image, [1, 0, 2]))(image)


def _is_one_of(orientation: tf.Tensor, values: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(orientation == tf.constant(values))
