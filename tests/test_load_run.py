"""load_run: what a run has learnt, as plain Keras; and labels.json, by which it explains itself."""

import json
import re
import shutil

import keras
import numpy as np
import pytest
import trained
from conftest import run_jobs, summary
from rights import rights
from trained import change_state

from distributed.checkpoint.commit import CheckpointError
from launch.job.config import ConfigError
from launch.job.identity import weights_sha256
from launch.trained import load_run
from launch.trained.load import find
from launch.trained.record import RecordError

PIXELS = np.random.default_rng(3).integers(0, 256, (5, 12, 12, 3), np.uint8)
LAST = "step-00000006"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return trained.train(tmp_path_factory.mktemp("load"), "photos", "two", "half", "own")


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/step-00000006"])
def test_a_run_that_may_not_be_entered_is_a_sentence(tmp_path, place):
    run = tmp_path / "run"
    (run / "checkpoints" / LAST).mkdir(parents=True)
    with rights(run / place, 0):
        for path, checkpoint in ((run, "best"), (run, LAST), (run / "checkpoints" / LAST, "best")):
            with pytest.raises((ConfigError, CheckpointError), match="Permission denied"):
                find(path, checkpoint)


@pytest.mark.parametrize("name", ["photos", "two", "half", "own"])
def test_the_weights_are_those_that_training_ended_with(folder, name):
    """Whether the network comes from the user's file or, as that of photos, from model.json; several in one process."""
    network, record = load_run(folder / name, checkpoint="last")
    assert weights_sha256(network) == summary(folder / name)["weights_sha256"]
    assert record.model == "network" and network.input_shape[1:] == (record.image_size, record.image_size, 3)
    # Plain Keras, which can be saved and trained further.
    assert {type(layer).__module__.partition(".")[0] for layer in network.layers} == {"keras"}
    assert "distributed" not in network.to_json()


@pytest.mark.parametrize(("name", "classes"), [("two", 2), ("half", 5), ("own", 5)])
def test_probabilities_of_every_class(folder, name, classes):
    network, record = load_run(folder / name)
    logits, same = load_run(folder / name, logits=True)
    assert same == record and len(record.classes) == classes and record.image_size == 12
    found, raw = network.predict(PIXELS, verbose=0), logits.predict(PIXELS, verbose=0)
    assert found.shape == (5, classes) and found.dtype == raw.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    if classes == 2:
        assert raw.shape == (5, 1) and record.outputs == "one logit, that of class 1"
        raw = np.concatenate([np.zeros_like(raw), raw], axis=1)
    else:
        assert raw.shape == (5, classes) and record.outputs == "one logit per class"
    expected = np.exp(raw.astype(float)) / np.exp(raw.astype(float)).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_best_last_and_any_other(folder):
    run = folder / "own"
    last, best = (run / "checkpoints" / name for name in ("last", "best"))
    by_name = {name: weights_sha256(load_run(run, checkpoint=name)[0]) for name in ("best", "last", LAST)}
    by_place = {path: weights_sha256(load_run(path)[0]) for path in (last, best, str(run / "checkpoints" / LAST))}
    assert by_name["last"] == by_name[LAST] == by_place[last] == by_place[str(run / "checkpoints" / LAST)]
    assert by_name["best"] == by_place[best] == weights_sha256(load_run(run)[0])
    assert by_name["last"] == weights_sha256(load_run(run, checkpoint=str(last))[0])
    steps = {json.loads((path / "state.json").read_text())["step"]: by_place[path] for path in (last, best)}
    assert len({*by_place.values()}) == len(steps)


@pytest.mark.parametrize("name", ["two", "half"])
def test_a_network_of_16_bits_is_rebuilt_in_float32(folder, name):
    """The same weights; the answers agree as far as 16 bits go.  From the user's file and from model.json."""
    halves, _ = load_run(folder / name)
    assert {layer.compute_dtype for layer in halves.layers if layer.weights} <= {"float16", "bfloat16"}
    for run in (folder / name, without_file(folder, name)):
        whole, _ = load_run(run, precision="float32")
        assert {layer.compute_dtype for layer in whole.layers if layer.weights} == {"float32"}
        assert weights_sha256(whole) == weights_sha256(halves)
        difference = np.abs(whole.predict(PIXELS, verbose=0) - halves.predict(PIXELS, verbose=0))
        assert 0 < difference.max() < 0.01


def without_file(folder, name):
    """A copy of a run whose settings name a file that is no longer there."""
    run = folder / f"{name} without its file"
    shutil.copytree(folder / name, run, dirs_exist_ok=True)
    for path in (run / "checkpoints").glob("step-*"):
        change_state(path, lambda state: state["configuration"].update(model=f"{folder}/gone.py:network"))
    return run


