"""Random views of an image, for training.

Random numbers are hashed from (seed, epoch, sample id), never drawn from a stream: a sample looks the same in an epoch
whichever worker, thread or batch position it lands on. Everything runs in a tf.data graph on the CPU.
"""

import tensorflow as tf

from data.pictures import decode

GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: the increment of splitmix64
COLOUR = 0.2  # brightness, contrast and saturation change by up to this fraction
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def uniforms(ids: tf.Tensor, seed: int, epoch, count: int) -> tf.Tensor:
    """`count` random numbers per sample: integer ids [...] -> float32 [..., count], uniform in [0, 1), 24 bits each.

    A chain of splitmix64 finalisers (Steele, Lea and Flood 2014) over seed, epoch, id and the number's place.
    """
    key = _mix(_mix(tf.constant(seed & (2**64 - 1), tf.uint64)) ^ tf.cast(epoch, tf.uint64))
    key = _mix(key ^ tf.cast(ids, tf.uint64))[..., None]
    places = tf.constant([(i * GOLDEN) & (2**64 - 1) for i in range(count)], tf.uint64)
    return tf.cast(_shift(_mix(key + places), 40), tf.float32) * 2.0**-24


def flip_crop(images: tf.Tensor, ids: tf.Tensor, seed: int, epoch) -> tf.Tensor:
    """Shift each image by up to an eighth of its size (4 pixels at 32) and mirror every other one.

    uint8 [b, h, w, 3] and ids int64 [b] -> uint8 [b, h, w, 3]. The same as padding by reflection, cropping and
    flipping (He et al. 2015, section 4.2, who pad with zeros). Reflection needs no padded copy, only other row and
    column numbers, and shows the network no black borders that evaluation never has.
    """
    height, width = images.shape[1:3]
    draw = uniforms(ids, seed, epoch, 3)
    rows = _shifted(draw[:, 0], height)
    columns = _shifted(draw[:, 1], width)
    columns = tf.where(draw[:, 2:] < 0.5, tf.reverse(columns, [1]), columns)
    # Rows first: that copies whole rows; then columns, pixel by pixel. Of six ways timed, one flat gather was as fast.
    images = tf.gather(images, rows, axis=1, batch_dims=1)
    return tf.gather(images, columns, axis=2, batch_dims=1)


def inception(
    images: tf.Tensor, ids: tf.Tensor, seed: int, epoch, size: int, decoding: decode.Decoding
) -> tf.Tensor:
    """Random crop, flip and colour for images of one size in memory: uint8 [b, h, w, 3] -> uint8 [b, size, size, 3].

    As `inception_decode`; all images in one operation where none can shrink.
    """
    height, width = images.shape[1:3]
    draw = uniforms(ids, seed, epoch, 8)
    windows = random_window(draw, height, width)
    if decoding.precise and size < max(height, width):

        def view(image, y, x, h, w):
            return decode.resize(image[y : y + h, x : x + w], size, decoding)

        shown = tf.TensorSpec([size, size, 3], tf.uint8)
        views = tf.map_fn(lambda parts: view(*parts), (images, *windows), fn_output_signature=shown)
        return flip_and_colour(views, draw)
    y, x, h, w = (tf.cast(v, tf.float32) for v in windows)
    # The operation wants the centres of the first and last output pixel, as a fraction of the image's.
    top, bottom = _centres(y, h, height, size)
    left, right = _centres(x, w, width, size)
    boxes = tf.stack([top, left, bottom, right], axis=1)
    views = tf.image.crop_and_resize(images, boxes, tf.range(tf.shape(images)[0]), [size, size])
    return flip_and_colour(decode.to_uint8(views), draw)


def inception_decode(
    data: tf.Tensor, held: tf.Tensor, sample_id: tf.Tensor, seed: int, epoch, size: int, decoding: decode.Decoding
) -> tf.Tensor:
    """Decode one file and take a random view of it: string scalar, id int64 scalar -> uint8 [size, size, 3].

    Crop of 8 to 100 % of the area and aspect 3/4 to 4/3, resize, flip (Szegedy et al. 2014, section 6), light colour.
    """
    draw = uniforms(sample_id, seed, epoch, 8)
    crop = decode.decode_window(data, held, lambda height, width: random_window(draw, height, width), decoding)
    return flip_and_colour(decode.resize(crop, size, decoding), draw)


