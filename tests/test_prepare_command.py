"""prepare.py as it is called: what it takes, what it refuses, and what it says."""

import contextlib
import os
import resource

import numpy as np
import picture_folders
import pytest
import tensorflow as tf
from picture_folders import contents, load_folder, make_images, read_all
from PIL import Image

from data.datasets import DataError
from data.diagnose import scan
from data.formats.tfrecord.source import load_tfrecord, load_tfrecord_test
from launch import prepare
from launch.shards import run
from launch.shards.run import convert

images, out = pytest.fixture(picture_folders.images), pytest.fixture(picture_folders.out)


@pytest.mark.parametrize("damage", ["truncated", "no image"])
def test_an_unreadable_image_is_named_and_nothing_half_written(images, out, damage):
    splits = load_folder(images)
    broken = images / "class1" / "3.jpg"
    if damage == "truncated":
        os.truncate(broken, broken.stat().st_size // 2)
    else:
        broken.write_bytes(b"not a picture")
    with pytest.raises(DataError, match=f"{broken}: .*; mend or remove it"):
        convert(splits, "image_folder", out, shards=4)
    whole = ["train-00000-of-00004.tfrecord", "train-00001-of-00004.tfrecord"]
    assert sorted(contents(out)) == ["manifest.partial.json", *whole]


def test_command_line(images, out, capsys):
    arguments = ["--dataset", "image_folder", "--data-dir", str(images), "--shards", "2", "--out"]
    assert prepare.main([*arguments, str(out)]) == 0
    assert "2/2  train-00001-of-00002.tfrecord: 8 images written" in capsys.readouterr().out
    assert len(load_tfrecord(str(out))[0]) == 15
    picture = images / "class2" / "4.jpg"
    os.truncate(picture, picture.stat().st_size - 20)  # in its pixels, where only decoding sees it
    assert prepare.main([*arguments, str(out.with_name("other"))]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {picture}: ") and message.count("\n") == 1


def test_errors_end_with_exit_code_2(images, out, capsys):
    assert prepare.main(["--out", str(out), "--verify"]) == 2
    assert "has no manifest.json" in capsys.readouterr().err
    assert prepare.main(["--dataset", "image_folder", "--data-dir", str(out), "--out", str(out)]) == 2
    capsys.readouterr()
    wrong = {
        (): "--dataset is missing; say what to read",
        ("--dataset", "photographs"): "invalid choice: 'photographs'",
        ("--dataset", "tfrecord"): "invalid choice: 'tfrecord'",
        ("--dataset", "csv", "--shorter-side", "0"): "argument --shorter-side: '0' is no number of 1 or more",
        ("--dataset", "csv", "--skip-unreadable", "-1"): "argument --skip-unreadable: '-1' is no number of 0 or more",
        ("--shards", "4", "--verfiy"): "unrecognized arguments: --verfiy",
    }
    for words, sentence in wrong.items():
        with pytest.raises(SystemExit) as stopped:
            prepare.main(["--out", str(out), *words])
        (line,) = capsys.readouterr().err.splitlines()
        assert stopped.value.code == 2 and line.startswith("error: ") and sentence in line, line


def test_larger_pictures_become_smaller_and_upright_and_a_test_split_comes_along(tmp_path, out, capsys):
    """Through the command line: shorter sides, aspects, untouched bytes of small ones, classes, and test shards."""
    random, folder = np.random.default_rng(0), tmp_path / "photos"
    sizes = {"wide": (60, 90), "turned": (60, 90), "small": (20, 50), "high": (91, 40)}
    for split in ("train", "test"):
        for name in ("cat", "dog", "owl"):
            (folder / split / name).mkdir(parents=True)
            for kind, (height, width) in sizes.items():
                held = Image.Exif()
                held[0x0112] = 6 if kind == "turned" else 1
                pixels = random.integers(0, 256, (height, width, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{kind}.jpg", exif=held)
    line = ["--dataset", "image_folder", "--data-dir", str(folder), "--out", str(out), "--shards", "2"]
    assert prepare.main([*line, "--shorter-side", "30", "--classes", "dog,cat"]) == 0
    train, validation = load_tfrecord(str(out))
    test = load_tfrecord_test(str(out), ("dog", "cat"))
    assert validation is None and train.classes == test.classes == ("dog", "cat")
    for source, split in ((train, "train"), (test, "test")):
        cats = [image for image, label in zip(read_all(source), source.labels, strict=True) if label == 1]
        for kind, content in zip(sorted(sizes), cats, strict=True):
            height, width, _ = tf.io.decode_jpeg(content).shape
            assert (height, width) == {"wide": (30, 45), "turned": (45, 30), "small": (20, 50), "high": (68, 30)}[kind]
            whole = (folder / split / "cat" / f"{kind}.jpg").read_bytes()
            assert (content == whole) == (kind == "small")
    assert prepare.main([*line, "--classes", "dog,cat"]) == 2
    assert "other images, labels, --shards or --shorter-side" in capsys.readouterr().err


def test_all_pictures_that_cannot_be_decoded_are_named_at_once(images, out):
    broken = [images / "class0" / "0.jpg", images / "class2" / "3.jpg"]
    for file in broken:
        file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"2 pictures cannot be decoded; .*:\n  .*0.jpg: .*\n  .*3.jpg: "):
        convert(load_folder(images), "image_folder", out, shards=4)
    assert not [file for file in out.iterdir() if file.name.endswith(".tmp")]


def test_what_no_picture_is_to_blame_for_does_not_look_at_all_of_them(images, out, monkeypatch, capsys):
    """Nor is one looked for in all shards before the one in hand has shown one, and then that is said."""
    looked_at = []

    def no_memory(source, start, stop, shorter_side):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating a tensor")

    def watched(source, *more):
        looked_at.append(len(source))
        return scan(source, *more)

    monkeypatch.setattr(run, "scan", watched)
    with monkeypatch.context() as patch, pytest.raises(DataError, match=r"cannot be read \(OOM when .*give the same"):
        patch.setattr(run, "encoded_images", no_memory)
        convert(load_folder(images), "image_folder", out, shards=5)
    assert looked_at == [3] and "looking at" not in capsys.readouterr().out
    path = images / "class1" / "0.jpg"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match="0.jpg: "):
        convert(load_folder(images), "image_folder", out.with_name("other"), shards=5)
    assert looked_at == [3, 3, 15] and "looking at all 15 for others" in capsys.readouterr().out


def test_files_of_the_test_split_are_left_out_too_and_one_without_classes_is_no_error(tmp_path, out, capsys):
    for split in ("train", "test"):
        make_images(tmp_path / "both" / split, each=3)
        (tmp_path / "both" / split / "class1" / "empty.jpg").touch()
    line = ["--dataset", "image_folder", "--data-dir", str(tmp_path / "both"), "--shards", "2", "--out"]
    assert prepare.main([*line, str(out), "--skip-unreadable", "1"]) == 2
    error = capsys.readouterr().err
    assert "2 of 20 files cannot be pictures, more than the 1 of --skip-unreadable" in error and "/test/class1" in error
    assert not out.exists() and prepare.main([*line, str(out), "--skip-unreadable", "2"]) == 0
    assert "2 left out by --skip-unreadable:" in capsys.readouterr().out
    train, _ = load_tfrecord(str(out))
    assert (len(train), len(load_tfrecord_test(str(out), train.classes))) == (9, 9)
    for file in (tmp_path / "both" / "test").rglob("*.*"):
        file.rename(tmp_path / "both" / "test" / f"{file.parent.name}-{file.name}")
    assert prepare.main([*line, str(out.with_name("other")), "--skip-unreadable", "1"]) == 0
    said = capsys.readouterr().out
    assert "note: the test split is left out: " in said and "of which nobody knows the class" in said
    assert "9 train images" in said and not list(out.with_name("other").glob("test-*"))
    for split, header in (("train", "path,label"), ("test", "path")):
        rows = [f"both/train/class{n}/0.jpg" + f",{n}" * (split == "train") for n in (0, 1)]
        (tmp_path / f"{split}.csv").write_text("\n".join([header, *rows, ""]))
    line = ["--dataset", "csv", "--data-dir", str(tmp_path), "--shards", "1", "--out", str(out.with_name("third"))]
    assert prepare.main(line) == 0
    said = capsys.readouterr().out
    assert f"note: the test split is left out: {tmp_path}/test.csv has the header 'path'" in said
    assert "2 train images" in said


@contextlib.contextmanager
def largest_file(size: int):
    """No file of this process grows beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_named_and_no_picture_is_blamed(images, out, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (150, 150, 3), np.uint8)
    for file in images.rglob("*.jpg"):
        Image.fromarray(pixels).save(file)
    line = ["--dataset", "image_folder", "--data-dir", str(images), "--shards", "1", "--out"]
    assert prepare.main([*line, str(out.with_name("whole"))]) == 0
    shard = out / "train-00000-of-00001.tfrecord"
    whole = (out.with_name("whole") / shard.name).stat().st_size
    # The manifest, which is written first; a shard in its midst; its end, which waits in memory until it is closed.
    for size, file in ((20, out / "manifest.partial.json"), (4000, shard), (whole - 10, shard)):
        with largest_file(size):
            assert prepare.main([*line, str(out)]) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert error.startswith(f"error: {file} cannot be written (File too large); "), error
        assert [file.name for file in out.iterdir()] == ["manifest.partial.json"] * (size > 20)
    (out / "manifest.partial.json").rename(out / ".manifest.partial.json.tmp")  # as a kill leaves it
    assert prepare.main([*line, str(out)]) == 0 and len(load_tfrecord(str(out))[0]) == 15
