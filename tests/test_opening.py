"""Opening data: by one rank, each file once, many at a time where the disk is slow, and from what is known already."""

import os
import threading
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from layouts import JPEG, put, shard
from slow_files import Files
from test_control import Ranks

from data import DatasetConfig, load, open_checked
from data.classes import Chosen
from data.datasets import ArraySource, DataError, Subset
from data.files import listing
from data.files.paths import Paths
from data.files.source import FileSource
from data.files.tree import Tree
from data.formats.tfrecord import index as tfrecord_index
from data.splits import Relabelled
from distributed.health import heartbeat
from distributed.world import World, WorldError
from launch.job.config import TrainConfig
from launch.job.logs.console import Console
from launch.job.preparation import same_data
from launch.job.preparation.opening import open_data
from launch.job.preparation.stages import together
from launch.job.run_directory import data_changes
from launch.job.user.given import UserCode

CLASSES = [f"c{number}" for number in range(5)]
RANKS: dict[int, int] = {}  # the thread that plays a rank


@pytest.fixture
def photos(tmp_path):
    """5 classes of 40 training and 4 validation pictures, some of them deeper."""
    for split, count in (("train", 40), ("val", 4)):
        put(tmp_path / "photos" / split, *(f"{c}/{'in/' * (n % 7 == 3)}{n}.jpg" for c in CLASSES for n in range(count)))
    return tmp_path / "photos"


def table_of(photos):
    rows = [f"{path.relative_to(photos)},{path.parts[len(photos.parts) + 1]}\n" for path in photos.rglob("*.jpg")]
    (photos / "train.csv").write_text("path,label\n" + "".join(sorted(rows)))
    return photos


def opened(size, **settings):
    """What each of so many ranks gets, or the error that it raises; each is played by a thread, and has its host."""
    config = TrainConfig(**{"dataset": "image_folder", "validation_split": 0} | settings)

    def one(control, rank):
        RANKS[rank] = threading.get_ident()
        world = World(rank, size, 0, 1, host=f"node{rank}")
        strategy = SimpleNamespace(control=control, world=world, is_chief=rank == 0)
        return open_data(config, strategy, Console(False), UserCode())

    return Ranks(size).run(one)


def alone(**settings):
    (result,) = opened(1, **settings)
    if isinstance(result, Exception):
        raise result
    return result


@pytest.mark.parametrize("dataset", ["image_folder", "csv"])
def test_each_folder_is_listed_and_each_file_opened_once(photos, monkeypatch, dataset):
    place = photos if dataset == "image_folder" else table_of(photos)
    files = Files(monkeypatch)
    splits = load(DatasetConfig(dataset, str(place), seed=0, validation_split=0.1))
    for source in filter(None, splits):
        source.fingerprint()
        assert all(size == len(JPEG) for _, size in source.files())
    looked, asked = (
        {path: count for path, count in files.of(name, str(photos)).items() if path.endswith(".jpg")}
        for name in ("open", "stat")
    )
    assert len(looked) == 220 and set(looked.values()) == {1}
    assert set(asked.values()) == ({1} if dataset == "csv" else set())
    assert set(files.of("scandir", str(photos)).values()) <= {1}
    assert not files.of("lstat", str(photos))


def test_a_slow_file_system_is_asked_by_many_threads(photos, monkeypatch):
    """How many calls wait together is by how much it is faster than one by one."""
    for number in range(60):
        put(photos / "train", *(f"more{number:02}/{n}.jpg" for n in range(12)))
    files = Files(monkeypatch, 0.02)
    splits = load(DatasetConfig("image_folder", str(photos), seed=0, validation_split=0))
    assert len(splits.train) == 920
    assert np.mean(files.in_flight) >= 20
    splits.train.sizes = splits.train.sha256 = None
    files.in_flight.clear()
    splits.train.fingerprint()
    assert np.mean(files.in_flight) >= 15


def test_the_chief_looks_and_the_others_get_what_it_has_found(photos, monkeypatch):
    files = Files(monkeypatch)
    results = opened(3, data_dir=photos)
    assert [str(result.fingerprints) for result in results] == [str(results[0].fingerprints)] * 3
    first, *others = (result.splits for result in results)
    for splits in others:
        for mine, theirs in zip(splits, first, strict=True):
            assert mine.paths == theirs.paths and mine.classes == theirs.classes and mine.turned == theirs.turned == 0
            np.testing.assert_array_equal(mine.labels, theirs.labels)
            assert mine.read([0]).numpy().tolist() == [JPEG]
    for name in ("scandir", "open"):
        assert set(files.of(name, str(photos)).values()) == {1}
        callers = set().union(*(found for (what, _), found in files.threads.items() if what == name))
        assert not callers & {RANKS[1], RANKS[2]}
    # Of at most 64 files of each split the others have asked for the size.
    asked = [path for path in files.of("stat", str(photos)) if path.endswith(".jpg")]
    assert 0 < len(asked) <= 2 * 64


