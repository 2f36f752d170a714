"""Pictures that are in training and in what is evaluated."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from data.datasets import ArraySource, DataError, Subset
from data.files.source import FileSource
from launch.evaluation import leakage
from launch.evaluation.leakage import Twin, decoded_digests, pixel_digest, stored_digests, twins

PIXELS = np.random.default_rng(0).integers(0, 256, (150, 6, 5, 3), dtype=np.uint8)


def arrays(pixels):
    return ArraySource("npz", ("a", "b"), pixels, np.zeros(len(pixels)))


def pictures(folder, pixels, form="PNG", **how):
    folder.mkdir()
    paths = [f"{index}.{form.lower()}" for index in range(len(pixels))]
    for path, picture in zip(paths, pixels, strict=True):
        Image.fromarray(picture).save(folder / path, form, **how)
    return FileSource("image_folder", ("a", "b"), str(folder), paths, np.zeros(len(pixels)))


def test_twins_come_in_order_with_the_first_of_their_copies():
    evaluated = [(4, b"x"), (2, b"y"), (9, b"z"), (0, b"x")]
    training = [(7, b"x"), (1, b"w"), (3, b"z"), (5, b"x")]
    assert twins(iter(evaluated), iter(training)) == [Twin(0, 5, 2), Twin(4, 5, 2), Twin(9, 3, 1)]
    # In whatever order workers bring them.
    assert twins(reversed(evaluated), reversed(training)) == twins(evaluated, training)


def test_arrays_are_compared_by_their_pixels():
    found = twins(stored_digests(arrays(PIXELS[[5, 149, 80]])), stored_digests(arrays(PIXELS[:100])))
    assert found == [Twin(0, 5, 1), Twin(2, 80, 1)]
    one_bit = PIXELS[5:6].copy()
    one_bit[0, 5, 4, 2] ^= 1
    assert twins(stored_digests(arrays(one_bit)), stored_digests(arrays(PIXELS))) == []


def test_the_same_values_in_another_shape_are_another_picture():
    assert pixel_digest(PIXELS[0]) != pixel_digest(PIXELS[0].reshape(5, 6, 3))


def test_files_are_compared_by_their_bytes(tmp_path):
    source = pictures(tmp_path / "a", PIXELS[:70])
    found = list(stored_digests(source))
    contents = [(tmp_path / "a" / f"{index}.png").read_bytes() for index in range(70)]
    assert found == [(index, hashlib.sha256(content).digest()) for index, content in enumerate(contents)]
    copies = pictures(tmp_path / "b", PIXELS[[69, 100, 1]])
    assert twins(stored_digests(copies), found) == [Twin(0, 69, 1), Twin(2, 1, 1)]


def test_decoding_finds_the_same_pixels_in_other_files(tmp_path):
    stored = pictures(tmp_path / "plain", PIXELS[:70])
    repacked = pictures(tmp_path / "repacked", PIXELS[[3, 99]], compress_level=0)
    assert twins(stored_digests(repacked), stored_digests(stored)) == []
    assert twins(decoded_digests(repacked), decoded_digests(stored)) == [Twin(0, 3, 1)]
    # And between files and memory.
    assert list(decoded_digests(stored)) == list(decoded_digests(arrays(PIXELS[:70])))


def test_jpeg_pixels_are_those_of_training(tmp_path):
    import tensorflow as tf

    source = pictures(tmp_path / "a", PIXELS[:2], form="JPEG")
    content = (tmp_path / "a" / "1.jpeg").read_bytes()
    pixels = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
    assert list(decoded_digests(source))[1] == (1, pixel_digest(pixels.numpy()))


@pytest.mark.parametrize("digests", [stored_digests, decoded_digests])
def test_workers_may_take_parts(tmp_path, digests):
    source = Subset(pictures(tmp_path / "a", PIXELS[:9]), np.arange(1, 9))
    whole = list(digests(source))
    parts = [list(digests(source, np.arange(8)[rank::3])) for rank in range(3)]
    assert [index for index, _ in whole] == list(range(8)) and sorted(sum(parts, [])) == whole


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(leakage, "BATCH", 2)
    source = pictures(tmp_path / "a", PIXELS[:7])
    torn = io.BytesIO((tmp_path / "a" / "5.png").read_bytes()[:60])
    (tmp_path / "a" / "5.png").write_bytes(torn.getvalue())
    with pytest.raises(DataError, match=r"a/5.png cannot be decoded"):
        list(decoded_digests(source))
