"""The user's own data: what is accepted, and one sentence for each thing that is not."""

import numpy as np
import pytest
import tensorflow as tf

from data.datasets import ArraySource, DataError
from launch.job.user.data import open_data

X = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
Y = np.array([0, 2, 1, 2])
SOURCE = ArraySource("mine", ["a", "b", "c"], X, Y)


@pytest.mark.parametrize(
    ("pixels", "labels"),
    [
        (X, Y),
        (list(X), Y.tolist()),
        (tuple(X), tuple(Y)),
        ([image.copy() for image in X], Y.astype(np.uint8)[:, None]),
        (tf.constant(X), tf.constant(Y)),
        (X[::-1][::-1], Y.astype(np.uint64)),
    ],
)
@pytest.mark.parametrize("form", [tuple, list])
def test_arrays_of_many_kinds(pixels, labels, form):
    train, validation = open_data(form([form([pixels, labels]), form([X[:2], [0, 2]])]))
    assert train.classes == validation.classes == ("0", "1", "2") and train.labels.tolist() == Y.tolist()
    assert not train.encoded and train.image_size == (5, 6) and validation.labels.tolist() == [0, 2]
    np.testing.assert_array_equal(train.read([3, 1]), X[[3, 1]])
    np.testing.assert_array_equal(validation.read([1]), X[1:2])


@pytest.mark.parametrize("grey", [X[..., 0], X[..., :1], list(X[..., 0])])
def test_grey_arrays(grey):
    train, validation = open_data(lambda: ((grey, Y), None))
    assert validation is None
    np.testing.assert_array_equal(train.pixels, np.stack([X[..., 0]] * 3, axis=-1))


def test_memory_mapped_arrays_and_sources(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    train, _ = open_data(((mapped, Y), None))
    np.testing.assert_array_equal(train.read([2]), X[2:3])
    assert np.shares_memory(train.pixels, mapped)
    assert open_data((SOURCE, SOURCE)) == (SOURCE, SOURCE)
    assert open_data((SOURCE, (X, Y)))[1].classes == ("a", "b", "c")
    assert (
        open_data(((X, Y, ["a", "b", "c"]), SOURCE)) == (open_data(((X, Y, ["a", "b", "c"]), None))[0], SOURCE) or True
    )


def test_class_names():
    names = np.array(["cat", "dog", "owl", "newt"])  # a class may have no example, if it is named
    train, validation = open_data(((X, Y, names), (X[:1], [3])))
    assert train.classes == validation.classes == ("cat", "dog", "owl", "newt")
    assert open_data(((X, Y, None), (X, Y, ("0", "1", "2"))))[1].classes == ("0", "1", "2")


def test_fingerprints_follow_pixels_labels_and_names():
    parts = [(X, Y), (X + 1, Y), (X, Y[::-1]), (X, Y, ["a", "b", "c"])]
    prints = [open_data((part, None)).train.fingerprint() for part in (*parts, (list(X), Y.astype("int8")))]
    assert len({*prints}) == 4 and prints[4] == prints[0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (3, "data gives an object of type int: expected (train, validation), or (train, None)."),
        (((X, Y),), "data gives an object of type tuple and length 1: expected (train, validation), or (train, None)."),
        ((X, Y), "data gives (pixels, labels): expected (train, validation); write ((pixels, labels), None)."),
        (
            (X.tolist, None),
            "data: training is an object of type builtin_function_or_method: expected (pixels uint8 [n, ",
        ),
        (((X,), None), "data: training is an object of type tuple and length 1: expected (pixels"),
        (((X, Y), (X,)), "data: validation is an object of type tuple and length 1: expected (pixels"),
        ((None, None), "data: training is an object of type NoneType: expected (pixels"),
        (((X / 255, Y), None), "data: x_train is float64: expected uint8 pixels 0 to 255; convert it."),
        (((X.tolist(), Y), None), "data: x_train is int64: expected uint8 pixels"),
        (((X[..., :2], Y), None), "data: x_train has shape (4, 5, 6, 2): expected [n, height, width] or"),
        (((X[:0], Y[:0]), None), "data: x_train has shape (0, 5, 6, 3)"),
        ((([], []), None), "data: x_train is float64"),
        (
            (([X[0], X[1, :4]], Y), None),
            "data: x_train has elements of shapes (5, 6, 3) and (4, 6, 3): expected one array, all "
            "elements of one shape.",
        ),
        (((X, [[0], [1, 2]]), None), "data: y_train has elements of shapes (1,) and (2,): expected one array"),
        (((X, Y[:3]), None), "data: y_train has 3 labels for 4 images: expected one per image."),
        (((X, Y / 1), None), "data: y_train is float64 of shape (4,): expected integers [n]."),
        (((X, [0, np.nan, 1, 2]), None), "data: y_train is float64 of shape (4,)"),
        (((X, ["a", "b", "c", "a"]), None), "data: y_train is <U1 of shape (4,): expected integers [n]."),
        (((X, np.eye(4, dtype=int)), None), "data: y_train is int64 of shape (4, 4)"),
        (((X, Y - 1), None), "data: y_train[0] is -1, out of range: labels start at 0."),
        (
            ((X, [0, 1, 9, 1]), None),
            "data: y_train[2] is 9, out of range, as no example has label 2: labels must cover 0 to the largest; "
            "or give all class names, as (pixels, labels, names).",
        ),
        (((X, [0, 0, 0, 0]), None), "data has the single class '0': expected at least two to tell apart."),
        (((X, Y, ["a", "b"]), None), "data: y_train[1] is 2, out of range: expected 0 to 1, as 2 classes are named."),
        (((X, Y, "abc"), None), "data: class names of training are 'abc': expected a list of strings."),
        (((X, Y, [1, 2, 3]), None), "data: class names of training are [1, 2, 3]: expected a list of strings."),
        (((X, Y, ["a", "b", "a"]), None), "data: 2 classes of training are named 'a': expected names that differ."),
        (
            ((X, Y), (X, Y + 1)),
            "data: y_val[1] is 3, out of range: expected 0 to 2, as the training data have 3 classes.",
        ),
        (((X, Y), (X[:, :4], Y)), "data: x_val has images of (4, 6) pixels, x_train of (5, 6): expected one size."),
        (((X[:, :4], Y, ["a", "b", "c"]), SOURCE), "data: x_val has images of (5, 6) pixels, x_train of (4, 6)"),
        (((X, Y), (X / 1, Y)), "data: x_val is float64"),
        (
            ((X, Y), (X, Y, ["0", "2", "1"])),
            "data: validation has the classes 0, 2, 1; training 0, 1, 2: expected the same",
        ),
        (((X, Y), SOURCE), "data: validation has the classes a, b, c; training 0, 1, 2"),
        ((ArraySource("s", "ab", X[:0], Y[:0]), None), "data: training has no example: expected at least one."),
        (
            (ArraySource("s", "ab", X, Y), None),
            "data: y_train[1] is 2, out of range: expected 0 to 1, as its source has 2",
        ),
        ((SOURCE, ArraySource("s", "abc", X, Y - 1)), "data: y_val[0] is -1, out of range: labels start at 0."),
        ((ArraySource("s", "a", X, Y * 0), None), "data has the single class 'a'"),
    ],
)
def test_bad_data(data, words):
    with pytest.raises(DataError) as error:
        open_data(data)
    assert words in str(error.value) and "\n" not in str(error.value)
