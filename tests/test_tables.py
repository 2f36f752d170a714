"""Tables as people have them, and what is said of each."""

import os

import numpy as np
import pytest
from layouts import opened, paths, put

from data import DatasetConfig
from data.datasets import DataError
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
    # By its first row alone it would have two.
    notes = ["1.jpg,a,train,test\n", "2.jpg,b,test,good\n"]
    (tmp_path / "all.csv").write_text("path,label,data set,notes\n" + "".join(notes))
    assert place_of_test("csv", str(tmp_path / "all.csv")) == str(tmp_path / "all.csv")
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