@pytest.mark.parametrize("gone", [False, True])
def test_a_host_that_sees_another_file_is_named_with_the_file(photos, monkeypatch, gone):
    real, other = os.stat, str(photos / "val" / "c2" / "1.jpg")

    def stat(path, *arguments, **named):
        if str(path) != other:
            return real(path, *arguments, **named)
        # The chief has the size from its look; whoever asks for it is another one.
        if gone:
            raise FileNotFoundError(2, "No such file or directory", path)
        return SimpleNamespace(st_size=7)

    monkeypatch.setattr(os, "stat", stat)
    errors = opened(2, data_dir=photos)
    assert {type(error) for error in errors} == {WorldError}
    what = f"no {other}, as node0," if gone else f"{other} with 7 bytes, node0,"
    assert str(errors[0]).startswith(f"rank 1: node1 has {what}")
    assert "expected the same data on all hosts" in str(errors[0])


def test_arrays_are_compared_by_a_few_examples(tmp_path, monkeypatch):
    """Each rank opens them; of all pixels the first alone takes the fingerprint."""
    random = np.random.default_rng(0)
    pixels, labels = random.integers(0, 256, (50, 4, 4, 3), np.uint8), np.arange(50) % 5
    np.savez(tmp_path / "set.npz", x_train=pixels, y_train=labels)
    digested, real = set(), ArraySource.digest

    def digest(source):
        digested.add(threading.get_ident())
        return real(source)

    monkeypatch.setattr(ArraySource, "digest", digest)
    results = opened(3, dataset="npz", data_dir=tmp_path / "set.npz")
    assert digested == {RANKS[0]}
    assert len({result.fingerprints[0] for result in results}) == 1
    checksum = zlib.crc32
    monkeypatch.setattr(zlib, "crc32", lambda value: checksum(value) ^ (threading.get_ident() == RANKS[2]))
    errors = opened(3, dataset="npz", data_dir=tmp_path / "set.npz")
    assert "rank 2: node2 has other pixels at example " in str(errors[0])


