"""Sources by index, and `load`: names, arguments and the held-out part."""

import numpy as np
import pytest
import tensorflow as tf

from data import KINDS, DatasetConfig, load
from data.classes import Chosen
from data.datasets import ArraySource, DataError, Subset
from data.files.source import FileSource
from data.splits import Relabelled


def array_source(labels, classes=("a", "b", "c")):
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 4, 5, 3), dtype=np.uint8)
    return ArraySource("tiny", classes, pixels, np.array(labels))


def file_source(folder, contents, labels):
    for index, content in enumerate(contents):
        (folder / f"{index}.jpg").write_bytes(content)
    return FileSource("tiny", ("a", "b"), str(folder), [f"{i}.jpg" for i in range(len(contents))], np.array(labels))


def read_in_graph(source, batches):
    dataset = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=tf.TensorSpec([None], tf.int64))
    mapped = dataset.map(lambda indices: (source.read(indices), tf.gather(source.labels_tensor, indices)))
    return list(mapped.as_numpy_iterator())


def test_array_source_reads_batches_of_any_length_inside_a_graph():
    source = array_source([0, 1, 2, 1])
    for batch, (pixels, labels) in zip([[3, 0, 3], [2]], read_in_graph(source, [[3, 0, 3], [2]]), strict=True):
        np.testing.assert_array_equal(pixels, source.pixels[batch])
        np.testing.assert_array_equal(labels, source.labels[batch])
    assert (len(source), source.image_size, source.encoded) == (4, (4, 5), False)
    assert source.where(2) == "example 2 of tiny"


def test_a_graph_that_reads_an_array_source_holds_no_copy_of_it():
    source = ArraySource("tiny", ("a", "b"), np.zeros((1000, 32, 32, 3), np.uint8), np.zeros(1000))
    function = tf.function(source.read, input_signature=[tf.TensorSpec([None], tf.int64)])
    assert function.get_concrete_function().graph.as_graph_def().ByteSize() < 10_000


def test_file_source_reads_batches_of_any_length_inside_a_graph(tmp_path):
    source = file_source(tmp_path, [b"zero", b"one", b"\x00two"], [0, 1, 1])
    (first, _), (second, labels) = read_in_graph(source, [[2, 0], [1]])
    assert first.tolist() == [b"\x00two", b"zero"]
    assert second.tolist() == [b"one"] and labels.tolist() == [1]
    assert (source.image_size, source.encoded, source.where(1)) == (None, True, str(tmp_path / "1.jpg"))


def test_subset_is_sorted_and_renumbers():
    source = array_source([0, 1, 2, 1])
    subset = Subset(source, np.array([3, 1]))
    assert subset.indices.tolist() == [1, 3] and subset.labels.tolist() == [1, 1]
    np.testing.assert_array_equal(read_in_graph(subset, [[1]])[0][0], source.pixels[[3]])
    assert subset.where(1) == "example 3 of tiny" and subset.image_size == (4, 5)


def test_fingerprint_of_arrays_follows_pixels_labels_and_classes():
    source = array_source([0, 1, 2])
    pixels = source.pixels.copy()
    pixels[2, 3, 4, 2] ^= 1
    others = [
        ArraySource("tiny", source.classes, pixels, source.labels),
        ArraySource("tiny", source.classes, source.pixels, np.array([0, 1, 1])),
        ArraySource("tiny", ("a", "b", "d"), source.pixels, source.labels),
        Subset(source, np.array([0, 1])),
        Subset(source, np.array([0, 2])),
    ]
    assert array_source([0, 1, 2]).fingerprint() == source.fingerprint()
    assert len({source.fingerprint(), *(other.fingerprint() for other in others)}) == 6


def test_fingerprints_of_parts_are_what_they_always_were_unless_they_are_known():
    pixels = np.arange(36, dtype=np.uint8).reshape(3, 2, 2, 3)
    source = ArraySource("tiny", ("a", "b", "c"), pixels, np.array([0, 1, 2]))
    parts = [
        Subset(source, np.array([0, 2])),
        Chosen(source, ("c", "a")),
        Relabelled(source, ("c", "b", "a"), np.array([2, 1, 0])),
    ]
    # By these, runs of before know their data.
    assert [part.fingerprint()[:16] for part in parts] == ["020cb2a7812b7e06", "32c3a3ace0fa0d53", "31290744c88af797"]
    for part in parts:
        part.sha256 = "f" * 64
        assert part.fingerprint() == "f" * 64


