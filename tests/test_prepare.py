"""TFRecord shards made from another source hold the same examples, however often the work was interrupted."""

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import picture_folders
import pytest
import tensorflow as tf
from conftest import run_command
from picture_folders import contents, load_folder, make_images, read_all

from data import Splits
from data.datasets import ArraySource, DataError
from data.formats.tfrecord import index as tfrecord_index
from data.formats.tfrecord.source import load_tfrecord, load_tfrecord_test
from launch import prepare
from launch.shards import files
from launch.shards.run import convert

PREPARE = Path(prepare.__file__)
images, out = pytest.fixture(picture_folders.images), pytest.fixture(picture_folders.out)


def test_shards_equal_the_folder(images, tmp_path, out):
    (tmp_path / "both").mkdir()
    images = images.rename(tmp_path / "both" / "train")
    make_images(tmp_path / "both" / "val", each=2)
    original = load_folder(tmp_path / "both")
    convert(original, "image_folder", out, shards=4)
    made = Splits(*load_tfrecord(str(out)))
    for before, after in zip(original, made, strict=True):
        assert read_all(after) == read_all(before)
        assert after.labels.tolist() == before.labels.tolist() and after.classes == before.classes
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["classes"] == ["class0", "class1", "class2"] and manifest["version"] == 1
    train, validation = manifest["splits"]["train"], manifest["splits"]["validation"]
    assert [shard["examples"] for shard in train["shards"]] == [3, 4, 4, 4] and train["examples"] == 15
    assert len(validation["shards"]) == 2 and validation["examples"] == 6
    assert train["fingerprint"] == original.train.fingerprint()
    for shard in train["shards"] + validation["shards"]:
        content = (out / shard["name"]).read_bytes()
        assert shard["bytes"] == len(content) and shard["sha256"] == hashlib.sha256(content).hexdigest()


def test_the_index_comes_with_the_shards(tmp_path, out, monkeypatch):
    (tmp_path / "both").mkdir()
    for split in ("train", "val", "test"):
        make_images(tmp_path / "both" / split, each=2)
    line = ["--dataset", "image_folder", "--data-dir", str(tmp_path / "both"), "--out", str(out), "--shards", "2"]
    assert prepare.main(line) == 0
    monkeypatch.setattr(tfrecord_index, "build_index", None)
    train, validation = load_tfrecord(str(out))
    test = load_tfrecord_test(str(out), train.classes)
    assert (len(train), len(validation), len(test)) == (6, 6, 6)


def test_pixels_in_memory_come_back_exactly(out):
    pixels = np.random.default_rng(1).integers(0, 256, (7, 8, 9, 3), np.uint8)
    source = ArraySource("npz", ["a", "b"], pixels, np.array([0, 1, 1, 0, 1, 0, 0]))
    convert(Splits(source, None), "npz", out, shards=2)
    train, validation = load_tfrecord(str(out))
    assert validation is None and train.labels.tolist() == source.labels.tolist()
    assert (np.stack([tf.io.decode_png(image) for image in read_all(train)]) == pixels).all()


@pytest.mark.parametrize("failing", [0, 6, 14])
def test_an_interrupted_conversion_resumes_to_the_same_bytes(images, tmp_path, out, monkeypatch, failing):
    convert(load_folder(images), "image_folder", tmp_path / "whole", shards=4)
    made, real = [], files.example

    def example(*arguments):
        if len(made) == failing:
            raise KeyboardInterrupt
        made.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(files, "example", example)
    with pytest.raises(KeyboardInterrupt):
        convert(load_folder(images), "image_folder", out, shards=4)
    assert not (out / "manifest.json").exists() and not list(out.glob(".*"))
    with pytest.raises(DataError):
        load_tfrecord(str(out))
    finished = {file.name: file.stat().st_mtime_ns for file in out.glob("train-*")}
    assert len(finished) == {0: 0, 6: 1, 14: 3}[failing]
    monkeypatch.setattr(files, "example", real)
    convert(load_folder(images), "image_folder", out, shards=4)
    assert contents(out) == contents(tmp_path / "whole")
    assert finished == {name: (out / name).stat().st_mtime_ns for name in finished}