@pytest.mark.parametrize(
    "part_of",
    [
        lambda source: Subset(source, np.arange(0, 50, 3)),
        lambda source: Chosen(source, ("d", "b")),
        lambda source: Relabelled(source, tuple("edcba"), 4 - source.labels),
    ],
    ids=["subset", "chosen", "relabelled"],
)
def test_of_parts_of_arrays_the_first_rank_alone_takes_the_fingerprint(monkeypatch, part_of):
    """As an evaluation compares them."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), np.uint8)
    digested, real = [], ArraySource.digest
    monkeypatch.setattr(ArraySource, "digest", lambda source: digested.append(threading.get_ident()) or real(source))

    def one(control, rank):
        RANKS[rank] = threading.get_ident()
        world = World(rank, 3, 0, 1, host=f"node{rank}")
        strategy = SimpleNamespace(control=control, world=world, is_chief=rank == 0)
        source = part_of(ArraySource("five", tuple("abcde"), pixels, np.arange(50) % 5))
        same_data.check(strategy, [source], lambda function: together(strategy, function))
        return source.fingerprint()

    assert len(set(Ranks(3).run(one))) == 1 and digested == [RANKS[0]]


def test_what_the_chief_cannot_open_is_said_once_and_not_of_a_rank(photos):
    (photos / "val" / "c9").mkdir()
    (photos / "val" / "c9" / "1.jpg").write_bytes(JPEG)
    errors = [str(error) for error in opened(2, data_dir=photos)]
    assert errors[0] == errors[1] and errors[0].startswith("class c9 has no folder in ")


def test_shards_are_indexed_by_one_rank(tmp_path, monkeypatch):
    records = [{"image/encoded": JPEG, "image/class/label": number % 2} for number in range(4)]
    shard(tmp_path / "train-00000-of-00001", records)
    built, real = [], tfrecord_index.build_index
    monkeypatch.setattr(
        tfrecord_index, "build_index", lambda *arguments: built.append(threading.get_ident()) or real(*arguments)
    )
    results = opened(3, dataset="tfrecord", data_dir=tmp_path)
    assert built == [RANKS[0]] and len({str(result.fingerprints) for result in results}) == 1
    assert all(result.splits.train.read(tf.constant([3])).numpy().tolist() == [JPEG] for result in results)
    for reindex, times in (False, 1), (True, 2):
        alone(dataset="tfrecord", data_dir=tmp_path, reindex=reindex)
        assert len(built) == times


def test_a_run_that_goes_on_lists_nothing_anew(photos, tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    first = alone(data_dir=photos, run_dir=run)
    data_changes.keep(first.listing, run, Console(False))
    files = Files(monkeypatch)

    def again(**settings):
        files.calls.clear()
        result = alone(**{"data_dir": photos, "run_dir": run} | settings)
        return result, sum(files.of("open", str(photos)).values())

    second, looked = again()
    assert looked == 0 and not files.of("scandir", str(photos)) and second.fingerprints == first.fingerprints
    assert second.splits.train.paths == first.splits.train.paths and second.splits.train.note == first.splits.train.note
    # Other arguments, or none of it is to be believed.
    assert again(reindex=True)[1] == 220 and again(skip_unreadable=1)[1] == 220 and again(classes="c1,c0")[1] == 88
    # A file more, deep below; a folder more; one file gone.
    put(photos / "train" / "c1" / "in", "new.jpg")
    third, looked = again()
    assert looked == 221 and third.fingerprints[0] != first.fingerprints[0]
    assert third.fingerprints[1] == first.fingerprints[1]
    data_changes.keep(third.listing, run, Console(False))
    assert again()[1] == 0
    (photos / "val" / "c3" / "0.jpg").unlink()
    assert again()[1] == 220
    data_changes.keep(alone(data_dir=photos, run_dir=run).listing, run, Console(False))
    # Written over, which leaves the folders as they were: by its size, which is among those that are asked for.
    for path in (photos / "val").rglob("*.jpg"):
        path.write_bytes(JPEG + b"x")
    last, looked = again()
    assert looked == 220 and last.fingerprints[1] != third.fingerprints[1]
    data_changes.keep(last.listing, run, Console(False))
    assert again()[1] == 0
    (run / data_changes.FILE).write_bytes(last.listing.packed[:-40])
    assert again()[1] == 220


def test_a_listing_is_the_same_as_what_was_listed(photos):
    odd = b"\xff\xfe odd"
    (photos / "train" / "c0").joinpath(odd.decode(errors="surrogateescape") + ".jpg").write_bytes(JPEG)
    sources = open_checked(DatasetConfig("image_folder", str(photos), seed=0, validation_split=0, skip_unreadable=1))
    packed = listing.pack(sources, ["key", None, 3]).packed
    again = listing.unpack(packed)
    assert again.key == ["key", None, 3] and listing.is_current(again, ["key", None, 3])
    assert not listing.is_current(again, ["other", None, 3])
    for before, after in zip(sources, again.sources, strict=True):
        assert isinstance(after, FileSource) and after.sha256 == before.fingerprint()
        after.sha256 = None
        assert after.fingerprint() == before.fingerprint() and list(after.files()) == list(before.files())


def test_paths_take_little_memory():
    """Of ImageNet's names, 1.28 million of which may take 60 MB with sizes and labels."""
    names = [f"n{1440764 + n // 1300:08}/n{1440764 + n // 1300:08}_{n % 29000}.JPEG" for n in range(20_000)]
    source = FileSource("image_folder", ["a", "b"], "", names, np.arange(20_000) % 2, np.full(20_000, 110_000))
    held = len(source.paths.block) + source.paths.bounds.nbytes + source.sizes.nbytes + source.labels.nbytes
    assert held * 1_281_167 / len(names) < 60e6
    assert list(source.paths) == names and source.paths[-1] == names[-1]
    assert source.paths.take(np.array([7, 19_999])) == Paths.of([names[7], names[19_999]])
    with pytest.raises(IndexError):
        source.paths[20_000]


def test_opening_gives_signs_of_life(photos):
    before = heartbeat._record.beats
    told = []
    config = DatasetConfig("image_folder", str(photos), seed=0, validation_split=0)
    splits = load(config, progress=lambda *facts: told.append(facts))
    assert {what for what, _, _ in told} == {"listing folders", "looking at files"}
    assert ("looking at files", len(splits.train), len(splits.train)) in told
    alone(data_dir=photos)
    assert heartbeat._record.beats - before >= len(told)


def test_a_folder_that_links_to_one_above_ends(tmp_path):
    put(tmp_path, "a/b/1.jpg")
    (tmp_path / "a" / "b" / "again").symlink_to(tmp_path / "a")
    with pytest.raises(DataError, match="again is a link to"):
        Tree().list_below(str(tmp_path), ["a"])
