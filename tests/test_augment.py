"""Views: random ones keyed by (seed, epoch, sample) alone, uniform; and pixel for pixel what they say they are."""

import numpy as np
import pytest
import tensorflow as tf

from data.pictures import augment, decode

UPRIGHT = tf.constant(1)
IDS = tf.constant([3, 0, 77, 12345678901, 5, 8, 13, 21], tf.int64)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (8, 32, 40, 3), np.uint8)


def smooth_image(height, width):
    """A picture without the high frequencies on which ways of resizing differ."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [127 + 100 * np.sin(y / 17 + k) * np.cos(x / 23 - k) for k in range(3)]
    return np.stack(channels, -1).astype(np.uint8)


def test_uniforms_are_uniform_and_unrelated():
    draw = augment.uniforms(tf.range(20000, dtype=tf.int64), 1, 0, 4).numpy()
    assert draw.min() >= 0 and draw.max() < 1
    counts = np.stack([np.histogram(column, 20, (0, 1))[0] for column in draw.T])
    assert (((counts - 1000) ** 2 / 1000).sum(1) < 45).all()  # 19 degrees of freedom, p < 0.001
    following = augment.uniforms(tf.range(20000, dtype=tf.int64), 1, 1, 4).numpy()
    reseeded = augment.uniforms(tf.range(20000, dtype=tf.int64), 2, 0, 4).numpy()
    columns = np.concatenate([draw, following, reseeded, np.roll(draw, 1, axis=0)], axis=1)
    correlation = np.corrcoef(columns.T) - np.eye(16)
    assert np.abs(correlation).max() < 0.04


def test_uniforms_follow_splitmix64():
    """Against plain Python integers; and a sample's numbers do not depend on who stands beside it."""
    mask = 2**64 - 1

    def mix(x):
        x = (x + augment.GOLDEN) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    got = augment.uniforms(IDS, -1, 9, 3).numpy()
    for row, sample in zip(got, IDS.numpy().tolist(), strict=True):
        key = mix(mix(mix(-1 & mask) ^ 9) ^ sample)
        assert row.tolist() == [(mix((key + i * augment.GOLDEN) & mask) >> 40) / 2**24 for i in range(3)]
        assert (augment.uniforms(tf.constant(sample, tf.int64), -1, 9, 3).numpy() == row).all()


def test_flip_crop_is_reflect_pad_crop_flip(images):
    got = augment.flip_crop(tf.constant(images), IDS, 4, 2).numpy()
    draw = augment.uniforms(IDS, 4, 2, 3).numpy()
    flips = 0
    for image, result, (u, v, flip) in zip(images, got, draw, strict=True):
        y, x = int(u * 9), int(v * 11)  # 32 // 8 = 4 and 40 // 8 = 5 pixels each way
        expected = np.pad(image, ((4, 4), (5, 5), (0, 0)), mode="reflect")[y : y + 32, x : x + 40]
        flips += flip < 0.5
        assert (result == (expected[:, ::-1] if flip < 0.5 else expected)).all()
    assert 0 < flips < 8


def test_flip_crop_uses_every_shift_and_flips_half():
    ramp = np.arange(32, dtype=np.uint8)
    picture = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 0), -1).astype(np.uint8)  # (row, column, 0)
    n = 4000
    got = augment.flip_crop(tf.constant(np.broadcast_to(picture, (n, 32, 32, 3))), tf.range(n, dtype=tf.int64), 0, 0)
    middle = got.numpy()[:, 16, 15:17].astype(int)
    flipped = middle[:, 0, 1] > middle[:, 1, 1]
    assert 0.46 < flipped.mean() < 0.54
    rows = np.bincount(middle[:, 0, 0] - 16 + 4, minlength=9)
    columns = np.bincount(np.where(flipped, middle[:, 1, 1] - 15, middle[:, 0, 1] - 15) + 4, minlength=9)
    for counts in (rows, columns):
        assert len(counts) == 9 and (abs(counts - n / 9) < 100).all()


@pytest.mark.parametrize("view", ["flip_crop", "inception"])
def test_views_depend_on_sample_epoch_and_seed_only(images, view):
    def views(ids, order=slice(None), seed=1, epoch=0):
        extra = (24, decode.NOW) if view == "inception" else ()
        return getattr(augment, view)(tf.constant(images[order]), ids, seed, epoch, *extra).numpy()

    once = views(IDS)
    assert (views(IDS) == once).all()
    assert (views(tf.reverse(IDS, [0]), slice(None, None, -1)) == once[::-1]).all()
    assert (views(IDS[:3], slice(0, 3)) == once[:3]).all()
    for other in (views(IDS, epoch=1), views(IDS, seed=2), views(IDS + 1)):
        assert (other != once).any(axis=(1, 2, 3)).mean() > 0.8


def test_random_windows_lie_inside_and_keep_area_and_aspect():
    draw = augment.uniforms(tf.range(5000, dtype=tf.int64), 0, 0, 8)
    y, x, h, w = (v.numpy() for v in augment.random_window(draw, tf.constant(300), tf.constant(400)))
    assert (y >= 0).all() and (x >= 0).all() and (y + h <= 300).all() and (x + w <= 400).all()
    area, aspect = h * w / 120000, w / h
    assert 0.078 < area.min() < 0.1 and area.max() > 0.95
    assert 0.74 < aspect.min() < 0.77 and 1.30 < aspect.max() < 1.35
    assert y.min() == 0 and x.min() == 0 and (y + h).max() == 300 and (x + w).max() == 400
    for height, width in ((1, 1), (1, 50), (50, 1), (2, 3)):  # crops of degenerate images exist too
        y, x, h, w = (v.numpy() for v in augment.random_window(draw, tf.constant(height), tf.constant(width)))
        assert (h >= 1).all() and (w >= 1).all() and (y + h <= height).all() and (x + w <= width).all()