INTERRUPTED = (130, "interrupted; finished shards are kept")
ENDS = {
    "os._exit(9)": (9, ""),
    "signal.raise_signal(signal.SIGINT)": INTERRUPTED,
    # As TensorFlow does where it is hit within a scope.
    "try: signal.raise_signal(signal.SIGTERM)\n            finally: raise RuntimeError('lost')": INTERRUPTED,
}


@pytest.mark.parametrize("end", ENDS, ids=["kill", "Ctrl-C", "an interrupt that a library hides"])
def test_a_killed_process_resumes_to_the_same_bytes(images, tmp_path, out, end):
    convert(load_folder(images), "image_folder", tmp_path / "whole", shards=4)
    # The entry file itself, from another folder; the process ends while it writes its ninth record, in shard 2.
    killed = (
        "import os, runpy, signal, sys, tensorflow as tf\n"
        "class Writer(tf.io.TFRecordWriter):\n"
        "    written = 0\n"
        "    def write(self, record):\n"
        "        Writer.written += 1\n"
        "        if Writer.written == 9:\n"
        "            self.flush()\n"
        f"            {end}\n"
        "        super().write(record)\n"
        "tf.io.TFRecordWriter = Writer\n"
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    command = [sys.executable, "-c", killed, PREPARE, "--dataset", "image_folder", "--data-dir", images]
    done = run_command(*command, "--out", out, "--shards", "4")
    code, said = ENDS[end]
    assert done.returncode == code and said in done.stderr and "Traceback" not in done.stderr
    assert len(list(out.glob("train-*"))) == 2
    assert (out / ".train-00002-of-00004.tfrecord.tmp").exists() == (not said)
    convert(load_folder(images), "image_folder", out, shards=4)
    assert contents(out) == contents(tmp_path / "whole")


def test_a_damaged_shard_is_found_and_redone(images, out):
    convert(load_folder(images), "image_folder", out, shards=4)
    whole = contents(out)
    files.verify(out)
    shard = out / "train-00002-of-00004.tfrecord"
    content = bytearray(shard.read_bytes())
    content[50] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match="in train-00002-of-00004.tfrecord;"):
        files.verify(out)
    with pytest.raises(DataError, match=f"{shard} at byte 0 "):
        load_tfrecord(str(out), reindex=True)
    os.truncate(shard, 60)
    with pytest.raises(DataError, match=f"{shard} has 60 bytes, but"):
        load_tfrecord(str(out))
    shard.unlink()
    with pytest.raises(DataError, match="lacks 1 of 4"):
        load_tfrecord(str(out))
    convert(load_folder(images), "image_folder", out, shards=4)
    assert contents(out) == whole


def test_labels_are_held_to_the_manifest(images, out):
    convert(load_folder(images), "image_folder", out, shards=4)
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["classes"].pop()
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="train-00002-of-00004.tfrecord at byte .* has label 2, expected 0 to 1 "):
        load_tfrecord(str(out))
    del manifest["splits"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"manifest.json is no manifest .*\(splits: "):
        load_tfrecord(str(out))


def test_other_inputs_are_refused_and_leave_the_folder_alone(images, out):
    convert(load_folder(images), "image_folder", out, shards=4)
    before = contents(out)
    with pytest.raises(DataError, match="begun with other images"):
        convert(load_folder(images), "image_folder", out, shards=3)
    (images / "class0" / "0.jpg").unlink()
    with pytest.raises(DataError, match="begun with other images"):
        convert(load_folder(images), "image_folder", out, shards=4)
    assert contents(out) == before
    with pytest.raises(DataError, match="is not empty"):
        convert(load_folder(images), "image_folder", images, shards=4)
    with pytest.raises(DataError, match="--shards is 15, expected 1 to 14"):
        convert(load_folder(images), "image_folder", out, shards=15)
