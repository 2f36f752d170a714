"""Data sets as people have them: folders, their splits, the files in them, and what is said of each."""

import io
import os

import numpy as np
import pytest
import tensorflow as tf
from conftest import run_jobs
from layouts import JPEG, PNG, folder, opened, paths, put, shard
from PIL import Image

from data.classes import read_classes
from data.datasets import DataError
from data.pictures.decode import NOW, decode_window
from data.pictures.headers import what_is_wrong
from launch.job.arguments import parse_arguments


def bitmap(mode):
    """A BMP of random colours: with a palette (P), grey (L), of 24 (RGB) or 32 bits (RGBA)."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(content, "BMP")
    return content.getvalue()


def layouts_of_before(root):
    """One data set of each kind that Lockstep 0.1 opened: name -> (dataset, place)."""
    put(root / "flat", "b/2.jpg", "b/10.jpg", "a/x.JPEG", "a/.hidden", content=b"\xff\xd8\xff\xda" + bytes(90))
    numbers = [f"{number}/1.png" for number in (0, 1, 2, 10, 11)]
    put(root / "numbers", *numbers, content=b"\x89PNG\r\n\x1a\n" + bytes(90))
    put(root / "split", "train/b/1.jpg", "train/b/2.jpg", "train/a/1.jpg", content=b"\xff\xd8\xff\xda" + bytes(70))
    put(root / "split", "validation/a/1.jpg", "validation/b/1.jpg", content=b"\xff\xd8\xff\xda" + bytes(80))
    put(root / "csv", "p/1.jpg", "p/2.jpg", "3.png", content=b"\xff\xd8\xff\xda" + bytes(60))
    (root / "csv" / "train.csv").write_text("label,path\nx 1,p/2.jpg\n0.5,p/1.jpg\nx 1,3.png\n")
    (root / "csv" / "val.csv").write_text("path,label\n3.png,0.5\np/1.jpg,x 1\n")
    (root / "csv" / "numbers.csv").write_text("path,label\np/1.jpg,02\np/2.jpg,0\n3.png,1\n")
    pixels = np.arange(6 * 4 * 4 * 3, dtype=np.uint32).astype(np.uint8).reshape(6, 4, 4, 3)
    grey = pixels[:2, ..., :1].repeat(3, 3)
    np.savez(root / "set.npz", x_train=pixels, y_train=[0, 1, 2, 0, 1, 2], x_test=grey, y_test=[1, 2])
    records = [{"image/encoded": bytes([number]) * 40, "image/class/label": number % 2} for number in range(4)]
    shard(root / "shards" / "train-00000-of-00001", records)
    shard(root / "shards" / "val-00000-of-00001.tfrecord", records[:2])
    folders = {name: ("image_folder", root / name) for name in ("flat", "numbers", "split")}
    tables = {"csv": ("csv", root / "csv"), "csv numbers": ("csv", root / "csv" / "numbers.csv")}
    return folders | tables | {"npz": ("npz", root / "set.npz"), "tfrecord": ("tfrecord", root / "shards")}


# Made by Lockstep before layouts were widened: first 16 digits of training's and validation's fingerprint, and classes.
FROZEN = {
    "flat": ("d9042059a91e4f54", None, ("a", "b")),
    "numbers": ("8383a1e60c7d276e", None, ("0", "1", "2", "10", "11")),
    "split": ("69e8e846a7fda32f", "ed7fe058be906c3c", ("a", "b")),
    "csv": ("cbf37210a2f3f7be", "a45503367534e104", ("0.5", "x 1")),
    "csv numbers": ("5d0053bdedc34c62", None, ("0", "1", "2")),
    "npz": ("ac3a9a4c329f9cf3", "cf725f9116c9f90e", ("0", "1", "2")),
    "tfrecord": ("cbc412f68081f083", "07ad1442cc586e47", ("0", "1")),
}


def test_what_was_read_before_is_read_the_same_so_that_old_runs_go_on(tmp_path):
    for name, (dataset, place) in layouts_of_before(tmp_path).items():
        train, validation = opened(dataset, place)
        held_out = validation and validation.fingerprint()[:16]
        assert (train.fingerprint()[:16], held_out, train.classes) == FROZEN[name], name
        notes = {"npz": "x_test is validated on, as there is no other", "csv": f"not used: numbers.csv in {place}"}
        assert train.note == notes.get(name)


@pytest.mark.parametrize(
    ("train", "val"), [("train", "valid"), ("training", "validation"), ("Train", "VAL"), ("TRAINING", "Dev")]
)
def test_splits_have_one_meaning_whatever_they_are_called(tmp_path, train, val):
    put(tmp_path / "f", f"{train}/a/1.jpg", f"{train}/b/1.jpg", f"{val}/b/2.jpg", f"{val}/a/2.jpg")
    put(tmp_path / "c", "1.jpg", "2.jpg")
    for split in (train, val):
        (tmp_path / "c" / f"{split}.csv").write_text("path,label\n1.jpg,a\n2.jpg,b\n")
    images, labels = np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1])
    np.savez(tmp_path / "s.npz", **{f"x_{s}": images for s in (train, val)}, **{f"y_{s}": labels for s in (train, val)})
    records = [{"image/encoded": JPEG, "image/class/label": label} for label in (0, 1)]
    for split in (train, val):
        shard(tmp_path / "t" / f"{split}-00000-of-00001", records)
    for dataset, place in (("image_folder", "f"), ("csv", "c"), ("npz", "s.npz"), ("tfrecord", "t")):
        found = opened(dataset, tmp_path / place)
        assert (len(found.train), len(found.validation)) == (2, 2), dataset


def test_two_candidates_for_a_split_are_refused(tmp_path):
    put(tmp_path / "f", "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "Valid/a/1.jpg")
    put(tmp_path / "t", "train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "Testing/a/1.jpg")
    put(tmp_path / "c", "1.jpg")
    for name in ("train", "dev", "val"):
        (tmp_path / "c" / f"{name}.csv").write_text("path,label\n1.jpg,a\n")
    images, labels = np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1])
    np.savez(tmp_path / "s.npz", x_train=images, train_images=images, y_train=labels)
    for dataset, place, words in (
        ("image_folder", "f", "both Valid and val"),
        ("image_folder", "t", "both Testing and test: .* for the test split"),
        ("csv", "c", "both dev.csv and val.csv"),
        ("npz", "s.npz", "both x_train and train_images"),
    ):
        with pytest.raises(DataError, match=words):
            opened(dataset, tmp_path / place)


def test_what_lies_beside_the_splits_and_is_not_used_is_said(tmp_path):
    put(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "unlabelled/1.jpg", "extra/1.jpg", "test/a/1.jpg")
    assert "not used: extra/, unlabelled/ beside" in folder(tmp_path).train.note


def test_pictures_below_a_class_belong_to_it_and_other_files_are_counted(tmp_path):
    put(tmp_path, "cat/in/2.jpg", "cat/in/deep/1.png", "cat/1.gif", "cat/zz.bmp", "dog/out/1.jpeg")
    put(tmp_path, "cat/readme.txt", "dog/out/labels.csv", "licence", "dog/.DS_Store", "dog/@eaDir/1.jpg", content=b"x")
    put(tmp_path, "cat/Thumbs.db", ".ipynb_checkpoints/1.jpg", "$RECYCLE.BIN/1.jpg", "lost+found/x", content=b"x")
    left = ["#snapshot", "@Recently-Snapshot", "@tmp", "@sharebin", "Network Trash Folder", "Temporary Items"]
    put(tmp_path, *(f"{name}/1.jpg" for name in [*left, "RECYCLER", "found.001", "FOUND.014"]), content=b"x")
    image = tf.io.encode_jpeg(np.zeros((4, 4, 3), np.uint8)).numpy()
    put(tmp_path, "cat/zz.bmp", "cat/1.gif", content=image)  # the content decides, not the ending
    train, _ = folder(tmp_path)
    names = [os.path.relpath(path, tmp_path) for path in paths(train)]
    assert names == ["cat/1.gif", "cat/in/2.jpg", "cat/in/deep/1.png", "cat/zz.bmp", "dog/out/1.jpeg"]
    assert train.labels.tolist() == [0, 0, 0, 0, 1]
    assert train.note == f"3 other files were passed over, such as {tmp_path / 'cat/readme.txt'}"


@pytest.mark.parametrize(
    ("names", "data_dir", "words"),
    [
        (["archive/cat/1.jpg", "archive/dog/1.jpg"], "", "point --data-dir at .*/archive[.]"),
        (["a/b/cat/1.jpg", "a/b/dog/1.jpg"], "", "point --data-dir at .*/a/b[.]"),
        (["set/train/cat/1.jpg", "set/train/dog/1.jpg"], "", "point --data-dir at .*/set[.]"),
        (["set/cat/1.jpg", "set/dog/1.jpg", "notes/x.txt"], "", "point --data-dir at .*/set[.]"),
        (["set/cat/1.jpg", "set/dog/1.jpg"], "set/cat", "point --data-dir at .*/set[.]"),
        (["set/train/cat/1.jpg", "set/train/dog/1.jpg"], "set/train/dog", "point --data-dir at .*/set[.]"),
        (["train/cat.0.jpg", "train/dog.0.jpg", "test1/1.jpg"], "", "train has 2 .*no class folders, beside test1/"),
        (["train/cat.0.jpg", "train/dog.0.jpg"], "", "train has 2 pictures .*no class folders:"),
        (["training_set/cat/1.jpg", "test_set/cat/1.jpg"], "", "sound like splits"),
        (["cat/1.jpg", "dog/1.jpg", "val/cat/1.jpg", "val/dog/1.jpg"], "", "val has class folders .*in a folder train"),
        (["set/1.jpg", "set/2.jpg"], "set", "pictures and no class folders.*make a folder for each class"),
        (["train/a/1.jpg", "val/a/1.jpg", "val/b/1.jpg", "val/c/1.jpg"], "", "class b, c has no folder in .*train"),
    ],
)  # fmt: skip
def test_folders_one_level_off_and_splits_that_would_be_classes_are_refused(tmp_path, names, data_dir, words):
    put(tmp_path, *names)
    with pytest.raises(DataError, match=words):
        folder(tmp_path / data_dir)


@pytest.mark.parametrize("name", ["test1", "test", "Test_set", "val", "valid", "dev2"])
def test_flat_pictures_beside_classes_in_a_folder_named_like_a_split_are_a_class_only_by_name(tmp_path, name):
    put(tmp_path, "cat/1.jpg", "dog/1.jpg", f"{name}/1.jpg")
    both = {"Test_set": "Test_set,cat,dog"}.get(name, f"cat,dog,{name}" if name > "dog" else f"cat,{name},dog")
    with pytest.raises(DataError) as caught:
        folder(tmp_path)
    assert f" has pictures in {name}/ beside cat, dog: named like a split" in str(caught.value)
    assert f"--classes cat,dog leaves out {name}, --classes {both} takes all." in str(caught.value)
    assert folder(tmp_path, classes=("cat", "dog")).train.classes == ("cat", "dog")
    assert folder(tmp_path, classes=("cat", "dog", name)).train.classes == ("cat", "dog", name)


def test_of_many_classes_those_that_are_meant_may_stand_in_a_file(tmp_path):
    put(tmp_path, *(f"{name}/1.jpg" for name in "abcde"), "testing/1.jpg", "val/1.jpg")
    with pytest.raises(DataError, match="in testing/, val/ beside a, .*, --classes FILE takes those that"):
        folder(tmp_path)
    put(tmp_path / "other", *(f"{name}/1.jpg" for name in ("car", "bus", "train")), "bus/test/1.jpg")
    assert folder(tmp_path / "other").train.classes == ("bus", "car", "train")  # no doubt about these


def test_a_link_to_a_folder_above_is_refused(tmp_path):
    put(tmp_path, "cat/1.jpg", "dog/1.jpg")
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat")
    with pytest.raises(DataError, match="again is a link to .*cat, a folder above it"):
        folder(tmp_path)


def test_validation_may_lack_classes_and_says_so(tmp_path):
    put(tmp_path / "f", "train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", "val/c/1.jpg", "val/b/.keep")
    put(tmp_path / "c", "1.jpg")
    (tmp_path / "c" / "train.csv").write_text("path,label\n1.jpg,a\n1.jpg,b\n1.jpg,c\n")
    (tmp_path / "c" / "val.csv").write_text("path,label\n1.jpg,c\n")
    for dataset, place in (("image_folder", "f"), ("csv", "c")):
        train, validation = opened(dataset, tmp_path / place)
        assert validation.classes == train.classes == ("a", "b", "c") and validation.labels.tolist() == [2]
        assert "has no picture of class a, b" in train.note


BAD = {
    "empty.jpg": (b"", "is empty"),
    "cut.jpg": (JPEG[:200], "is a JPEG that ends before its pixels"),
    "cut.png": (PNG[:30], "is a PNG that ends before"),
    "page.jpg": (b"\n<!DOCTYPE html><html>404", "is a web page"),
    "web.jpg": (b"RIFF\x10\0\0\0WEBPVP8 " + bytes(20), "is WEBP, which cannot be read: convert it"),
    "phone.heic": (b"\0\0\0\x18ftypheic" + bytes(20), "is HEIC or a film, which"),
    "scan.tif": (b"II*\0" + bytes(20), "is TIFF, which cannot be read: convert it"),
    "bits.bmp": (b"BM" + bytes(26) + b"\x10\0" + bytes(30), "is a BMP of 16 bits per pixel"),
    "index.bmp": (bitmap("P"), "is a BMP with a palette"),
    "text.png": (b"no such picture", "is text"),
    "lfs.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a pointer of Git LFS: fetch"),
    "zeros.jpg": (bytes(9000), "holds zeros alone"),
    "noise.jpg": (b"\x01\x02\x03\x00\xfe" * 900, "does not begin as JPEG"),
}


def test_all_files_that_cannot_be_pictures_are_named_at_once_in_training_and_validation(tmp_path):
    put(tmp_path, *(f"train/{name}/{number}.jpg" for name in "ab" for number in range(90)))
    put(tmp_path, "val/a/1.jpg", "val/b/1.jpg")
    for number, (name, (content, _)) in enumerate(BAD.items()):
        put(tmp_path, f"{'train' if number % 2 else 'val'}/{'ab'[number % 3 % 2]}/{name}", content=content)
    with pytest.raises(DataError) as caught:
        folder(tmp_path)
    lines = str(caught.value).split("\n")
    assert lines[0] == "13 of 195 files cannot be pictures; replace or remove them:" and len(lines) == 15
    assert lines[-1] == "  to train without: --skip-unreadable 13; to list all: launch/check_data.py --list bad.txt"
    for name, (_, words) in BAD.items():
        assert any(f"/{name}: {words}" in line for line in lines), name
    put(tmp_path, *(f"train/a/more{number}.jpg" for number in range(100)), content=b"")
    with pytest.raises(DataError) as caught:
        folder(tmp_path)
    lines = str(caught.value).split("\n")
    assert lines[0].startswith("113 of 295 files") and len(lines) == 23 and lines[-2].strip() == "... and 93 more"
    assert lines[-1].startswith("  to train without: --skip-unreadable 113;")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_bitmaps_that_are_let_through_are_decoded_right(mode):
    content = bitmap(mode)
    assert what_is_wrong(content) is None
    decoded = decode_window(tf.constant(content), tf.constant(1), lambda height, width: (0, 0, height, width), NOW)
    np.testing.assert_array_equal(decoded, np.array(Image.open(io.BytesIO(content)).convert("RGB")))


def test_files_of_a_table_are_looked_at_too(tmp_path):
    put(tmp_path, "1.jpg")
    put(tmp_path, "2.jpg", content=b"")
    (tmp_path / "train.csv").write_text("path,label\n1.jpg,a\n2.jpg,b\n")
    with pytest.raises(DataError, match=r"1 of 2 files cannot be pictures.*\n.*2.jpg: is empty"):
        opened("csv", tmp_path)


def test_chosen_classes_are_trained_on_in_their_order_alone(tmp_path):
    put(tmp_path / "f", *(f"{split}/{name}/1.jpg" for split in ("train", "val") for name in "abc"), "val/d/1.jpg")
    put(tmp_path / "c", "1.jpg")
    (tmp_path / "c" / "train.csv").write_text("path,label\n1.jpg,0\n1.jpg,5\n1.jpg,17\n")
    images = np.arange(3 * 48, dtype=np.uint8).reshape(3, 4, 4, 3)
    np.savez(tmp_path / "s.npz", x_train=images, y_train=[0, 5, 17])
    train, validation = folder(tmp_path / "f", classes=("c", "a"))
    assert train.classes == validation.classes == ("c", "a")
    assert train.labels.tolist() == validation.labels.tolist() == [1, 0]
    assert "--classes leaves out b" in train.note
    assert train.fingerprint() != folder(tmp_path / "f", classes=("a", "c")).train.fingerprint()
    assert opened("csv", tmp_path / "c", classes=("17", "0")).train.labels.tolist() == [1, 0]
    pairs = [opened("npz", tmp_path / "s.npz", classes=pair).train for pair in (("0", "5"), ("5", "17"), ("5", "0"))]
    assert len({pair.fingerprint() for pair in pairs}) == 3
    chosen = opened("npz", tmp_path / "s.npz", classes=("17", "0")).train
    np.testing.assert_array_equal(chosen.read(tf.constant([1, 0], tf.int64)), images[[2, 0]])
    assert chosen.labels.tolist() == [1, 0] and "leaves out 1 training images of class 5" in chosen.note
    with pytest.raises(DataError, match="names x, of which there is no training example"):
        folder(tmp_path / "f", classes=("a", "b", "x"))


def test_classes_are_named_in_the_flag_or_in_a_file(tmp_path):
    (tmp_path / "names.txt").write_text("\ufeffb c\n\na\n")
    assert read_classes(str(tmp_path / "names.txt")) == ("b c", "a") and read_classes("b, a") == ("b", "a")
    for given, words in (("a", "the only class"), ("a,b,a", "a 2 times"), (",", "no class")):
        with pytest.raises(DataError, match=words):
            read_classes(given)


def test_home_and_variables_are_put_into_paths(tmp_path, monkeypatch):
    put(tmp_path / "photos", "a/1.jpg", "b/1.jpg")
    (tmp_path / "photos" / "train.csv").write_text("path,label\n~/photos/a/1.jpg,a\n$WHERE/b/1.jpg,b\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WHERE", str(tmp_path / "photos"))
    assert len(folder("~/photos").train) == len(folder("$WHERE").train) == len(opened("csv", "~/photos").train) == 2
    words = ["--dataset", "csv", "--data-dir=~/x", "--run-dir", "${WHERE}/run"]
    config = parse_arguments(words, program="train.py", description="")
    assert (config.data_dir, config.run_dir) == (tmp_path / "x", tmp_path / "photos" / "run")


def test_the_real_command_line_says_how_data_was_understood(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    picture = tf.io.encode_jpeg(pixels).numpy()
    for name, names in (("train", 12), ("valid", 4)):
        put(tmp_path / "f" / name, *(f"{c}/in/{n}.jpg" for c in "abc" for n in range(names)), content=picture)
    put(tmp_path / "f", "train/a/readme.txt", content=b"x")
    put(tmp_path / "t", *(f"{number}.jpg" for number in range(20)), content=picture)
    rows = "".join(f"{number},{number},{number % 2 + 1}\n" for number in range(20))
    (tmp_path / "t" / "train.csv").write_text(f",id,target\n{rows}")
    put(tmp_path / "bad", *(f"{c}/{number}.jpg" for c in "ab" for number in range(90)), content=picture)
    put(tmp_path / "bad", *(f"{c}/bad{number}.jpg" for c in "ab" for number in range(10)), content=b"")
    usual = ["--model", "alexnet_cifar", "--image-size", "32", "--epochs", "1", "--batch-size", "8"]
    jobs = {
        "folder": ["--dataset", "image_folder", "--data-dir", tmp_path / "f", "--classes", "c,a", *usual],
        "table": ["--dataset", "csv", "--data-dir", tmp_path / "t" / "train.csv", *usual],
        "bad": ["--dataset", "image_folder", "--data-dir", tmp_path / "bad", *usual],
    }
    assert run_jobs(tmp_path / "jobs", jobs) == {"folder": 0, "table": 0, "bad": 2}
    output = (tmp_path / "jobs" / "output.txt").read_text()
    assert "classes: c 12 + 4, a 12 + 4" in output and "--classes leaves out b" in output
    assert "1 other file was passed over" in output
    assert "column id is the path, column target is the class" in output and "labels are 1 to 2" in output
    assert "20 of 200 files cannot be pictures" in output and output.count(": is empty") == 20