def test_inception_in_memory_and_from_file_agree():
    """The batched view and the decoding one draw the same window, flip and colour; only resizing differs."""
    pictures = np.stack([smooth_image(150, 200)] * 8)
    batched = augment.inception(tf.constant(pictures), IDS, 3, 1, 64, decode.NOW).numpy().astype(int)
    for index in range(8):
        png = tf.io.encode_png(pictures[index])
        jpeg = tf.io.encode_jpeg(pictures[index], quality=100, chroma_downsampling=False)
        alone = augment.inception_decode(png, UPRIGHT, IDS[index], 3, 1, 64, decode.NOW).numpy().astype(int)
        fused = augment.inception_decode(jpeg, UPRIGHT, IDS[index], 3, 1, 64, decode.NOW).numpy().astype(int)
        assert abs(alone - batched[index]).mean() < 2
        assert abs(alone - fused).mean() < 2
    assert (batched[0] != batched[1]).mean() > 0.9


def test_central_view_keeps_pixels_of_the_right_size_and_the_aspect():
    square = smooth_image(32, 32)
    assert (decode.central_decode(tf.io.encode_png(square), UPRIGHT, 32, 8, decode.NOW).numpy() == square).all()
    assert (decode.central(tf.constant(square[None]), 32, 8, decode.NOW).numpy()[0] == square).all()
    wide = smooth_image(32, 48)
    assert (decode.central_decode(tf.io.encode_png(wide), UPRIGHT, 32, 8, decode.NOW).numpy() == wide[:, 8:40]).all()
    shown = decode.central_decode(tf.io.encode_png(wide), UPRIGHT, 28, 7, decode.NOW).numpy()
    assert (shown == wide[2:30, 10:38]).all()
    large = smooth_image(120, 90)
    assert (
        decode.central(tf.constant(large[None]), 45, 8, decode.NOW).numpy()[0]
        == decode.central_decode(tf.io.encode_png(large), UPRIGHT, 45, 8, decode.NOW).numpy()
    ).all()
    shown = decode.central(tf.constant(large[None]), 45, 8, decode.NOW).numpy()[0].astype(int)
    assert abs(shown[5, 5] - large[26, 11]).max() <= 3


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grey_and_transparent_files_become_rgb(channels):
    pixels = np.broadcast_to(smooth_image(32, 32)[..., :1], (32, 32, channels)).copy()
    shown = decode.central_decode(tf.io.encode_png(pixels), UPRIGHT, 32, 8, decode.NOW).numpy()
    assert (shown == pixels[..., :1]).all() and shown.shape == (32, 32, 3)
    if channels == 1:
        grey = decode.central_decode(tf.io.encode_jpeg(pixels, quality=100), UPRIGHT, 32, 8, decode.NOW).numpy()
        assert abs(grey.astype(int) - pixels).max() < 4 and grey.shape == (32, 32, 3)


def test_flip_and_colour_are_those_of_the_formula():
    """Contrast around the image's mean grey, saturation around each pixel's grey, then brightness, in float64."""
    random = np.random.default_rng(0)
    images, draw = random.integers(0, 256, (6, 9, 9, 3)), random.uniform(size=(6, 8))
    draw[:, 4] = np.arange(6) % 2 * 0.9
    brightness, contrast, saturation = (0.8 + 0.4 * draw[:, i, None, None, None] for i in (5, 6, 7))
    luma = np.array(augment.LUMA)
    mean = (images @ luma).mean((1, 2))[:, None, None, None]
    expected = mean + (images - mean) * contrast
    grey = (expected @ luma)[..., None]
    expected = np.clip(np.round((grey + (expected - grey) * saturation) * brightness), 0, 255)
    expected[::2] = expected[::2, :, ::-1]
    batched = augment.flip_and_colour(tf.constant(images, tf.uint8), tf.constant(draw, tf.float32)).numpy()
    # Where float32 and float64 fall on two sides of a half, they round apart.
    assert abs(batched - expected).max() <= 1 and (batched != expected).mean() < 0.01
    for image, numbers, together in zip(images, draw, batched, strict=True):
        alone = augment.flip_and_colour(tf.constant(image, tf.uint8), tf.constant(numbers, tf.float32)).numpy()
        assert (alone == together).all()


@pytest.mark.parametrize("axis", (0, 1))
@pytest.mark.parametrize("shape", ((64, 96), (20, 24), (64, 16), (32, 64), (32, 32)))
def test_resizing_keeps_gradients_and_does_not_alias(shape, axis):
    """Whichever way is taken, a gradient stays one, and stripes finer than the result become grey."""

    def resized(line):
        """A picture that changes along one axis only, resized: that line of it."""
        picture = np.broadcast_to(line[:, None, None] if axis == 0 else line[None, :, None], (*shape, 3))
        shown = decode.resize(tf.constant(picture), 32, decode.NOW).numpy()
        return np.moveaxis(shown, axis, 0)[2:-2, 16, 0].astype(int)

    length = shape[axis]
    gradient = np.linspace(0, 255, length).round().astype("uint8")
    places = (np.arange(32) + 0.5) * length / 32 - 0.5
    assert abs(resized(gradient) - np.interp(places, np.arange(length), gradient)[2:-2]).max() <= 2
    if length > 32:
        stripes = (np.arange(length) % 2 * 255).astype("uint8")
        assert abs(resized(stripes) - 127).max() <= 50
