"""Arrays as people have them, NumPy archives and HDF5, and what is said of each."""

import h5py
import numpy as np
import pytest
import tensorflow as tf
from layouts import opened

from data import DatasetConfig
from data.datasets import DataError
from data.formats.hdf5 import checks
from data.splits import open_test
from data.splits import test_place as place_of_test


def saved(folder, dataset, name, arrays):
    """The arrays in a file of that kind."""
    place = folder / f"{name}.{dataset}"
    if dataset == "npz":
        np.savez(place, **arrays)
    else:
        with h5py.File(place, "w") as file:
            for each, array in arrays.items():
                file[each] = array
    return place


def test_archives_with_names_of_medmnist_and_pixels_from_0_to_1(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)
    labels = np.array([[0], [1], [1], [0]])
    arrays = {f"{split}_images": images for split in ("train", "val", "test")}
    np.savez(tmp_path / "m.npz", **arrays, **{f"{split}_labels": labels for split in ("train", "val", "test")})
    train, validation = opened("npz", tmp_path / "m.npz")
    assert train.labels.tolist() == validation.labels.tolist() == [0, 1, 1, 0] and train.note is None
    for pixels, words in ((images / np.float32(255), "0 to 1: multiplied by 255"), (images / 1.0, "0 to 255: rounded")):
        np.savez(tmp_path / "x.npz", x_train=pixels, y_train=np.eye(2)[labels[:, 0]], x_val=pixels, y_val=labels)
        train, validation = opened("npz", tmp_path / "x.npz")
        np.testing.assert_array_equal(train.pixels, images)
        np.testing.assert_array_equal(validation.pixels, images)
        assert words in train.note and train.labels.tolist() == [0, 1, 1, 0]
    np.savez(tmp_path / "x.npz", x_train=images / 255.0, y_train=labels, x_val=images / 1.0, y_val=labels)
    with pytest.raises(DataError, match="x_val is not in the range 0 to 1"):
        opened("npz", tmp_path / "x.npz")


@pytest.mark.parametrize("dataset", ["npz", "hdf5"])
def test_arrays_that_are_not_used_are_said_also_a_test_split_without_labels(tmp_path, dataset):
    images, labels = np.zeros((2, 5, 5, 3), np.uint8), np.array([0, 1])
    pairs = {"x_train": images, "y_train": labels}
    held_out = {"x_val": images[:1], "y_val": labels[:1]}

    def arrays(more):
        return opened(dataset, saved(tmp_path, dataset, "-".join(more), pairs | more))

    train, validation = arrays(held_out | {"x_test": images})
    assert len(validation) == 1 and train.note == "x_test has no labels and is not used"
    train, validation = arrays({"x_test": images, "x_extra": images, "ids": labels})
    assert validation is None and train.note == "x_test has no labels and is not used; not used: ids, x_extra"
    assert arrays({"y_test": labels}).train.note == "y_test has no images and is not used"
    with pytest.raises(DataError, match="has no array y_val"):
        arrays({"x_val": images})


def test_archives_with_labels_of_other_types(tmp_path):
    images = np.zeros((4, 5, 5, 3), np.uint8)
    for labels in (np.eye(2, dtype=bool)[[0, 1, 1, 0]], np.array([0.0, 1.0, 1.0, 0.0], np.float32)):
        np.savez(tmp_path / "x.npz", x_train=images, y_train=labels)
        assert opened("npz", tmp_path / "x.npz").train.labels.tolist() == [0, 1, 1, 0]
    for labels in ([0.5, 1, 1, 0], [0, 1, np.nan, 0], ["a", "b", "b", "a"]):
        np.savez(tmp_path / "x.npz", x_train=images, y_train=labels)
        with pytest.raises(DataError, match="y_train is .* expected integers"):
            opened("npz", tmp_path / "x.npz")


