"""Which split of which data is evaluated, with the labels of a run."""

import threading
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from slow_files import Files
from test_control import Ranks
from test_tfrecord import example, write

from data import DatasetConfig, Splits, hold_out, load
from data.datasets import DataError
from data.formats.arrays.source import training_source
from data.pictures.decode import NOW, description
from data.splits import adopt, choose, open_part, open_test
from data.splits import test_place as place_of_test
from data.views import evaluation_images
from distributed.world import World
from launch.evaluation.split import open_evaluated, open_together, open_training
from launch.exports.pictures import sample
from launch.job.logs.console import Console
from launch.trained.load import Found
from launch.trained.program import Workers
from launch.trained.record import Record

CLASSES = ("cat", "dog", "owl")


def source(names, labels, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 4, 4, 3), np.uint8)
    return training_source("made", pixels, np.array(labels), place="made", classes=list(names), gap="")


def opened(dataset, place, split=None, own=True, classes=CLASSES):
    config = DatasetConfig(dataset, place and str(place), seed=0, validation_split=0.2)
    return open_part(config, split, classes=classes, own=own)


def pictures(folder, names, count=1):
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            Image.new("RGB", (4, 4), (index, 0, 0)).save(folder / name / f"{name}{index}.png")
    return folder


@pytest.fixture(params=["image_folder", "csv", "npz", "tfrecord"])
def stored(request, tmp_path, monkeypatch):
    """Data of each kind with 6 training, 3 validation and 2 test pictures, the last of class 2, then of class 0."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    kind, place, classes = request.param, tmp_path / "data", CLASSES
    place.mkdir()
    labels = {"train": [0, 1, 2] * 2, "val": [0, 1, 2], "test": [2, 0]}
    if kind == "npz":
        classes = ("0", "1", "2")
        arrays = {f"y_{split}": np.array(values) for split, values in labels.items()}
        for split, values in labels.items():
            arrays[f"x_{split}"] = np.full((len(values), 4, 4, 3), len(values), np.uint8)
        np.savez(place / "all.npz", **arrays)
    for split, values in labels.items() if kind != "npz" else ():
        paths = []
        for index, label in enumerate(values):
            path = place / split / CLASSES[label] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (index, label, 0)).save(path)
            paths.append(path)
        if kind == "csv":
            rows = [f"{path},{path.parent.name}" for path in paths]
            (place / f"{split}.csv").write_text("\n".join(["path,label", *rows]) + "\n")
        if kind == "tfrecord":
            name = {"val": "validation"}.get(split, split)
            records = [example(path.read_bytes(), values[i], path.parent.name) for i, path in enumerate(paths)]
            write(place / f"{name}-00000-of-00001", records)
    return kind, place, classes


def test_every_kind_of_data_has_its_test_split(stored):
    kind, place, classes = stored
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        part = opened(kind, place, split, classes=classes)
        assert (part.split, len(part.source), part.source.classes) == (split, count, classes)
    # Folders put their classes in order.
    expected = [0, 2] if kind == "image_folder" else [2, 0]
    assert part.source.labels.tolist() == expected and opened(kind, place, classes=classes).split == "test"
    assert place_of_test(kind, str(place)) is not None


def test_a_run_of_some_classes_is_tested_on_these_in_its_order(stored):
    kind, place, names = stored
    for classes, labels in (((names[2], names[0]), [0, 1]), ((names[1], names[2]), [1])):
        config = DatasetConfig(kind, str(place), seed=0, validation_split=0.2, classes=classes)
        part = open_part(config, None, classes=classes, own=True)
        assert (part.split, part.source.classes, sorted(part.source.labels)) == ("test", classes, labels)
        owl = part.source.where(part.source.labels.tolist().index(classes.index(names[2])))
        assert owl == opened(kind, place, "test", classes=names).source.where(1 if kind == "image_folder" else 0)


def test_training_leaves_the_test_split_alone(stored):
    kind, place, _ = stored
    before = load(DatasetConfig(kind, str(place), seed=0, validation_split=0.2))
    assert [len(split) for split in before] == [6, 3]
    for path in place.iterdir():
        if path.name.startswith("test") and path.is_file():
            path.unlink()
        elif path.name == "test":
            path.rename(place.parent / "test")
    if kind == "npz":
        with np.load(place / "all.npz") as archive:
            kept = {name: archive[name] for name in archive.files if "test" not in name}
        np.savez(place / "all.npz", **kept)
    assert place_of_test(kind, str(place)) is None
    after = load(DatasetConfig(kind, str(place), seed=0, validation_split=0.2))
    assert [split.fingerprint() for split in after] == [split.fingerprint() for split in before]
    with pytest.raises(DataError, match="has no test split .* use --split val"):
        opened(kind, place, "test", classes=CLASSES if kind != "npz" else ("0", "1", "2"))


@pytest.mark.parametrize("stored", ["image_folder", "csv"], indirect=True)
def test_a_run_that_left_out_bad_files_does_so_in_its_test_split(stored):
    kind, place, classes = stored
    (place / "test/owl/bad.png").write_bytes(b"")
    if kind == "csv":
        with open(place / "test.csv", "a") as table:
            table.write(f"{place}/test/owl/bad.png,owl\n")
    config = DatasetConfig(kind, str(place), seed=0, validation_split=0.2, skip_unreadable=1)
    source = open_part(config, None, classes=classes, own=True).source
    assert len(source) == 2 and source.note.endswith(
        f"1 left out by --skip-unreadable:\n  {place}/test/owl/bad.png: is empty"
    )
    with pytest.raises(DataError, match="1 of 3 files cannot be pictures"):
        opened(kind, place, "test")


def test_a_test_shard_that_cannot_be_read_is_named_and_the_index_of_others_tells_its_progress(tmp_path):
    shard, told = tmp_path / "test-00000-of-00001", []
    pictures(tmp_path, CLASSES)
    files = [tmp_path / name / f"{name}0.png" for name in CLASSES]
    write(shard, [example(file.read_bytes(), label, file.parent.name) for label, file in enumerate(files)])
    config = DatasetConfig("tfrecord", str(tmp_path), seed=0, validation_split=0)
    assert len(open_test(config, CLASSES, lambda *words: told.append(words))) == 3
    assert told and told[-1][0] == "indexing MB of shards"
    shard.unlink()
    shard.symlink_to("nowhere")
    with pytest.raises(DataError, match=rf"^cannot read {shard} \(No such file or directory\): restore it"):
        open_test(config, CLASSES)


def test_what_npz_calls_test_is_validation_where_there_is_no_other(tmp_path):
    arrays = {"x_train": np.zeros((2, 4, 4, 3), np.uint8), "y_train": np.arange(2)}
    arrays |= {"x_test": np.ones((1, 4, 4, 3), np.uint8), "y_test": np.array([1])}
    np.savez(tmp_path / "a.npz", **arrays)
    assert place_of_test("npz", str(tmp_path)) is None
    assert opened("npz", tmp_path, classes=("0", "1")).split == "val"
    # Alone it is what is to be evaluated.
    np.savez(tmp_path / "a.npz", x_test=arrays["x_test"], y_test=arrays["y_test"])
    part = opened("npz", tmp_path, own=False, classes=("0", "1"))
    assert part.split == "test" and part.source.labels.tolist() == [1]


def test_shapes_draw_test_pictures_that_nobody_has_seen():
    train, validation = load(DatasetConfig("shapes", None, seed=0, validation_split=0.2))
    part = opened("shapes", None, classes=train.classes)
    assert part.split == "test"

    def seen(source):
        return {pixels.tobytes() for pixels in source.read(tf.range(len(source), dtype=tf.int64)).numpy()}

    assert not seen(part.source) & (seen(train) | seen(validation))
    config = DatasetConfig("shapes", None, seed=0, validation_split=0, classes=train.classes[2:0:-1])
    some = open_part(config, None, classes=config.classes, own=True).source
    assert some.classes == config.classes and len(some) == sum(part.source.labels == 1) + sum(part.source.labels == 2)


def test_other_pictures_need_no_splits_and_not_all_classes(tmp_path):
    part = opened("image_folder", pictures(tmp_path / "a", ("owl", "dog")), own=False)
    assert (part.split, part.source.classes, part.source.labels.tolist()) == ("all", CLASSES, [1, 2])
    (tmp_path / "some.csv").write_text("path,label\na/owl/owl0.png,7\na/dog/dog0.png,3\n")
    part = opened("csv", tmp_path / "some.csv", own=False, classes=tuple(map(str, range(9))))
    assert (part.split, part.source.labels.tolist()) == ("all", [7, 3])


def test_splits_of_other_pictures_have_all_their_usual_names(tmp_path):
    for name, classes in (("Training", CLASSES), ("Validation", ("owl", "cat"))):
        pictures(tmp_path / name, classes)
    part = opened("image_folder", tmp_path, own=False)
    assert (part.split, part.source.classes, part.source.labels.tolist()) == ("val", CLASSES, [0, 2])
    pictures(tmp_path / "Testing", ("dog",))
    assert opened("image_folder", tmp_path, own=False).split == "test"


def test_labels_are_remapped_by_name():
    given = source(("owl", "cat", "dog"), [0, 1, 2, 2])
    taken = adopt(given, CLASSES, "here")
    assert taken.labels.tolist() == [2, 0, 1, 1] and taken.classes == CLASSES and taken.labels.dtype == np.int32
    indices = tf.constant([3, 0], tf.int64)
    assert (taken.read(indices).numpy() == given.read(indices).numpy()).all()
    assert (taken.where(1), taken.fingerprint()) == (given.where(1), given.fingerprint())
    assert adopt(given, given.classes, "here") is given


def test_unknown_classes_are_refused_by_name_where_they_occur():
    assert adopt(source(("cat", "ant"), [0, 0]), CLASSES, "here").labels.tolist() == [0, 0]
    with pytest.raises(DataError) as error:
        adopt(source(("cat", "ant", "bee"), [2, 1, 0]), CLASSES, "here")
    assert str(error.value) == (
        "here has the class 'ant', 'bee', which the run does not know: expected 'cat', 'dog', 'owl', or some of these."
    )
    many = [f"c{index}" for index in range(9)]
    with pytest.raises(DataError, match="'c0', 'c1', 'c2', 'c3', 'c4' and 4 more, which"):
        adopt(source(many, range(9)), CLASSES, "here")


def test_names_in_test_shards_count_and_not_their_numbers(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    image = tf.io.encode_png(np.zeros((4, 4, 3), np.uint8)).numpy()
    write(tmp_path / "test-00000-of-00001", [example(image, 0, "owl"), example(image, 1, "cat")])
    assert opened("tfrecord", tmp_path, own=False).source.labels.tolist() == [2, 0]
    write(tmp_path / "test-00000-of-00001", [example(image, 1, "wolf"), example(image, 0, "cat")])
    with pytest.raises(DataError, match="has the class 'wolf', which the run does not know"):
        opened("tfrecord", tmp_path, own=False)


def test_pictures_of_unknown_class_in_a_test_folder_are_for_predict(tmp_path):
    pictures(tmp_path / "train", CLASSES)
    pictures(tmp_path, ["test"])
    with pytest.raises(DataError, match="outside of class folders, .* launch/predict.py names what is on them"):
        opened("image_folder", tmp_path)


def test_classes_named_by_numbers_are_in_their_order(tmp_path):
    config = DatasetConfig("image_folder", str(pictures(tmp_path, map(str, range(12)))), seed=0, validation_split=0)
    train, _ = load(config)
    assert train.classes == tuple(map(str, range(12)))
    pictures(tmp_path, ["x"])
    train, _ = load(config)
    assert train.classes[:4] == ("0", "1", "10", "11")


def test_what_is_not_there_is_said():
    whole = source(CLASSES, [0, 1, 2] * 5)
    alone, cut = Splits(whole, None), hold_out(Splits(whole, None), 0, 0.2)
    with pytest.raises(DataError, match="here has no test split: use --split val or train"):
        choose(alone, "test", CLASSES, "here", own=True)
    with pytest.raises(DataError, match="here has no validation split: use --split train"):
        choose(alone, "val", CLASSES, "here", own=True)
    with pytest.raises(DataError, match="here has neither a test nor a validation split"):
        choose(alone, None, CLASSES, "here", own=True)
    assert choose(alone, None, CLASSES, "here", own=False).split == "all"
    assert choose(alone, "train", CLASSES, "here", own=False).split == "train"
    assert choose(cut, None, CLASSES, "here", own=False).split == "val"


def test_the_chief_alone_looks_at_the_files_that_are_evaluated(tmp_path, monkeypatch):
    """The others get what it has found, of the run's own data and of other data with fewer classes."""
    place, classes = str(pictures(tmp_path / "own", CLASSES, 10)), ("owl", "cat")
    other = str(pictures(tmp_path / "other", ["owl"], 3))
    own = load(DatasetConfig("image_folder", place, seed=3, validation_split=0.2, classes=classes))
    found = trained_on(place, own, tmp_path)
    for data_dir, split, count in (None, "val", 4), (None, "train", 16), (other, None, 3):
        files, threads = Files(monkeypatch), {}

        def one(control, rank, data_dir=data_dir, split=split, threads=threads):
            threads[rank] = threading.get_ident()
            options = Namespace(dataset=None, data_dir=data_dir, split=split)
            world = World(rank, 3, 0, 1, host=f"node{rank}")
            strategy = SimpleNamespace(control=control, is_chief=rank == 0, world=world)
            return open_together(options, found, Workers(strategy, Console(False), 1))

        first, *others = Ranks(3).run(one)
        for data in others:
            theirs, mine = first.part.source, data.part.source
            assert (data.part.split, data.dataset, data.data_dir, data.own) == (
                first.part.split, first.dataset, first.data_dir, first.own
            )  # fmt: skip
            assert len(mine) == count and mine.classes == theirs.classes == classes
            assert mine.fingerprint() == theirs.fingerprint() and mine.labels.tolist() == theirs.labels.tolist()
            assert list(mine.files()) == list(theirs.files()) and mine.read([0]).numpy() == theirs.read([0]).numpy()
        looking = set().union(*(who for (what, _), who in files.threads.items() if what in ("open", "scandir")))
        assert threads[0] in looking and not {threads[1], threads[2]} & looking
        monkeypatch.undo()