def test_fingerprint_of_files_follows_sizes_and_labels_but_not_the_place(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    here = file_source(tmp_path / "here", [b"x", b"yy"], [0, 1]).fingerprint()
    assert here == file_source(tmp_path / "there", [b"x", b"yy"], [0, 1]).fingerprint()
    assert here != file_source(tmp_path / "there", [b"x", b"yy"], [1, 1]).fingerprint()
    source = file_source(tmp_path / "there", [b"x", b"yyy"], [0, 1])
    assert here != source.fingerprint()
    (tmp_path / "there" / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"there/1\.jpg"):
        FileSource(source.name, source.classes, source.root, source.paths, source.labels).fingerprint()


@pytest.fixture
def loaded(monkeypatch):
    """Loads an array source with the given labels, without a validation split of its own."""

    def load_labels(labels, **arguments):
        monkeypatch.setitem(KINDS, "npz", lambda config, progress: (array_source(labels), None))
        return load(DatasetConfig("npz", "here", **{"seed": 1, "validation_split": 0.25} | arguments))

    return load_labels


LABELS = [0] * 40 + [1] * 10 + [2] * 3


def test_held_out_part_is_balanced_disjoint_and_complete(loaded):
    train, validation = loaded(LABELS)
    # A quarter of 40, 10 and 3, rounded half up, at least one.
    assert np.bincount(validation.labels).tolist() == [10, 3, 1]
    assert np.bincount(loaded(LABELS, validation_split=0.01).validation.labels).tolist() == [1, 1, 1]
    assert sorted([*train.indices, *validation.indices]) == list(range(len(LABELS)))
    assert (np.diff(train.indices) > 0).all() and (np.diff(validation.indices) > 0).all()


def test_held_out_part_is_a_function_of_the_seed(loaded):
    first, again, other = (loaded(LABELS, seed=seed).validation for seed in (1, 1, 2))
    assert first.indices.tolist() == again.indices.tolist() != other.indices.tolist()
    # Guards the choice itself: checkpoints and results of earlier versions depend on it.
    assert first.indices.tolist() == [2, 4, 11, 19, 25, 27, 32, 34, 38, 39, 42, 43, 49, 50]


def test_nothing_is_held_out_without_need(loaded, monkeypatch):
    assert loaded(LABELS, validation_split=0).validation is None
    own = array_source([0, 1, 2])
    monkeypatch.setitem(KINDS, "csv", lambda config, progress: (array_source(LABELS), own))
    assert load(DatasetConfig("csv", "here", seed=0, validation_split=0.5)).validation is own


def test_a_class_of_one_example_stays_in_training_and_that_is_said(loaded):
    train, validation = loaded([0, 0, 1, 1, 2])
    assert sorted(train.labels.tolist()) == [0, 1, 2] and sorted(validation.labels.tolist()) == [0, 1]
    assert "class c has one example" in train.note
    with pytest.raises(DataError, match="each class .* has one example"):
        loaded([0, 1, 2])


def test_a_class_that_would_be_emptied_is_named_with_both_numbers(loaded):
    with pytest.raises(DataError, match="3 of the 3 training examples of class c "):
        loaded(LABELS, validation_split=0.9)


@pytest.mark.parametrize(
    ("dataset", "data_dir", "split", "words"),
    [
        ("imagenet", None, 0.1, "'imagenet'.*shapes, cifar10, image_folder, tfrecord, csv, npz, hdf5"),
        ("shapes", None, 1.0, "validation_split is 1.0"),
        ("shapes", None, -0.1, "validation_split is -0.1"),
        ("shapes", None, float("nan"), "validation_split is nan"),
        ("shapes", "/somewhere", 0.1, "/somewhere.*reads no files"),
        ("image_folder", None, 0.1, "image_folder needs data_dir"),
        ("tfrecord", None, 0.1, "tfrecord needs data_dir"),
        ("csv", None, 0.1, "csv needs data_dir"),
        ("npz", None, 0.1, "npz needs data_dir"),
    ],
)
def test_bad_arguments(dataset, data_dir, split, words):
    with pytest.raises(DataError, match=words):
        load(DatasetConfig(dataset, data_dir, seed=0, validation_split=split))


def test_features_are_of_shards_and_arrays_alone():
    with pytest.raises(DataError, match="--label-feature are of tfrecord, npz, hdf5, not of csv: leave them"):
        DatasetConfig("csv", "here", seed=0, validation_split=0, features=(None, "label"))


def test_one_class_is_refused(tmp_path):
    np.savez(tmp_path / "one.npz", x_train=np.zeros((3, 4, 4), np.uint8), y_train=np.zeros(3, int))
    with pytest.raises(DataError, match="single class '0'"):
        load(DatasetConfig("npz", str(tmp_path), seed=0, validation_split=0))
