"""A checkpoint is there whole or not at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import FILES, example, newest, read, same

from distributed.checkpoint import commit, manager
from distributed.checkpoint.commit import Checkpoint


def test_roundtrip_keeps_every_byte_dtype_and_shape(tmp_path):
    path = commit.write(tmp_path / "new" / "folder", 12, example())
    assert path == tmp_path / "new" / "folder" / "step-00000012" and manager.step_of(path) == 12
    assert {file.name for file in path.iterdir()} == set(FILES)
    assert same(read(path), example())


def test_arrays_that_are_views_with_gaps_or_turned_axes(tmp_path):
    rows = np.arange(24, dtype=np.float32).reshape(4, 6)
    views = {"turned": rows.T, "every second": rows[::2, ::3], "backwards": rows[0, ::-1]}
    whole = Checkpoint(views, {}, {})
    loaded = read(commit.write(tmp_path, 1, whole), whole).weights
    assert {name: array.tolist() for name, array in loaded.items()} == {
        name: view.tolist() for name, view in views.items()
    }


def test_a_checkpoint_without_arrays(tmp_path):
    empty = Checkpoint({}, {}, {})
    assert read(commit.write(tmp_path, 0, empty), empty) == empty


def test_a_committed_checkpoint_is_never_written_to(tmp_path):
    path = commit.write(tmp_path, 5, example(1))
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in path.iterdir()}
    assert commit.write(tmp_path, 5, example(2)) == path
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in path.iterdir()} == before


def test_committed_lists_by_step_and_nothing_else(tmp_path):
    assert manager.committed(tmp_path / "absent") == [] and manager.newest(tmp_path) == (None, [])
    for step in (100, 9, 20):
        commit.write(tmp_path, step, example())
    (tmp_path / ".writing-step-00000200").mkdir()
    (tmp_path / "step-00000300").write_text("a file")
    (tmp_path / "step-1").mkdir()
    (tmp_path / "step-00000400").symlink_to("step-00000100")
    assert [manager.step_of(path) for path in manager.committed(tmp_path)] == [9, 20, 100]


CALLS = [("fsync", call) for call in range(6)] + [("rename", 0)]


@pytest.mark.parametrize(("function", "call"), CALLS)
def test_a_writer_that_dies_leaves_no_checkpoint_or_a_whole_one(tmp_path, monkeypatch, function, call):
    commit.write(tmp_path, 1, example(1))
    original, calls = getattr(os, function), []

    def die(*arguments):
        calls.append(arguments)
        if len(calls) > call:
            raise OSError(28, "the disk is full")
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, function, die)
        with pytest.raises(OSError, match="the disk is full"):
            commit.write(tmp_path, 2, example(2))
    # The sixth flush is that of the folder above, after the rename: by then the checkpoint is whole.
    steps = [1, 2] if (function, call) == ("fsync", 5) else [1]
    assert [manager.step_of(path) for path in manager.committed(tmp_path)] == steps
    assert same(newest(tmp_path)[1], example(steps[-1]))
    # The next attempt is not disturbed by what is left.
    assert same(read(commit.write(tmp_path, 2, example(2))), example(2))
    assert not list(tmp_path.glob(".writing-*"))


def test_every_file_is_flushed_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    events, fsync, rename = [], os.fsync, os.rename
    monkeypatch.setattr(
        os, "fsync", lambda file: (events.append(Path(os.readlink(f"/proc/self/fd/{file}")).name), fsync(file))[1]
    )
    monkeypatch.setattr(os, "rename", lambda *paths: (events.append("rename"), rename(*paths))[1])
    commit.write(tmp_path, 1, example())
    assert {*events[:3]} == {*FILES[:3]} and events[3:] == [
        "manifest.json",
        ".writing-step-00000001",
        "rename",
        tmp_path.name,
    ]


@pytest.mark.parametrize(
    ("keep", "bests", "left"),
    (
        (1, (), [5]),
        (2, (), [4, 5]),
        (2, (1,), [1, 4, 5]),
        (2, (1, 2), [2, 4, 5]),  # the newest that was the best is the best
        (2, (1, 5), [4, 5]),
        (9, (2,), [1, 2, 3, 4, 5]),
    ),
)
def test_prune_keeps_the_newest_and_the_best_without_any_link(tmp_path, keep, bests, left):
    paths = [
        commit.write(tmp_path, step, example(), monitored={"accuracy": 0.5}, best=step in bests) for step in range(1, 6)
    ]
    (tmp_path / ".writing-step-00000006").mkdir()
    (tmp_path / ".writing-step-00000006" / "weights.safetensors").write_text("half")
    (tmp_path / ".former-step-00000001").mkdir()  # left by a prune that was killed
    (tmp_path / "notes").mkdir()
    manager.prune(tmp_path, keep, paths[-1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", *(f"step-{step:08d}" for step in left)]
    assert manager.find_best(tmp_path) == (paths[bests[-1] - 1] if bests else None)


def test_prune_never_leaves_half_a_checkpoint_under_a_checkpoints_name(tmp_path, monkeypatch):
    paths = [commit.write(tmp_path, step, example(step)) for step in (1, 2)]
    monkeypatch.setattr(commit.shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        manager.prune(tmp_path, 1, paths[1])
    assert all(same(read(path), example(manager.step_of(path))) for path in manager.committed(tmp_path))


def test_a_checkpoint_before_the_verdict_on_its_epoch_makes_room_for_the_one_after_it(tmp_path):
    commit.write(tmp_path, 1, example(1))
    after = commit.write(tmp_path, 1, example(2), monitored={"accuracy": 0.5}, best=True)
    assert same(read(after), example(2)) and manager.find_best(tmp_path) == after
    commit.write(tmp_path, 1, example(3))
    commit.write(tmp_path, 1, example(4), monitored={"accuracy": 0.6})
    assert same(read(after), example(2)) and manager.find_best(tmp_path) == after


def test_a_checkpoint_within_an_epoch_makes_room_for_the_one_at_its_end_where_nothing_was_decided(tmp_path):
    commit.write(tmp_path, 1, example(1))
    after = commit.write(tmp_path, 1, example(2), monitored={})
    assert same(read(after), example(2))
    commit.write(tmp_path, 1, example(3))
    commit.write(tmp_path, 1, example(4), monitored={})
    assert same(read(after), example(2))


def test_point_replaces_a_link_and_survives_a_move(tmp_path):
    folder = tmp_path / "run"
    paths = [commit.write(folder, step, example(step)) for step in (1, 2)]
    (folder / ".best-new").symlink_to("nowhere")  # left by a killed writer
    for step, path in enumerate(paths, 1):
        manager.point(folder / "best", path)
        assert same(read((folder / "best").resolve()), example(step))
    folder.rename(tmp_path / "moved")
    assert same(read((tmp_path / "moved" / "best").resolve()), example(2))
    assert not [path.name for path in (tmp_path / "moved").iterdir() if path.name.startswith(".")]


def test_point_never_leaves_a_moment_without_a_link(tmp_path, monkeypatch):
    paths = [commit.write(tmp_path, step, example(step)) for step in (1, 2)]
    manager.point(tmp_path / "best", paths[0])
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    manager.point(tmp_path / "best", paths[1])  # links are a convenience: no error of theirs ends a run
    assert same(read((tmp_path / "best").resolve()), example(1))


def test_the_module_needs_no_tensorflow():
    code = "import sys, json, distributed.checkpoint.saver; print(json.dumps(sorted(sys.modules)))"
    root = Path(__file__).parent.parent
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True).stdout)
    assert "numpy" in loaded and not {"tensorflow", "keras", "horovod", "mpi4py"} & set(loaded)
