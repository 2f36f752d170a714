"""TFRecord shards: the index, the labels, and what broken files lead to."""

import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from data import DatasetConfig, load
from data.datasets import DataError
from data.formats.tfrecord import index as tfrecord_index
from data.formats.tfrecord import scan
from data.formats.tfrecord.source import load_tfrecord, load_tfrecord_test


def example(image: bytes, label: int | None, text: str | None = None) -> bytes:
    feature = {"image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))}
    if label is not None:
        feature["image/class/label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    if text:
        feature["image/class/text"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)


def write(file, records: list[bytes]) -> list[int]:
    """Writes one shard; the byte at which each record starts."""
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record)
    return np.cumsum([0] + [len(record) + 16 for record in records])[:-1].tolist()


def image(number: int) -> bytes:
    return b"\xff\xd8\xff" + bytes(40) + bytes(range(number, number + 20)) * (number + 1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three training shards of four records with labels 0, 1, 2, 3 and the bytes image(0) .. image(11)."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(3):
        records = [example(image(4 * shard + k), k, f"class {k}") for k in range(4)]
        write(folder / f"train-{shard:05d}-of-00003", records)
    return folder


def test_reads_any_order_inside_a_tf_data_graph(folder):
    train, validation = load_tfrecord(str(folder))
    assert validation is None and train.note is None
    assert train.labels.tolist() == [0, 1, 2, 3] * 3 and train.labels.dtype == np.int32
    assert train.classes == ("class 0", "class 1", "class 2", "class 3")
    indices = [[11, 0, 5], [3, 3, 8]]
    dataset = tf.data.Dataset.from_tensor_slices(np.array(indices, np.int64)).map(train.read, num_parallel_calls=2)
    assert dataset.element_spec == tf.TensorSpec([3], tf.string)
    assert [batch.tolist() for batch in dataset.as_numpy_iterator()] == [[image(i) for i in row] for row in indices]
    assert train.read(tf.zeros([0], tf.int64)).shape == [0]


def test_image_bytes_that_occur_twice_in_a_record(tmp_path):
    # The image's first bytes stand before the image itself too: as the class's name.
    for text in ("A" * 40, "A" * 60):
        write(tmp_path / "train-00000-of-00001", [example(b"A" * 50 + b"B", 0, text)])
        train, _ = load_tfrecord(str(tmp_path))
        assert train.read(tf.constant([0], tf.int64)).numpy().tolist() == [b"A" * 50 + b"B"]


def test_index_is_built_once_and_again_after_a_change(folder, monkeypatch):
    calls = []
    iterate = scan._iterate_records
    monkeypatch.setattr(scan, "_iterate_records", lambda file: calls.append(file) or iterate(file))
    first, _ = load_tfrecord(str(folder))
    second, _ = load_tfrecord(str(folder))
    assert len(calls) == 3 and second.fingerprint() == first.fingerprint()
    shard = folder / "train-00001-of-00003"
    write(shard, [example(image(k), 3 - k) for k in range(4)])
    changed, _ = load_tfrecord(str(folder))
    assert changed.labels.tolist() == [0, 1, 2, 3, 3, 2, 1, 0, 0, 1, 2, 3]
    assert changed.read(tf.constant([4], tf.int64)).numpy().tolist() == [image(0)]
    assert changed.fingerprint() != first.fingerprint()
    before = len(calls)
    (folder / "index.npz").write_bytes(b"damaged")
    assert load_tfrecord(str(folder))[0].fingerprint() == changed.fingerprint() and len(calls) == before + 3
    assert load_tfrecord(str(folder), reindex=True)[0].fingerprint() == changed.fingerprint()
    assert len(calls) == before + 6
    assert sorted(file.name for file in folder.iterdir() if not file.name.startswith("train")) == ["index.npz"]


def test_shards_that_were_touched_or_copied_and_are_the_same_keep_their_index(folder, tmp_path, monkeypatch):
    first, _ = load_tfrecord(str(folder))
    copied = shutil.copytree(folder, tmp_path / "copied", copy_function=shutil.copy)
    os.utime(folder / "train-00001-of-00003", ns=(1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(tfrecord_index, "build_index", None)
        assert load_tfrecord(str(folder))[0].fingerprint() == first.fingerprint()
        assert load_tfrecord(str(copied))[0].fingerprint() == first.fingerprint()
        # The new times are kept: the next start does not look into the shards any more.
        patch.setattr(tfrecord_index, "_is_unchanged", None)
        assert load_tfrecord(str(folder))[0].fingerprint() == first.fingerprint()
    # Of the same size, but with other labels in the last record.
    write(folder / "train-00001-of-00003", [example(image(4 + k), k % 3, f"class {k}") for k in range(4)])
    os.utime(folder / "train-00001-of-00003", ns=(1, 2))
    assert load_tfrecord(str(folder))[0].labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 0, 1, 2, 3]


def test_an_index_is_mapped_and_not_read_into_memory(folder):
    load_tfrecord(str(folder))
    train, _ = load_tfrecord(str(folder))
    assert not train._records.flags.owndata and not train._records.flags.writeable
    kept = train._records
    while not isinstance(kept, np.memmap):
        kept = kept.base
    assert kept.filename == str(folder / "index.npz")
    assert train.read(tf.constant([11, 0], tf.int64)).numpy().tolist() == [image(11), image(0)]


def test_index_goes_to_the_cache_where_the_folder_cannot_be_written(folder, tmp_path, monkeypatch):
    (folder / "index.npz").mkdir()  # no file can be put in its place
    load_tfrecord(str(folder))
    assert len(list((tmp_path / "home/.cache/lockstep").glob("index-*.npz"))) == 1
    monkeypatch.setattr(tfrecord_index, "build_index", None)
    assert len(load_tfrecord(str(folder))[0]) == 12


def test_progress_ends_at_the_total(folder):
    seen = []
    load_tfrecord(str(folder), progress=lambda what, done, total: seen.append((what, done, total)))
    total = sum(file.stat().st_size for file in folder.glob("train-*")) // 10**6
    assert len(seen) == 3 and seen[-1] == ("indexing MB of shards", total, total)


@pytest.mark.parametrize("position", [3, 9, 40, -2], ids=["length", "length's CRC", "payload", "payload's CRC"])
def test_a_corrupt_byte_is_named_with_file_and_record(folder, position):
    shard = folder / "train-00001-of-00003"
    starts = write(shard, [example(image(k), k) for k in range(4)])
    content = bytearray(shard.read_bytes())
    content[starts[2] + position if position > 0 else starts[3] + position] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=f"{shard} at byte {starts[2]} "):
        load_tfrecord(str(folder))


@pytest.mark.parametrize("kept", [0, 5, 12, 30], ids=["no byte", "in its header", "header only", "in its payload"])
def test_a_truncated_shard_is_named_with_its_last_record(folder, kept):
    shard = folder / "train-00002-of-00003"
    starts = write(shard, [example(image(k), k) for k in range(4)])
    where = starts[3] if kept else 0
    os.truncate(shard, where + kept)
    with pytest.raises(DataError, match=f"{shard} at byte {where} .*cut short"):
        load_tfrecord(str(folder))


def test_missing_shards_and_mixed_sets(folder):
    (folder / "train-00001-of-00003").rename(folder / "kept")
    with pytest.raises(DataError, match="lacks 1 of 3 train shards, the first train-00001-of-00003"):
        load_tfrecord(str(folder))
    (folder / "kept").rename(folder / "train-00001-of-00004")
    with pytest.raises(DataError, match="mixes train shards"):
        load_tfrecord(str(folder))
    with pytest.raises(DataError, match="no training shards"):
        load_tfrecord(str(folder.parent))
    with pytest.raises(DataError, match="is no folder"):
        load_tfrecord(str(folder / "nowhere"))


@pytest.mark.parametrize("name", ["train-00001-of-00003", "manifest.json"])
def test_what_cannot_be_opened_is_named(folder, name):
    """A shard whose link leads nowhere; a manifest that is a folder."""
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(folder if name == "manifest.json" else "nowhere")
    with pytest.raises(DataError, match=f"cannot read .*{name}.*restore it or make it readable"):
        load(DatasetConfig("tfrecord", str(folder), seed=0, validation_split=0))


def test_labels_from_1_are_shifted_in_both_splits_and_said_so(tmp_path):
    write(tmp_path / "train-00000-of-00001", [example(image(k), 1 + k, f"n{k}") for k in range(5)])
    write(tmp_path / "validation-00000-of-00001", [example(image(k), 5 - k) for k in range(2)])
    train, validation = load_tfrecord(str(tmp_path))
    assert train.labels.tolist() == [0, 1, 2, 3, 4] and validation.labels.tolist() == [4, 3]
    assert train.classes == validation.classes == ("n0", "n1", "n2", "n3", "n4")
    assert "one was subtracted" in train.note
    assert validation.read(tf.constant([1, 0], tf.int64)).numpy().tolist() == [image(1), image(0)]
    assert validation.where(0) == f"{tmp_path / 'validation-00000-of-00001'} at byte 0"
    # A test split may lack the last class: what it counts from, training says.
    write(tmp_path / "test-00000-of-00001", [example(image(k), label) for k, label in enumerate((2, 4, 3))])
    assert load_tfrecord_test(str(tmp_path), train.classes).labels.tolist() == [1, 3, 2]
    # A label 0 anywhere, here in the validation shards, means that they count from 0.
    write(tmp_path / "validation-00000-of-00001", [example(image(0), 0)])
    train, validation = load_tfrecord(str(tmp_path))
    assert train.labels.tolist() == [1, 2, 3, 4, 5] and validation.labels.tolist() == [0] and train.note is None
    assert load_tfrecord_test(str(tmp_path), train.classes).labels.tolist() == [2, 4, 3]


@pytest.mark.parametrize("label", [-1, 12, 2**40])
def test_a_label_out_of_range_is_named(folder, label):
    shard = folder / "train-00001-of-00003"
    starts = write(shard, [example(image(k), label if k == 3 else k) for k in range(4)])
    with pytest.raises(DataError, match=f"{shard} at byte {starts[3]} has label {label}, expected 0 to 11 "):
        load_tfrecord(str(folder))


@pytest.mark.parametrize("record", [b"\xff\xff no example", example(image(0), None), example(b"", 0)])
def test_a_record_without_image_or_label_is_named(folder, record):
    shard = folder / "train-00000-of-00003"
    starts = write(shard, [example(image(0), 0), record])
    with pytest.raises(DataError, match=f"{shard} at byte {starts[1]} .*hold"):
        load_tfrecord(str(folder))


def test_a_file_that_shrinks_while_in_use_is_an_error(folder):
    train, _ = load_tfrecord(str(folder))
    shard = folder / "train-00001-of-00003"
    os.truncate(shard, 100)
    batches = tf.data.Dataset.from_tensors(tf.constant([0, 7], tf.int64)).map(train.read)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"DataError: {train.where(7)} is cut short"):
        next(iter(batches))
