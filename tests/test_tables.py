"""Tables, archives and shards as people have them, and what is said of each."""

import os

import h5py
import numpy as np
import pytest
import tensorflow as tf
from layouts import JPEG, PNG, opened, paths, put, shard

from data import DatasetConfig
from data.datasets import DataError
from data.formats import hdf5
from data.formats.tables.source import labelled_table
from data.splits import open_test
from data.splits import test_place as place_of_test


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (",path,label\n0,1.jpg,cat\n1,2.jpg,dog\n", None),
        ("Unnamed: 0,PATH,Label\n0,1.jpg,cat\n1,2.jpg,dog\n", None),
        ("width,label,path\n4,cat,1.jpg\n4,dog,2.jpg\n", "column width not used"),
        ("width,label,path,split\n4,cat,1.jpg,train\n4,dog,2.jpg,Train\n", "column split is the split, column width"),
        ("filepaths,labels,data set\n1.jpg,cat,train\n2.jpg,dog,train\n", "filepaths is the path, column labels is"),
        ("img_name,emotion\n1.jpg,cat\n2.jpg,dog\n", "column img_name is the path, column emotion is the class"),
        ("fname,label\n1.jpg,cat\n2.jpg,dog\n", "column fname is the path"),
        ("image path,label\n1.jpg,cat\n2.jpg,dog\n", "column image path is the path"),
        ("filename,class\n1.jpg,cat\n2.jpg,dog\n", "column filename is the path, column class is the class"),
        ("id,label\n1,cat\n2,dog\n", "the ending .jpg was added"),
        ("path;label\n1.jpg;cat\n2.jpg;dog\n", None),
        ("Path\tLabel\n1.jpg\tcat\n2.jpg\tdog\n", None),
        ('path,label,notes\n1.jpg,cat,"two\nlines, one field"\n2.jpg,dog,\n', "column notes not used"),
        ("image,cat,dog,age\n1.jpg,1.0,0.0,7\n2.jpg,0.0,1.0,9\n", "one of cat, dog is 1: the class"),
        ("path,label\nthere.jpg,cat\nthere2.jpg,dog\n", "pictures were found in pictures/"),
        ("path,label\npictures\\there.jpg,cat\npictures\\there2.jpg,dog\n", "\\ in paths is read as /"),
    ],
)
def test_tables_of_pandas_kaggle_and_spreadsheets(tmp_path, text, note):
    put(tmp_path, "1.jpg", "2.jpg", "pictures/there.jpg", "pictures/there2.jpg")
    (tmp_path / "labels.csv").write_text(text)
    train, _ = opened("csv", tmp_path / "labels.csv")
    assert train.classes == ("cat", "dog") and train.labels.tolist() == [0, 1]
    assert all(map(os.path.isfile, paths(train)))
    assert note in train.note if note else train.note is None


def test_all_rows_without_a_file_or_label_are_named_at_once(tmp_path):
    put(tmp_path, "1.jpg")
    rows = [f"gone{number}.jpg,a\n" for number in range(30)]
    (tmp_path / "train.csv").write_text("path,label\n1.jpg,a\n1.jpg,\n" + "".join(rows))
    with pytest.raises(DataError) as caught:
        opened("csv", tmp_path)
    lines = str(caught.value).split("\n")
    assert "line 3: has an empty label" in lines[0] and "line 4: no file 'gone0.jpg'" in lines[1]
    assert len(lines) == 21 and lines[-1].strip() == "... and 11 more lines"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,cat,dog\n1.jpg,1,1\n", "line 2: has a 1 in 2 of the columns cat, dog"),
        ("path,label\n1.jpg,0\n1.jpg,5\n1.jpg,17\n", "--classes 0,5,17"),
        ("label,path,path\n0,1.jpg,1.jpg\n", "more than one column path"),
        (
            "path,cat,dog,valid\n1.jpg,1,0,1\n1.jpg,0,1,1\n1.jpg,1,0,0\n1.jpg,0,1,0\n",
            "in 2 .*\n.* that are none, as valid seems",
        ),
        ("path,cat,dog\n1.jpg,1,0\n1.jpg,0,0\n", "1 in 0 .*\n.* remove those that are none, and pictures of no class"),
        ("path,label,a,b\n1.jpg,x,train,test\n", "names splits in the columns a, b"),
        ("path,label,part\n1.jpg,x,test\n", "no row of training by its column part"),
        ("path,label\n1.jpg,a,b\n", "line 2 has 3 fields, its header 2"),
    ],
)
def test_tables_that_nobody_understands_say_what_would_be(tmp_path, text, words):
    put(tmp_path, "1.jpg")
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        opened("csv", tmp_path)


