"""`shapes`: a data set that needs no network and no files, drawn in seconds, the same on every machine.

Ten classes of 32x32 colour images. Each shows one shape of random position, size, colour and rotation on a
two-coloured ground with stripes and dots, under noise.

All drawing is integer arithmetic on the raw output of numpy's Philox generator (a stream that numpy
guarantees), so no rounding mode, maths library or thread count can change a bit. The one table of sines is
rounded to 1/4096, far coarser than the last bits in which maths libraries differ.
"""

import math
from functools import cache

import numpy as np

from data.datasets import ArraySource, DataError

CLASSES = ("circle", "ring", "square", "frame", "triangle", "star", "cross", "crescent", "heart", "arrow")
TRAIN_EXAMPLES, VALIDATION_EXAMPLES = 20_000, 4_000
SIZE = 32  # pixels, height and width
CHUNK = 100  # images drawn at once: few enough for the temporaries to stay in the processor's cache
ONE = 4096  # fixed point: this integer means 1.0
OPAQUE = 64  # blending weight of full cover; small enough for int16 products with a colour
ANGLES = 256  # steps in a full turn
SINES = np.array([round(ONE * math.sin(2 * math.pi * step / ANGLES)) for step in range(ANGLES)], dtype=np.int32)
STENCIL = 128  # height and width of a stencil in cells; it shows [-1.25, 1.25] in units of the shape's radius


def load_shapes(data_dir: str | None, seed: int) -> tuple[ArraySource, ArraySource]:
    """20,000 training and 4,000 validation examples, classes equally frequent: a pure function of `seed`."""
    if data_dir is not None:
        raise DataError(f"data_dir is {data_dir}, but shapes is generated and reads no files: name another dataset.")
    train = ArraySource("shapes", CLASSES, *draw(TRAIN_EXAMPLES, seed, stream=0))
    return train, ArraySource("shapes", CLASSES, *draw(VALIDATION_EXAMPLES, seed, stream=1))


def draw_test(seed: int) -> ArraySource:
    """4,000 examples that no training of this seed has seen, nor its validation."""
    # Stream 2 of a seed holds out validation examples, see `data.hold_out`.
    return ArraySource("shapes", CLASSES, *draw(VALIDATION_EXAMPLES, seed, stream=3))


