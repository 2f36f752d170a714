"""The generated data set: the same everywhere, balanced, and not to be solved from single pixels."""

import hashlib
import math

import numpy as np
import pytest

from data.formats.shapes import ANGLES, CLASSES, ONE, OPAQUE, draw, load_shapes, stencils


@pytest.fixture(scope="module")
def splits():
    return load_shapes(None, seed=0)


def test_sizes_and_balance(splits):
    for source, count in zip(splits, (20_000, 4_000), strict=True):
        assert source.pixels.shape == (count, 32, 32, 3) and source.classes == CLASSES
        assert np.bincount(source.labels).tolist() == [count // 10] * 10


def test_first_images_of_a_seed_are_what_they_were_on_every_machine(splits):
    digests = [hashlib.sha256(source.pixels[:200].tobytes()).hexdigest() for source in splits]
    assert digests == [
        "f79837179e3b7a17e92681e25c2d8cb69b8311d20b36466081c8e55aac25c268",
        "d6b42b856da391e0112c3fe9670d367b26b1ec887cf4599289d2032a8de0a447",
    ]


def test_rounded_sines_do_not_depend_on_the_last_bits():
    for step in range(ANGLES):
        assert abs(ONE * math.sin(2 * math.pi * step / ANGLES) % 1 - 0.5) > 1e-6


def test_seeds_and_splits_share_no_image(splits):
    sets = [splits[0].pixels[:500], splits[1].pixels[:500], draw(500, seed=1, stream=0)[0], draw(500, -1, 0)[0]]
    assert len({image.tobytes() for pixels in sets for image in pixels}) == 2000


def test_no_two_classes_look_alike_at_any_rotation():
    """Overlap (intersection over union) of a class with every turn of every other one."""
    grid = np.arange(128) - 63.5
    covers = stencils().astype(float) / OPAQUE
    for angle in np.arange(0, 2 * np.pi, np.pi / 16):
        rows = np.rint(grid[:, None] * np.cos(angle) - grid[None, :] * np.sin(angle) + 63.5).astype(int)
        columns = np.rint(grid[:, None] * np.sin(angle) + grid[None, :] * np.cos(angle) + 63.5).astype(int)
        turned = covers[:, rows.clip(0, 127), columns.clip(0, 127)]
        for one in range(10):
            for other in set(range(10)) - {one}:
                both = np.minimum(turned[one], covers[other]).sum()
                assert both < 0.9 * np.maximum(turned[one], covers[other]).sum(), (CLASSES[one], CLASSES[other])


def test_softmax_regression_on_the_pixels_stays_under_0_6(splits):
    x, x_val = (source.pixels.reshape(len(source), -1) / np.float32(127.5) - 1 for source in splits)
    y, y_val = (source.labels for source in splits)
    weights, velocity = np.zeros((3072, 10), np.float32), np.zeros((3072, 10), np.float32)
    generator, accuracy = np.random.default_rng(0), []
    for epoch in range(3):
        for rows in generator.permutation(len(x)).reshape(-1, 200):
            scores = np.exp((logits := x[rows] @ weights) - logits.max(axis=1, keepdims=True))
            error = scores / scores.sum(axis=1, keepdims=True) - np.eye(10, dtype=np.float32)[y[rows]]
            velocity = 0.9 * velocity + x[rows].T @ error / 200
            weights -= 0.002 / (1 + epoch) * velocity
        accuracy.append(float(np.mean((x_val @ weights).argmax(axis=1) == y_val)))
    assert 0.15 < max(accuracy) < 0.6  # well above chance: it did learn what there is to learn