def random_window(draw: tf.Tensor, height, width):
    """A random crop: uniforms [..., >= 4], image size (int32) -> y, x, h, w (int32 [...]).

    Aspect log-uniform in 3/4..4/3; area uniform between 8 % and the largest that fits with this aspect, which needs
    no second try where the usual rule would reject the crop.
    """
    height_f, width_f = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    aspect = tf.exp((2.0 * draw[..., 0] - 1.0) * tf.math.log(4.0 / 3.0))
    largest = tf.minimum(width_f * width_f / aspect, height_f * height_f * aspect)
    largest = tf.minimum(largest, width_f * height_f)
    smallest = tf.minimum(0.08 * width_f * height_f, largest)
    area = smallest + draw[..., 1] * (largest - smallest)
    h = tf.clip_by_value(tf.cast(tf.round(tf.sqrt(area / aspect)), tf.int32), 1, height)
    w = tf.clip_by_value(tf.cast(tf.round(tf.sqrt(area * aspect)), tf.int32), 1, width)
    y = tf.cast(draw[..., 2] * tf.cast(height - h + 1, tf.float32), tf.int32)
    x = tf.cast(draw[..., 3] * tf.cast(width - w + 1, tf.float32), tf.int32)
    return tf.minimum(y, height - h), tf.minimum(x, width - w), h, w


def flip_and_colour(images: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
    """uint8 [..., s, s, 3], uniforms [..., 8] of which 4..7 are used -> uint8 [..., s, s, 3].

    Brightness x (grey + saturation x (pixel - grey)), where contrast has moved the pixel and its grey away from the
    image's mean before. Multiplied out, and plane by plane: operations between pixels and their channels are slow.
    """
    leading = list(range(images.shape.rank - 3))
    images = tf.transpose(images, [*leading, *(len(leading) + axis for axis in (2, 0, 1))])
    flip, *changes = tf.unstack(draw[..., 4:, None, None], axis=-3)
    brightness, contrast, saturation = (1.0 + COLOUR * (2.0 * change - 1.0) for change in changes)
    planes = tf.cast(tf.where(flip[..., None] < 0.5, tf.reverse(images, [-1]), images), tf.float32)
    # The mean is summed in integers: a sum of floats would depend on how many threads share it.
    totals = tf.reduce_sum(tf.cast(images, tf.int32), axis=[-2, -1], keepdims=True)
    mean = _luma(tf.cast(totals, tf.float32)) / float(images.shape[-2] * images.shape[-1])
    shared = _luma(planes) * (brightness * contrast * (1.0 - saturation)) + mean * (brightness * (1.0 - contrast))
    planes = decode.to_uint8(planes * (brightness * contrast * saturation)[..., None, :, :] + shared[..., None, :, :])
    return tf.transpose(planes, [*leading, *(len(leading) + axis for axis in (1, 2, 0))])


def _luma(planes: tf.Tensor) -> tf.Tensor:
    """[..., 3, h, w] -> [..., h, w]."""
    red, green, blue = tf.unstack(planes, axis=-3)
    return red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]


def _shifted(draw: tf.Tensor, length: int) -> tf.Tensor:
    """Row (column) numbers of images shifted by up to an eighth, reflected at the edge: [b] -> int32 [b, length]."""
    reach = length // 8
    shift = tf.cast(draw * (2 * reach + 1), tf.int32) - reach
    at = tf.abs(shift[:, None] + tf.range(length))
    return tf.where(at >= length, 2 * (length - 1) - at, at)


def _centres(start: tf.Tensor, length: tf.Tensor, whole: int, size: int):
    """First and last sampling point of a crop, as a fraction of the axis and inside the image."""
    half, scale = length / (2.0 * size), float(max(whole - 1, 1))
    first, last = start + half - 0.5, start + length - half - 0.5
    return tf.maximum(first / scale, 0.0), tf.minimum(last / scale, 1.0)


def _mix(x: tf.Tensor) -> tf.Tensor:
    x = x + tf.constant(GOLDEN, tf.uint64)
    x = (x ^ _shift(x, 30)) * tf.constant(0xBF58476D1CE4E5B9, tf.uint64)
    x = (x ^ _shift(x, 27)) * tf.constant(0x94D049BB133111EB, tf.uint64)
    return x ^ _shift(x, 31)


def _shift(x: tf.Tensor, bits: int) -> tf.Tensor:
    return tf.bitwise.right_shift(x, tf.constant(bits, tf.uint64))
