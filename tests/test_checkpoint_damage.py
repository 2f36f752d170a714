"""A damaged checkpoint is noticed, and the previous one taken."""

import contextlib
import os
from pathlib import Path

import pytest
from checkpoints import FILES, damage, example, newest, read, same

from distributed.checkpoint import commit, manager
from distributed.checkpoint.commit import CheckpointError


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("position", (0, 100, -2))
def test_a_damaged_byte_is_noticed_and_the_previous_checkpoint_taken(tmp_path, name, position):
    for step in (1, 2, 3):
        commit.write(tmp_path, step, example(step))
    damage(tmp_path / "step-00000003" / name, position)
    with pytest.raises(CheckpointError):
        read(tmp_path / "step-00000003")
    path, problems = manager.newest(tmp_path)
    assert path.name == "step-00000002" and same(read(path), example(2))
    assert len(problems) == 1 and "step-00000003" in problems[0]


def test_a_run_that_fell_back_replaces_the_damaged_checkpoint_when_it_comes_by_again(tmp_path):
    commit.write(tmp_path, 1, example(1))
    damage(commit.write(tmp_path, 2, example(2)) / "weights.safetensors", -1)
    assert manager.newest(tmp_path)[0].name == "step-00000001"
    assert same(read(commit.write(tmp_path, 2, example(2))), example(2))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_cut_file_is_noticed(tmp_path, name):
    path = commit.write(tmp_path, 1, example())
    whole = (path / name).read_bytes()
    (path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError):
        read(path)
    (path / name).unlink()
    with pytest.raises(CheckpointError, match="step-00000001"):
        read(path)


def test_whatever_byte_of_the_manifest_is_damaged_reading_gives_the_truth_or_a_checkpoint_error(tmp_path):
    path = commit.write(tmp_path, 1, example())
    whole = (path / "manifest.json").read_bytes()
    for position in range(len(whole)):
        for mask in (0x01, 0x80):
            damage(path / "manifest.json", position, mask)
            with contextlib.suppress(CheckpointError):
                same(read(path), example())
            (path / "manifest.json").write_bytes(whole)


@pytest.mark.parametrize(
    "manifest", ("[]", "3", '{"files": []}', '{"files": {}}', '{"files": {"state.json": 1}}', "null")
)
def test_a_manifest_of_another_shape_is_a_checkpoint_error(tmp_path, manifest):
    path = commit.write(tmp_path, 1, example())
    (path / "manifest.json").write_text(manifest)
    with pytest.raises(CheckpointError):
        read(path)


def test_none_readable_is_an_error_that_says_how_many_and_why(tmp_path):
    for step in (1, 2):
        damage(commit.write(tmp_path, step, example()) / "weights.safetensors", -1)
    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoints.*step-00000002.weights.safetensors"):
        manager.newest(tmp_path)


def test_a_damaged_checkpoint_ahead_counts_for_nothing(tmp_path):
    """The run fell back from 4 to 3: 4 is neither the best nor one of those to keep, and is not deleted either."""
    for step in (1, 2, 3, 4):
        commit.write(tmp_path, step, example(), monitored={}, best=step in (1, 4))
    damage(tmp_path / "step-00000004" / "weights.safetensors", -1)
    manager.prune(tmp_path, 1, tmp_path / "step-00000003")
    assert [manager.step_of(path) for path in manager.committed(tmp_path)] == [1, 3, 4]
    assert manager.find_best(tmp_path, 3) == tmp_path / "step-00000001"


def test_what_does_not_read_back_never_gets_a_checkpoints_name(tmp_path, monkeypatch):
    """A disk that loses a byte between writing and reading back."""
    commit.write(tmp_path, 1, example(1))
    flush = commit.disk.flush

    def lose(path):
        flush(path)
        if path.name.startswith(".writing"):
            damage(path / "optimizer.safetensors", -1)

    monkeypatch.setattr(commit.disk, "flush", lose)
    with pytest.raises(CheckpointError, match="optimizer.safetensors is not the file that was saved"):
        commit.write(tmp_path, 2, example(2))
    assert same(newest(tmp_path)[1], example(1))


@pytest.mark.parametrize("name", FILES)
def test_links_and_pipes_are_not_followed(tmp_path, name):
    path = commit.write(tmp_path, 1, example())
    (path / name).rename(tmp_path / "elsewhere")
    (path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="a link, not a file"):
        read(path)
    (path / name).unlink()
    os.mkfifo(path / name)  # reading it would wait for ever
    with pytest.raises(CheckpointError, match="not a regular file"):
        read(path)


def test_a_folder_that_cannot_be_listed_is_no_empty_one(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "iterdir", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(CheckpointError, match="cannot be listed .Input/output error."):
        manager.newest(tmp_path)


def test_the_state_may_refuse_before_the_tensors_are_looked_at(tmp_path):
    path = commit.write(tmp_path, 1, example())

    def refuse(state):
        raise CheckpointError(f"not {state['name']}")

    with pytest.raises(CheckpointError, match="^not größe$"):
        commit.load(path, {}, {}, accept=refuse)