def test_a_users_file_that_changed_is_not_used(folder, tmp_path):
    """The network is that of then; where model.json is gone, too, it is said."""
    run, file = tmp_path / "run", tmp_path / "mine.py"
    shutil.copytree(folder / "own", run)
    file.write_text((folder / "mine.py").read_text().replace("Dense(8", "Dense(9"))
    for path in (run / "checkpoints").glob("step-*"):
        change_state(path, lambda state: state["configuration"].update(model=f"{file}:network"))
    assert weights_sha256(load_run(run, checkpoint="last")[0]) == summary(run)["weights_sha256"]
    file.write_text("raise OSError('a data set that is gone')")
    assert weights_sha256(load_run(run, checkpoint="last")[0]) == summary(run)["weights_sha256"]
    (run / "model.json").unlink()
    file.write_text("def network(classes, image_size): ...")
    with pytest.raises(ConfigError, match="mine.py:network has changed since, and there is no model.json in its run"):
        load_run(run)


def test_labels_json_says_what_every_checkpoint_says(folder):
    run = folder / "photos"
    said = json.loads((run / "labels.json").read_text())
    for path in (run / "checkpoints").glob("step-*"):
        assert json.loads((path / "state.json").read_text())["record"] == said
    assert said["classes"] == ["cat", "dog", "owl"] and said["dataset"] == "image_folder"
    assert said["pixels"]["crop_eighths"] == 8 and "uint8" in said["pixels"]["values"]
    assert said["image_size"] == 16 and said["versions"]["keras"] == keras.__version__
    # A checkpoint is enough.
    shutil.copytree(folder / "own/checkpoints" / LAST, folder / "alone")
    network, record = load_run(folder / "alone")
    assert weights_sha256(network) == summary(folder / "own")["weights_sha256"] and record.classes == tuple("abcde")


def test_a_run_of_older_checkpoints_says_what_to_do_and_then_can(folder):
    old = folder / "old"
    shutil.copytree(folder / "own", old)
    for path in (old / "checkpoints").glob("step-*"):
        change_state(path, lambda state: state.pop("record"))
    (old / "labels.json").unlink()
    with pytest.raises(RecordError) as error:
        load_run(old)
    assert str(error.value) == (
        f"{old} has no labels.json, which runs leave since Lockstep 0.2; give the command that trained it once more, "
        "which writes it"
    )
    mine = folder / "mine.py"
    line = [*trained.LINE.split(), "--model", f"{mine}:network", "--dataset", f"{mine}:examples", "--run-dir", old]
    assert run_jobs(folder / "again", {"old": line}) == {"old": 0}
    network, record = load_run(old, checkpoint="last")
    assert weights_sha256(network) == summary(folder / "own")["weights_sha256"] and record.classes == tuple("abcde")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "labels.json cannot be read (Expecting value"),
        ("[]", "is damaged (list indices must be integers"),
        ("{}", "is damaged ('format')"),
        ('{"format": 7}', "has format 7, expected 1; use a newer Lockstep"),
        ('{"format": 1, "classes": ["a", "b"]}', "is damaged ('image_size')"),
        (("classes", "ab"), "its classes are no list of two or more names"),
        (("classes", ["a"]), "its classes are no list of two or more names"),
        (("classes", ["a", 1]), "its classes are no list of two or more names"),
        (("image_size", "12"), "or its image_size is no number"),
    ],
)
def test_a_damaged_record_is_one_sentence(folder, tmp_path, text, what):
    run = tmp_path / "run"
    shutil.copytree(folder / "own", run)
    for path in (run / "checkpoints").glob("step-*"):
        change_state(path, lambda state: state.pop("record"))
    if isinstance(text, tuple):
        text = json.dumps(json.loads((run / "labels.json").read_text()) | dict([text]))
    (run / "labels.json").write_text(text)
    with pytest.raises(RecordError, match=re.escape(what)) as error:
        load_run(run)
    assert "\n" not in str(error.value) and str(run) in str(error.value)


def test_what_cannot_be_loaded_is_said(folder, tmp_path):
    for arguments, kind, what in (
        ({"path": tmp_path / "no"}, ConfigError, "no is no folder; give a run directory or a checkpoint"),
        ({"path": tmp_path}, ConfigError, "is no run directory; give the folder that a run was told to write to"),
        ({"path": folder / "own", "checkpoint": "first"}, ConfigError, "--checkpoint first is no checkpoint"),
    ):
        with pytest.raises(kind, match=re.escape(what)):
            load_run(**arguments)
    shutil.copytree(folder / "own", tmp_path / "other")
    shutil.copy(folder / "photos/model.json", tmp_path / "other")
    for path in (tmp_path / "other/checkpoints").glob("step-*"):
        change_state(path, lambda state: state["files"].update(model="that of another file"))
    with pytest.raises(CheckpointError, match="was made by another network than the one here"):
        load_run(tmp_path / "other")