def draw(count: int, seed: int, stream: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [count, 32, 32, 3] and labels int32 [count]; the streams of a seed share no random number."""
    numbers = np.random.Philox(key=(stream << 64) + seed % 2**64)
    labels = np.arange(count, dtype=np.int32) % len(CLASSES)
    pixels = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for start in range(0, count, CHUNK):
        chunk = _draw_chunk(labels[start : start + CHUNK], numbers)
        pixels[start : start + CHUNK] = chunk.transpose(0, 2, 3, 1)
    return pixels, labels


def _draw_chunk(labels: np.ndarray, numbers: np.random.Philox) -> np.ndarray:
    """uint8 [b, 3, 32, 32]: ground, stripes, dots, the shape, noise, each painted over the last."""
    count = len(labels)

    def uniform(low: int, high: int, channels: int = 1) -> np.ndarray:
        """int32 [b, channels, 1, 1], uniform in low..high inclusive."""
        bits = numbers.random_raw(count * channels).reshape(count, channels, 1, 1) >> np.uint64(32)
        return (bits * np.uint64(high - low + 1) >> np.uint64(32)).astype(np.int32) + low

    x = np.arange(1 - SIZE, SIZE, 2, dtype=np.int32).reshape(1, 1, 1, SIZE)  # half pixels from the middle
    y = x.reshape(1, 1, SIZE, 1)
    ground = uniform(0, 140, channels=3)
    image = np.empty((count, 3, SIZE, SIZE), np.int16)
    image[:] = ground
    other = np.clip(ground + uniform(-60, 60, channels=3), 0, 255)
    _blend(image, other, OPAQUE // 2 + _across(uniform(0, ANGLES - 1), x, y) // (ONE * 40 // OPAQUE))
    for _ in range(2):  # stripes, 1 to 3 pixels wide
        distance = np.abs(_across(uniform(0, ANGLES - 1), x, y) - uniform(-28 * ONE, 28 * ONE))
        _blend(image, uniform(0, 200, channels=3), (uniform(2 * ONE, 4 * ONE) - distance) // (2 * ONE // OPAQUE))
    for _ in range(3):  # dots, 2 to 6 pixels wide
        distance = (x - uniform(-31, 31)) ** 2 + (y - uniform(-31, 31)) ** 2
        _blend(image, uniform(0, 200, channels=3), (uniform(2, 6) ** 2 - distance) * 4 + OPAQUE // 2)
    colour = uniform(115, 255, channels=3)
    too_close = (colour - ground).sum(axis=1, keepdims=True) < 180
    colour = np.where(too_close, ground + 115, colour)
    _blend(image, colour, _cover(labels, uniform, x, y))
    # Two nibbles of a random byte add up to triangular noise in -15..15, here times 1 to 3.
    noise = numbers.random_raw(image.size // 8).astype("<u8").view(np.uint8).reshape(image.shape)
    noise = (noise & 15).astype(np.int16) + (noise >> 4) - 15
    image += noise * uniform(1, 3).astype(np.int16)
    return np.clip(image, 0, 255).astype(np.uint8)


def _across(angle: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Fixed-point coordinate of each point along the direction `angle`."""
    return x * SINES[(angle + ANGLES // 4) % ANGLES] + y * SINES[angle]


def _blend(image: np.ndarray, colour: np.ndarray, cover: np.ndarray) -> None:
    """Paint `colour` [b, 3, 1, 1] over `image` in place, weighted by cover [b, 1, 32, 32], clipped to 0..OPAQUE."""
    cover = np.clip(cover, 0, OPAQUE).astype(np.int16)
    image += (colour.astype(np.int16) - image) * cover // OPAQUE


def _cover(labels: np.ndarray, uniform, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The shapes' cover, 0..OPAQUE: every pixel looks up its place in the stencil of its image's class."""
    radius = uniform(15, 26)  # half pixels
    reach = 34 - radius  # of the centre from the middle: a shape may leave the picture by 1 pixel
    dx, dy = (d - uniform(-ONE, ONE) * reach // ONE for d in (x, y))
    angle = uniform(-ANGLES // 8, ANGLES // 8) % ANGLES  # up to an eighth of a turn either way
    # Stencil cells per half pixel, in fixed point, turned by the angle.
    cosine, sine = (SINES[(angle + turn) % ANGLES] * (4 * STENCIL // 2) // (5 * radius) for turn in (ANGLES // 4, 0))
    column, row = (dx * cosine + dy * sine) // ONE, (dy * cosine - dx * sine) // ONE
    column, row = (np.clip(cell + STENCIL // 2, 0, STENCIL - 1) for cell in (column, row))
    first = labels.reshape(-1, 1, 1, 1) * STENCIL**2
    return np.take(stencils(), first + row * STENCIL + column)


@cache
def stencils() -> np.ndarray:
    """int16 [classes, STENCIL, STENCIL], 0..OPAQUE: each class upright, with edges as soft as a picture's."""
    grid = np.arange(1 - STENCIL, STENCIL, 2, dtype=np.int64) * (5 * ONE) // (4 * STENCIL)
    x, y = grid[None, :], grid[:, None]  # y points down

    def disc(radius, centre_x=0, centre_y=0):
        return (x - centre_x) ** 2 + (y - centre_y) ** 2 <= radius**2

    def box(half_width, half_height):
        return (abs(x) <= half_width) & (abs(y) <= half_height)

    tenth = ONE // 10
    square = box(8 * tenth, 8 * tenth)
    star = [_polar(ONE if corner % 2 else 4 * tenth, corner * ANGLES // 10) for corner in range(1, 11)]
    triangle = [_polar(ONE, corner * ANGLES // 3) for corner in range(3)]
    drawings = {
        "circle": disc(9 * tenth),
        "ring": disc(ONE) & ~disc(6 * tenth),
        "square": square,
        "frame": square & ~box(45 * tenth // 10, 45 * tenth // 10),
        "triangle": _inside(triangle, x, y),
        "star": _inside(star, x, y),
        "cross": box(ONE, 3 * tenth) | box(3 * tenth, ONE),
        "crescent": disc(ONE) & ~disc(8 * tenth, 5 * tenth),
        "heart": disc(5 * tenth, -45 * tenth // 10, -4 * tenth)
        | disc(5 * tenth, 45 * tenth // 10, -4 * tenth)
        | _inside([(-88 * tenth // 10, -2 * tenth), (0, -4 * tenth), (88 * tenth // 10, -2 * tenth), (0, ONE)], x, y),
        "arrow": (box(2 * tenth, ONE) & (y > -2 * tenth)) | _inside([(0, -ONE), (8 * tenth, 0), (-8 * tenth, 0)], x, y),
    }
    padded = np.pad(np.stack([drawings[name] for name in CLASSES]), ((0, 0), (2, 2), (2, 2))).astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(1, 2))
    return (windows.sum(axis=(3, 4)) * OPAQUE // 25).astype(np.int16)


def _polar(radius: int, angle: int) -> tuple[int, int]:
    """Integer point at `angle` steps clockwise from the top."""
    return radius * int(SINES[angle % ANGLES]) // ONE, -radius * int(SINES[(angle + ANGLES // 4) % ANGLES]) // ONE


def _inside(corners: list[tuple[int, int]], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Even-odd rule: which grid points lie inside the polygon."""
    inside = np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        crosses = (y1 <= y) != (y2 <= y)
        left = (x - x1) * (y2 - y1) < (x2 - x1) * (y - y1)
        inside ^= crosses & (left == (y2 > y1))
    return inside
