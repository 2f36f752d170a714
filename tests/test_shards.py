"""Shards of other tools and of other names, and what is said of each."""

import pytest
import tensorflow as tf
from layouts import JPEG, PNG, opened, put, shard

from data.datasets import DataError


def test_tables_and_shards_beside_those_of_the_splits_are_said(tmp_path):
    put(tmp_path / "c", "1.jpg")
    for name in ("train", "val", "test", "extra", "more"):
        (tmp_path / "c" / f"{name}.csv").write_text("path,label\n1.jpg,a\n1.jpg,b\n")
    assert opened("csv", tmp_path / "c").train.note == f"not used: extra.csv, more.csv in {tmp_path / 'c'}"
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
