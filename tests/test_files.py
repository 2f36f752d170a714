"""Image folders and CSV tables of real JPEG and PNG files."""

import numpy as np
import pytest
import tensorflow as tf

from data.datasets import DataError
from data.formats.image_folder import load_image_folder
from data.formats.tables.source import load_csv


def write_image(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    encode = tf.io.encode_png if path.suffix.lower() == ".png" else tf.io.encode_jpeg
    path.write_bytes(encode(np.full((6, 8, 3), value, np.uint8)).numpy())


def write_images(root, *names):
    for value, name in enumerate(names):
        write_image(root / name, value)


def test_class_folders_are_sorted_and_read_back(tmp_path):
    write_images(tmp_path, "dog/b.jpg", "dog/a.JPEG", "cat/c.png", "cat/.hidden", "cat/Thumbs.db")
    (tmp_path / ".DS_Store").write_bytes(b"litter")
    train, validation = load_image_folder(str(tmp_path))
    assert validation is None and train.classes == ("cat", "dog") and train.labels.tolist() == [0, 1, 1]
    assert [train.where(i) for i in range(3)] == [str(tmp_path / n) for n in ("cat/c.png", "dog/a.JPEG", "dog/b.jpg")]
    encoded = train.read(tf.constant([2, 0], tf.int64))
    assert [int(tf.io.decode_image(image)[0, 0, 0]) for image in encoded] == [0, 2]


@pytest.mark.parametrize("name", ["val", "validation"])
def test_own_validation_split(tmp_path, name):
    write_images(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "train/b/2.jpg", f"{name}/a/1.jpg", f"{name}/b/1.jpg")
    train, validation = load_image_folder(str(tmp_path))
    assert (train.labels.tolist(), validation.labels.tolist()) == ([0, 1, 1], [0, 1])
    assert validation.where(1) == str(tmp_path / name / "b/1.jpg")


def test_train_alone_and_a_class_called_train(tmp_path):
    write_images(tmp_path / "split", "train/a/1.jpg", "train/b/1.jpg")
    assert load_image_folder(str(tmp_path / "split"))[0].classes == ("a", "b")
    write_images(tmp_path / "classes", "train/1.jpg", "bus/1.jpg")
    assert load_image_folder(str(tmp_path / "classes"))[0].classes == ("bus", "train")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a/1.jpg", "stray.jpg"], "stray.jpg lies next to the class folders"),
        (["a/1.jpg", "empty/.hidden"], "class folder .*empty is empty"),
        ([".hidden"], "has no subfolders"),
        (["train/a/1.jpg", "val/a/1.jpg", "val/b/1.jpg"], "class b has no folder in .*train:"),
        (["train/a/1.jpg", "val/a/1.jpg", "validation/a/1.jpg"], "both val and validation"),
    ],
)
def test_bad_folders(tmp_path, names, words):
    write_images(tmp_path, *names)
    with pytest.raises(DataError, match=words):
        load_image_folder(str(tmp_path))


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match="nowhere.*No such file"):
        load_image_folder(str(tmp_path / "nowhere"))


def test_csv_of_names_with_its_own_validation(tmp_path):
    write_images(tmp_path, "images/a.png", "b,c.jpg", "elsewhere.jpg")
    far = tmp_path / "elsewhere.jpg"
    # A byte order mark, swapped columns, a quoted comma, an absolute path and a blank line are all usual.
    (tmp_path / "train.csv").write_text(f'\ufefflabel,path\ndog,images/a.png\ncat,"b,c.jpg"\n\ndog,{far}\n')
    (tmp_path / "val.csv").write_text("path,label\nimages/a.png,dog\n")
    train, validation = load_csv(str(tmp_path))
    assert train.classes == validation.classes == ("cat", "dog")
    assert (train.labels.tolist(), validation.labels.tolist()) == ([1, 0, 1], [1])
    assert train.where(2) == str(far)
    colours = [int(tf.io.decode_image(image)[0, 0, 0]) for image in train.read(tf.constant([0, 1, 2], tf.int64))]
    assert colours == [0, 1, 2]
    alone, none = load_csv(str(tmp_path / "train.csv"))
    assert none is None and alone.fingerprint() == train.fingerprint()


def test_csv_of_integers_orders_classes_as_numbers(tmp_path):
    write_images(tmp_path, "a.jpg")
    (tmp_path / "train.csv").write_text("path,label\n" + "".join(f"a.jpg,{label:02}\n" for label in range(11)))
    (tmp_path / "val.csv").write_text("path,label\na.jpg,10\n")
    train, validation = load_csv(str(tmp_path))
    assert train.classes == tuple(str(number) for number in range(11))
    assert train.labels.tolist() == list(range(11)) and validation.labels.tolist() == [10]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\na.jpg,0\ngone.jpg,1\n", r"line 3: no file 'gone.jpg'"),
        ("path,label\na.jpg,0\na.jpg,-1\n", "line 3: label -1 is negative"),
        ("path,label\na.jpg,0\na.jpg,7\na.jpg,1\n", "line 3: label 7 is out of range, as no row has label 2"),
        ("path,label\na.jpg,2\na.jpg,3\n", "line 3: label 3 is out of range, as no row has label 0.*--classes 2,3"),
        ("path,label\na.jpg,\n", "line 2: has an empty label"),
        ("path,label\na.jpg\n", "line 2 has 1 fields"),
        ("path,label\ntrain.csv,1\n", "line 2: 'train.csv' is not the name of a picture"),
        ("size,weight\na.jpg,1\n", "header 'size,weight'"),
        ("", "header ''"),
        ("path,label\n", "no rows"),
        ("path,label\n\udcff,1\n", "UTF-8"),
    ],
)
def test_bad_tables(tmp_path, text, words):
    write_images(tmp_path, "a.jpg")
    (tmp_path / "train.csv").write_text(text, errors="surrogateescape")
    with pytest.raises(DataError, match=rf"train\.csv.*{words}"):
        load_csv(str(tmp_path))


@pytest.mark.parametrize(("train_labels", "label"), [("01", "2"), ("01", "-1"), ("01", "--1"), ("ab", "c")])
def test_csv_validation_label_that_training_does_not_know(tmp_path, train_labels, label):
    write_images(tmp_path, "a.jpg")
    (tmp_path / "train.csv").write_text("path,label\n" + "".join(f"a.jpg,{name}\n" for name in train_labels))
    (tmp_path / "val.csv").write_text(f"path,label\na.jpg,{label}\n")
    with pytest.raises(DataError, match=rf"val\.csv line 2: label {label} is out of range"):
        load_csv(str(tmp_path))


def test_missing_table(tmp_path):
    with pytest.raises(DataError, match=r"train\.csv.*No such file"):
        load_csv(str(tmp_path))