def trained_on(place, splits, run):
    """A run of these splits of the pictures of owls and cats in a folder."""
    record = Record(
        classes=splits.train.classes, image_size=4, pixels=description(8, NOW), outputs="", model="", model_sha256="",
        dataset="image_folder", data_sha256=splits.train.fingerprint(), versions={},
    )  # fmt: skip
    settings = {"dataset": "image_folder", "data_dir": place, "classes": "owl,cat", "seed": 3, "validation_split": 0.2}
    return Found(run, None, {"configuration": settings}, record, "")


def test_after_training_a_runs_data_are_opened_as_the_run_did(tmp_path):
    """By the evaluation of its own data, also where these are given, and by the check of an export."""
    place, classes = str(pictures(tmp_path, CLASSES, 10)), ("owl", "cat")
    own = load(DatasetConfig("image_folder", place, seed=3, validation_split=0.2, classes=classes))
    found = trained_on(place, own, tmp_path)
    for given in (None, None), ("image_folder", place):
        evaluated = open_evaluated(Namespace(dataset=given[0], data_dir=given[1], split=None), found)
        assert evaluated.own and evaluated.part.split == "val"
        assert evaluated.part.source.fingerprint() == own.validation.fingerprint()
        assert open_training(found, evaluated).fingerprint() == own.train.fingerprint()
    shown, what = sample(found)
    assert what == "validation pictures" and len(shown) == len(own.validation) == 4
    np.testing.assert_array_equal(shown, evaluation_images(own.validation, range(4), "none", 4))
