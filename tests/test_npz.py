"""Numpy archives."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data.datasets import ArraySource, DataError
from data.formats import npz
from data.formats.npz import load_npz, load_npz_test

X = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
Y = np.array([0, 2, 1, 2])


def saved(folder, **arrays):
    np.savez(folder / "set.npz", **arrays)
    return str(folder / "set.npz")


def test_colour_images_and_a_folder_that_holds_one_archive(tmp_path):
    saved(tmp_path, x_train=X, y_train=Y)
    train, validation = load_npz(str(tmp_path))
    assert validation is None and train.classes == ("0", "1", "2") and train.labels.tolist() == [0, 2, 1, 2]
    np.testing.assert_array_equal(train.read([3, 1]), X[[3, 1]])


@pytest.mark.parametrize("grey", [X[..., 0], X[..., :1]])
def test_grey_images_get_three_equal_channels(tmp_path, grey):
    train, _ = load_npz(saved(tmp_path, x_train=grey, y_train=Y[:, None]))
    np.testing.assert_array_equal(train.pixels, np.stack([X[..., 0]] * 3, axis=-1))
    assert train.labels.tolist() == Y.tolist()


def test_validation_is_val_else_test(tmp_path):
    test = {"x_test": X[:1], "y_test": Y[:1]}
    path = saved(tmp_path, x_train=X, y_train=Y, **test)
    assert load_npz(path)[1].labels.tolist() == [0]
    path = saved(tmp_path, x_train=X, y_train=Y, x_val=X[1:3], y_val=Y[1:3], **test)
    assert load_npz(path)[1].labels.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x_train": X}, "no array y_train"),
        ({"x": X}, "no array x_train .it has x"),
        ({"x_train": X, "y_train": Y, "y_val": Y}, "no array x_val"),
        ({"x_train": X / 127.5 - 1, "y_train": Y}, "x_train is float64: expected uint8"),
        ({"x_train": X[..., :2], "y_train": Y}, r"x_train has shape \(4, 5, 6, 2\)"),
        ({"x_train": X.reshape(4, -1), "y_train": Y}, "x_train has shape"),
        ({"x_train": X[:0], "y_train": Y[:0]}, "none of them 0"),
        ({"x_train": X, "y_train": Y[:3]}, "y_train has 3 labels for 4 images"),
        ({"x_train": X, "y_train": Y / 2}, "y_train is float64"),
        ({"x_train": X, "y_train": 2 * np.eye(4, dtype=int)}, r"of shape \(4, 4\)"),
        ({"x_train": X, "y_train": Y - 1}, r"y_train\[0\] is -1, out of range"),
        ({"x_train": X, "y_train": np.array([0, 1, 9, 1])}, r"y_train\[2\] is 9, out of range, as no .* label 2"),
        ({"x_train": X, "y_train": Y, "x_val": X, "y_val": Y + 1}, r"y_val\[1\] is 3, out of range"),
        ({"x_train": X, "y_train": Y, "x_val": X[:, :4], "y_val": Y}, "expected one size"),
        ({"x_train": X, "y_train": np.array([{}] * 4)}, "without pickled objects"),
    ],
)
def test_bad_archives(tmp_path, arrays, words):
    with pytest.raises(DataError, match=rf"set\.npz.*{words}"):
        load_npz(saved(tmp_path, **arrays))


def test_large_arrays_stay_in_the_file(tmp_path, monkeypatch):
    path = saved(tmp_path, x_train=X, y_train=Y, x_val=X[:2], y_val=Y[:2])
    whole = load_npz(path)
    monkeypatch.setattr(npz, "MAPPED", 1)
    mapped = load_npz(path)
    for before, after in zip(whole, mapped, strict=True):
        assert isinstance(after.pixels.base, np.memmap) and not isinstance(before.pixels.base, np.memmap)
        assert after.fingerprint() == before.fingerprint()
    rows = tf.constant([3, 1, 3], tf.int64)
    np.testing.assert_array_equal(tf.function(mapped[0].read)(rows), X[[3, 1, 3]])
    np.savez_compressed(path, x_train=X, y_train=Y)
    packed, _ = load_npz(path)
    assert packed.fingerprint() == whole[0].fingerprint() and not isinstance(packed.pixels.base, np.memmap)
    np.savez(path, x_train=np.repeat(X, 100, axis=0), y_train=np.repeat(Y, 100))
    content = bytearray(Path(path).read_bytes())
    content[20_000] ^= 1  # far behind what the array's header is read with
    Path(path).write_bytes(content)
    with pytest.raises(DataError, match="set.npz"):
        load_npz(path)


def test_large_arrays_stay_in_the_file_when_the_test_split_is_opened(tmp_path, monkeypatch):
    path = saved(tmp_path, x_train=X, y_train=Y, x_val=X, y_val=Y, x_test=X[:2], y_test=Y[:2])
    read, real = [], np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda self, name: read.append(name) or real(self, name))
    monkeypatch.setattr(npz, "MAPPED", 1)
    test = load_npz_test(path, ("0", "1", "2"))
    assert read == ["y_test"] and isinstance(test.pixels.base, np.memmap)
    np.testing.assert_array_equal(test.pixels, X[:2])


def test_pixels_are_in_memory_once():
    source = ArraySource("npz", ["a", "b", "c"], X.copy(), Y)
    np.testing.assert_array_equal(source.read(tf.constant([2], tf.int64)), X[[2]])
    assert np.shares_memory(source.pixels, np.asarray(memoryview(source._pixels_tensor)))


def test_missing_damaged_and_other_files(tmp_path):
    with pytest.raises(DataError, match="holds 0 .npz files"):
        load_npz(str(tmp_path))
    with pytest.raises(DataError, match="gone.npz"):
        load_npz(str(tmp_path / "gone.npz"))
    path = tmp_path / "cut.npz"
    np.savez(path, x_train=X, y_train=Y)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="cut.npz"):
        load_npz(str(path))
    np.savez(path, x_train=X, y_train=Y)
    flipped = bytearray(path.read_bytes())
    flipped[300] ^= 1  # inside the pixels: the archive's own checksum tells
    path.write_bytes(flipped)
    with pytest.raises(DataError, match="cut.npz"):
        load_npz(str(path))
    np.save(tmp_path / "single.npy", X)
    with pytest.raises(DataError, match="single array"):
        load_npz(str(tmp_path / "single.npy"))