def test_hdf5_files_are_read_where_they_are_asked_for(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("x_train", data=images, chunks=(2, 5, 4, 3), compression="gzip")
        file["y_train"], file["x_val"], file["y_val"] = [1, 2, 1, 2, 1, 2], images[:2, ..., 0], [[2], [1]]
    train, validation = opened("hdf5", tmp_path)
    assert train.classes == ("1", "2") and "labels are 1 to 2" in train.note
    assert (train.labels.tolist(), validation.labels.tolist()) == ([0, 1] * 3, [1, 0])
    batches = tf.data.Dataset.from_tensors(tf.constant([5, 0, 5], tf.int64)).map(train.read)
    np.testing.assert_array_equal(next(iter(batches)), images[[5, 0, 5]])
    np.testing.assert_array_equal(validation.read(tf.constant([1], tf.int64)), images[1:2, ..., :1].repeat(3, 3))
    before = train.fingerprint()
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["x_train"], file["y_train"] = np.where(np.arange(6)[:, None, None, None] == 3, 0, images), [1, 2] * 3
        file["x_test"], file["y_test"] = images[:2], [1, 2]
    changed = opened("hdf5", tmp_path / "t.h5").train
    assert changed.fingerprint() != before
    assert changed.note.endswith("class 1 is the first; x_test is validated on, as there is no other")
    (tmp_path / "cut.h5").write_bytes((tmp_path / "t.h5").read_bytes()[:500])
    with pytest.raises(DataError, match="cut.h5.*expected a whole HDF5 file"):
        opened("hdf5", tmp_path / "cut.h5")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hdf5_files_with_float_pixels_and_labels_and_sets_in_their_names(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(checks, "PART", 1)  # one image at a time
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 4, 3), dtype=np.uint8)
    for file, pixels in (("u.h5", images), ("f.h5", images / dtype(255))):
        with h5py.File(tmp_path / file, "w") as stored:
            stored["train_set_x"], stored["train_set_y"] = pixels, np.array([0, 1, 1, 0], dtype)
            stored["test_set_x"], stored["test_set_y"], stored["list_classes"] = pixels[:2], [[1.0], [0.0]], [b"a"]
    whole, (train, validation) = opened("hdf5", tmp_path / "u.h5"), opened("hdf5", tmp_path / "f.h5")
    assert train.labels.tolist() == [0, 1, 1, 0] and validation.labels.tolist() == [1, 0]
    assert [each.fingerprint() for each in (train, validation)] == [each.fingerprint() for each in whole]
    np.testing.assert_array_equal(train.read(tf.constant([3, 1], tf.int64)), images[[3, 1]])
    assert f"train_set_x is {np.dtype(dtype)} in the range 0 to 1: multiplied by 255" in train.note
    assert "not used: list_classes" in train.note and "range" not in whole.train.note
    for number, (x, val, words) in enumerate([
        (images / 255.0, images / 1.0, "x_val is not in the range 0 to 1,"),
        (images, images / 255.0, "x_val is float64: expected uint8"),
        (images / 127.5 - 1, images, "x_train is float64: expected uint8"),
        (np.where(images == images[2, 0, 0, 0], np.nan, images), images, "x_train is float64: expected uint8"),
    ]):  # fmt: skip
        with h5py.File(tmp_path / f"{number}.h5", "w") as stored:
            stored["x_train"], stored["y_train"], stored["x_val"], stored["y_val"] = x, [0, 1] * 2, val, [0, 1] * 2
        with pytest.raises(DataError, match=words):
            opened("hdf5", tmp_path / f"{number}.h5")


@pytest.mark.parametrize("dataset", ["npz", "hdf5"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_test_split_beside_that_of_validation_is_kept_for_evaluation(tmp_path, dataset, dtype):
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    images[4:] //= 128  # 0 and 1 of 255, as training says, not of 1
    stored = images.astype(dtype)
    test = {"x_test": stored[4:], "y_test": [3, 1]}
    parts = {"x_train": stored[:3], "y_train": [1, 2, 3], "x_val": stored[3:4], "y_val": [2]}
    place = saved(tmp_path, dataset, "all", parts | test)
    assert "x_test" not in (opened(dataset, place).train.note or "") and place_of_test(dataset, str(place))

    def tested(place, known, chosen=None):
        config = DatasetConfig(dataset, str(place), seed=0, validation_split=0, classes=chosen)
        return open_test(config, known)

    found = tested(place, ("1", "2", "3"))
    assert found.classes == ("1", "2", "3") and found.labels.tolist() == [2, 0]
    np.testing.assert_array_equal(found.read(tf.constant([0, 1], tf.int64)), images[4:])
    found = tested(place, ("3", "2"), chosen=("3", "2"))
    assert found.labels.tolist() == [0] and found.classes == ("3", "2")
    with pytest.raises(DataError, match=r"y_test\[0\] is 3, out of range"):
        tested(place, ("1", "2"))
    place = saved(tmp_path, dataset, "without", parts | {"x_test": stored[4:]})
    assert tested(place, ("1", "2", "3")) is None and place_of_test(dataset, str(place)) is None
    del parts["x_val"], parts["y_val"]
    assert place_of_test(dataset, str(saved(tmp_path, dataset, "validated", parts | test))) is None


@pytest.mark.parametrize("dataset", ["npz", "hdf5"])
def test_arrays_are_named_by_flags(tmp_path, dataset):
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 4, 3), dtype=np.uint8)
    photos, coarse = ("photos", "coarse") if dataset == "npz" else ("a/photos", "a/b/coarse")

    arrays = {photos: images, coarse: np.array([0, 1, 1, 0]), "x_train": images[::-1]}
    place = saved(tmp_path, dataset, "set", arrays | {"x_val": images})
    train, validation = opened(dataset, place, features=(photos, coarse))
    np.testing.assert_array_equal(train.read(tf.constant([0, 3], tf.int64)), images[[0, 3]])
    assert train.labels.tolist() == [0, 1, 1, 0] and validation is None and train.note == "not used: x_train, x_val"
    train, _ = opened(dataset, place, features=(None, coarse))
    np.testing.assert_array_equal(train.read(tf.constant([0], tf.int64)), images[[3]])
    for features, words in (((photos, "fine"), "no array fine .*--label-f"), ((photos, None), "no array y_train")):
        with pytest.raises(DataError, match=words):
            opened(dataset, place, features=features)
    with pytest.raises(DataError, match="has x_test and y_test beside"):  # of which labels may mean something else
        arrays |= {"x_test": images, "y_test": [0, 1, 1, 0]}
        opened(dataset, saved(tmp_path, dataset, "test", arrays), features=(photos, coarse))


def test_names_within_a_file_do_not_lead_out_of_it(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["in/x"] = np.zeros((2, 4, 4, 3), np.uint8)
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file["out"], file["y"] = h5py.ExternalLink("other.h5", "/in"), [0, 1]
    with pytest.raises(DataError, match="is a link to elsewhere"):
        opened("hdf5", tmp_path / "set.h5", features=("out/x", "y"))