def test_a_column_may_name_the_split_of_each_row(tmp_path):
    put(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    header, rows = "path,label,data set\n", ["1.jpg,a,train\n", "2.jpg,b,Training\n", "3.jpg,b,valid\n"]
    test = ["gone.jpg,,test\n"]  # neither its file nor its label is asked for in training
    (tmp_path / "all.csv").write_text(header + "".join(rows + test))
    train, validation = opened("csv", tmp_path / "all.csv")
    assert [os.path.basename(path) for path in paths(train)] == ["1.jpg", "2.jpg"]
    assert [os.path.basename(path) for path in paths(validation)] == ["3.jpg"] and validation.labels.tolist() == [1]
    assert "column data set is the split" in train.note and "no picture of class a to validate on" in train.note
    assert place_of_test("csv", str(tmp_path / "all.csv")) == str(tmp_path / "all.csv")
    (tmp_path / "all.csv").write_text(header + "".join(rows) + "2.jpg,a,test\n")
    config = DatasetConfig("csv", str(tmp_path / "all.csv"), seed=0, validation_split=0)
    assert paths(open_test(config, ("a", "b"))) == [str(tmp_path / "2.jpg")]
    (tmp_path / "all.csv").write_text(header + "".join(rows))
    assert place_of_test("csv", str(tmp_path / "all.csv")) is None
    assert len(labelled_table(str(tmp_path / "all.csv"), ("a", "b"))) == 3
    (tmp_path / "two").mkdir()
    for name in ("train.csv", "val.csv"):
        (tmp_path / "two" / name).write_text(header + "".join(f"../{row}" for row in rows))
    with pytest.raises(DataError, match="train.csv names other splits than train in its column data set.*val.csv"):
        opened("csv", tmp_path / "two")


def test_labels_from_1_keep_their_names_in_tables_and_archives(tmp_path):
    put(tmp_path, "1.jpg")
    (tmp_path / "train.csv").write_text("path,label\n1.jpg,3\n1.jpg,1\n1.jpg,02\n")
    (tmp_path / "val.csv").write_text("path,label\n1.jpg,2\n")
    images = np.zeros((3, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "s.npz", x_train=images, y_train=[3, 1, 2], x_val=images[:1], y_val=[2])
    for dataset, place in (("csv", tmp_path), ("npz", tmp_path / "s.npz")):
        train, validation = opened(dataset, place)
        assert train.classes == ("1", "2", "3") and "labels are 1 to 3" in train.note
        assert (train.labels.tolist(), validation.labels.tolist()) == ([2, 0, 1], [1])


@pytest.mark.parametrize(
    ("text", "classes", "labels"),
    [
        ("path,label\n1.jpg,0.0\n2.jpg,1.0\n", ("0.0", "1.0"), [0, 1]),
        ("path,label\n1.jpg,10.0\n2.jpg,2.0\n", ("2.0", "10.0"), [1, 0]),
        ("path,label\n1.jpg,10.5\n2.jpg,2.5\n", ("10.5", "2.5"), [0, 1]),
        ("path,label\n1.jpg,[1 0]\n2.jpg,[0 1]\n", ("[0 1]", "[1 0]"), [1, 0]),
        ("path,label\n1.jpg,03\n2.jpg,3\n1.jpg,2\n2.jpg,1\n", ("1", "2", "3"), [2, 2, 1, 0]),
        ("path,label\n1.jpg,20_30\n2.jpg,10_20\n1.jpg,2030\n2.jpg,0\n", ("0", "10_20", "2030", "20_30"), [3, 1, 2, 0]),
        ("path,label\n1.jpg,+1\n2.jpg,1\n1.jpg,\u0661\n2.jpg,0\n", ("+1", "0", "1", "\u0661"), [0, 2, 3, 1]),
        ("image,MEL,NV\n1,0.0,1.0\n2,1.0,0.0\n", ("MEL", "NV"), [1, 0]),
    ],
)
def test_labels_of_all_kinds_have_one_class_each(tmp_path, text, classes, labels):
    put(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "train.csv").write_text(text)
    train, _ = opened("csv", tmp_path)
    assert (train.classes, train.labels.tolist()) == (classes, labels)


def test_a_class_may_be_called_none(tmp_path):
    put(tmp_path, "1.jpg")
    (tmp_path / "test.csv").write_text("path,label\n1.jpg,cat\n1.jpg,None\n1.jpg,dog\n")
    found = labelled_table(str(tmp_path / "test.csv"), ("None", "cat"), chosen=True)
    assert found.labels.tolist() == [1, 0]


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
        place = tmp_path / f"{'-'.join(more)}.{dataset}"
        if dataset == "npz":
            np.savez(place, **pairs, **more)
        else:
            with h5py.File(place, "w") as file:
                for name, array in (pairs | more).items():
                    file[name] = array
        return opened(dataset, place)

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
    assert changed.fingerprint() != before and "x_test of " in changed.note
    assert changed.note.endswith("is validated on, as there is no other")
    (tmp_path / "cut.h5").write_bytes((tmp_path / "t.h5").read_bytes()[:500])
    with pytest.raises(DataError, match="cut.h5.*expected a whole HDF5 file"):
        opened("hdf5", tmp_path / "cut.h5")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hdf5_files_with_float_pixels_and_labels_and_sets_in_their_names(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(hdf5, "PART", 1)  # one image at a time
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
def test_arrays_are_named_by_flags(tmp_path, dataset):
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 4, 3), dtype=np.uint8)
    photos, coarse = ("photos", "coarse") if dataset == "npz" else ("a/photos", "a/b/coarse")

    def saved(name, **more):
        place = tmp_path / f"{name}.{dataset}"
        arrays = {photos: images, coarse: np.array([0, 1, 1, 0]), "x_train": images[::-1]} | more
        if dataset == "npz":
            np.savez(place, **arrays)
        else:
            with h5py.File(place, "w") as file:
                for name, array in arrays.items():
                    file[name] = array
        return place

    train, validation = opened(dataset, saved("set", x_val=images), features=(photos, coarse))
    np.testing.assert_array_equal(train.read(tf.constant([0, 3], tf.int64)), images[[0, 3]])
    assert train.labels.tolist() == [0, 1, 1, 0] and validation is None and train.note == "not used: x_train, x_val"
    train, _ = opened(dataset, tmp_path / f"set.{dataset}", features=(None, coarse))
    np.testing.assert_array_equal(train.read(tf.constant([0], tf.int64)), images[[3]])
    for features, words in (((photos, "fine"), "no array fine .*--label-f"), ((photos, None), "no array y_train")):
        with pytest.raises(DataError, match=words):
            opened(dataset, tmp_path / f"set.{dataset}", features=features)
    with pytest.raises(DataError, match="has x_test and y_test beside"):  # of which labels may mean something else
        opened(dataset, saved("test", x_test=images, y_test=[0, 1, 1, 0]), features=(photos, coarse))


def test_names_within_a_file_do_not_lead_out_of_it(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["in/x"] = np.zeros((2, 4, 4, 3), np.uint8)
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file["out"], file["y"] = h5py.ExternalLink("other.h5", "/in"), [0, 1]
    with pytest.raises(DataError, match="is a link to elsewhere"):
        opened("hdf5", tmp_path / "set.h5", features=("out/x", "y"))


def test_tables_and_shards_beside_those_of_the_splits_are_said(tmp_path):
    put(tmp_path / "c", "1.jpg")
    for name in ("train", "val", "test", "testing", "extra"):
        (tmp_path / "c" / f"{name}.csv").write_text("path,label\n1.jpg,a\n1.jpg,b\n")
    assert opened("csv", tmp_path / "c").train.note == f"not used: extra.csv, testing.csv in {tmp_path / 'c'}"
    ours = [{"image/encoded": JPEG, "image/class/label": label} for label in (0, 1)]
    for name in ("train-00000-of-00001", "test-00000-of-00001", "extra.tfrec"):
        shard(tmp_path / "t" / name, ours)
    assert opened("tfrecord", tmp_path / "t").train.note == f"not used: extra.tfrec in {tmp_path / 't'}"


def test_shards_in_folders_of_splits_and_two_sets_of_one_split_are_refused(tmp_path):
    ours = [{"image/encoded": JPEG, "image/class/label": label} for label in (0, 1)]
    for name in ("train/00.tfrec", "train/01.tfrec", "val/00.tfrec"):
        shard(tmp_path / "below" / name, ours)
    with pytest.raises(DataError, match="train has 2 files like them.*`ln -s train/00.tfrec train-0+-of-00002`"):
        opened("tfrecord", tmp_path / "below")
    for number in (0, 1):  # as the message says
        (tmp_path / "below" / f"train-0000{number}-of-00002").symlink_to(f"train/0{number}.tfrec")
    assert len(opened("tfrecord", tmp_path / "below").train) == 4
    for one, other in (
        ("train-00000-of-00002", "training-00001-of-00002"),
        ("cats-train.tfrecord-00000-of-00002", "dogs-train.tfrecord-00001-of-00002"),
    ):
        place = tmp_path / one
        shard(place / one, ours)
        shard(place / other, ours)
        with pytest.raises(DataError, match=f"both .*{one}.* and .*{other}.*: expected one set of train"):
            opened("tfrecord", place)


def test_shards_of_other_tools(tmp_path):
    ours = [{"image/encoded": JPEG, "image/class/label": number % 2} for number in range(4)]
    theirs = [{"image": PNG, "class": number % 2} for number in range(4)]
    shard(tmp_path / "tfds" / "cats-train.tfrecord-00000-of-00001", ours)
    shard(tmp_path / "one" / "Train.tfrecord", ours)
    shard(tmp_path / "named" / "train-00000-of-00001", theirs)
    shard(tmp_path / "kaggle" / "00-192x192-798.tfrec", theirs)
    for kind in ("GZIP", "ZLIB"):
        shard(tmp_path / kind / "train-00000-of-00001", ours, kind)
        with pytest.raises(DataError, match=f"compressed with {kind.lower()}.*decompress the shards"):
            opened("tfrecord", tmp_path / kind)
    assert len(opened("tfrecord", tmp_path / "tfds").train) == len(opened("tfrecord", tmp_path / "one").train) == 4
    with pytest.raises(DataError, match=r"and one .* but class \(int64\), image \(bytes\); name .*--image-feature"):
        opened("tfrecord", tmp_path / "named")
    train = opened("tfrecord", tmp_path / "named", features=("image", "class")).train
    assert train.labels.tolist() == [0, 1, 0, 1]
    assert train.read(tf.constant([3], tf.int64)).numpy().tolist() == [PNG]
    with pytest.raises(DataError, match="but 00-192x192-798.tfrec; .*rename these"):
        opened("tfrecord", tmp_path / "kaggle")


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"image/class/text": b"cat"}, "image/class/text .bytes"),
        ({"image/class/label": b"1"}, "image/class/label .bytes"),
        ({"image/object/class/label": 1}, "image/object/class/label"),
    ],
)
def test_shards_without_a_label_name_what_they_hold(tmp_path, features, words):
    shard(tmp_path / "train-00000-of-00001", [{"image/encoded": JPEG} | features] * 3)
    with pytest.raises(DataError, match=f"does not hold one image/encoded .* but .*{words}.*--label-feature"):
        opened("tfrecord", tmp_path)


def test_test_shards_are_left_alone_and_labels_from_1_are_shifted(tmp_path):
    ours = [{"image/encoded": PNG, "image/class/label": 1 + number % 2} for number in range(4)]
    for split in ("train", "test"):
        shard(tmp_path / f"{split}-00000-of-00001", ours)
    train, validation = opened("tfrecord", tmp_path)
    assert train.labels.tolist() == [0, 1, 0, 1] and validation is None and "labels start at 1" in train.note
