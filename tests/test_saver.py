"""The background writer: a true copy, one save at a time, and a failure that is heard of."""

import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from checkpoints import layout
from conftest import ROOT

from distributed.checkpoint import commit, manager, saver
from distributed.checkpoint.saver import Saver, copy_to_host


def variables(value=0.0):
    return [
        keras.Variable(np.full(shape, value, np.float32), name=f"v{len(shape)}") for shape in ((), (3,), (200, 300))
    ]


@pytest.fixture
def gate(monkeypatch):
    """Commits wait for ``gate.set()``; the real commit follows."""
    event, commit = threading.Event(), manager.commit

    def gated(*arguments, **named):
        assert event.wait(60)
        commit(*arguments, **named)

    monkeypatch.setattr(saver.manager, "commit", gated)
    return event


def save(writer, step, weights, **named):
    writer.save(step, weights, [], {"step": step}, **{"monitored": None, "best": False} | named)


def saved(folder, step):
    weights = {variable.path: np.asarray(variable) for variable in variables()}
    return commit.load(folder / f"step-{step:08d}", layout(weights), {}).weights


def test_the_copy_stays_what_it_was_whatever_is_done_to_the_variables():
    weights = variables()

    @tf.function
    def add_in_place():
        for weight in weights:
            weight.value.assign_add(tf.ones(weight.shape))

    copies = copy_to_host(weights)
    for weight in weights:
        weight.assign_add(tf.ones(weight.shape))
    for _ in range(3):
        add_in_place()
    assert all(np.all(np.asarray(weight) == 4) for weight in weights)
    assert copies.keys() == {weight.path for weight in weights}
    for copy in copies.values():
        assert copy.flags.owndata and copy.flags.c_contiguous and np.all(copy == 0)


def test_training_goes_on_while_a_save_is_under_way(tmp_path, gate):
    writer, weights = Saver(tmp_path, 3, lambda: None), variables()
    save(writer, 1, weights)
    for weight in weights:
        weight.assign_add(tf.ones(weight.shape))
    assert manager.committed(tmp_path) == []
    gate.set()
    writer.wait()
    assert all(np.all(array == 0) for array in saved(tmp_path, 1).values())
    assert writer.problem is None


def test_a_second_save_waits_for_the_first(tmp_path, gate):
    writer, weights = Saver(tmp_path, 3, lambda: None), variables()
    save(writer, 1, weights)
    second = threading.Thread(target=save, args=(writer, 2, weights))
    second.start()
    second.join(0.3)
    assert second.is_alive()
    gate.set()
    second.join(60)
    assert (tmp_path / "step-00000001").is_dir()
    writer.wait()
    assert [manager.step_of(path) for path in manager.committed(tmp_path)] == [1, 2]


def test_links_and_pruning_belong_to_a_save(tmp_path):
    writer = Saver(tmp_path, 1, lambda: None)
    for step, best in ((1, True), (2, False), (3, False)):
        save(writer, step, variables(), monitored={"accuracy": 0.5}, best=best)
    writer.wait()
    assert [manager.step_of(path) for path in manager.committed(tmp_path)] == [1, 3]
    assert ((tmp_path / "best").resolve().name, (tmp_path / "last").resolve().name) == (
        "step-00000001",
        "step-00000003",
    )


def test_a_failure_is_told_once_and_ends_saving(tmp_path, monkeypatch, capsys):
    told = []
    writer = Saver(tmp_path, 3, lambda: told.append(writer.problem))
    save(writer, 1, variables())
    writer.wait()
    with monkeypatch.context() as patch:
        path = str(tmp_path / "weights.safetensors")
        patch.setattr(saver.manager, "commit", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space", path)))
        save(writer, 2, variables())
        writer.wait()
    save(writer, 3, variables())
    writer.wait()
    assert len(told) == 1 and told[0] == writer.problem
    assert f"step 2 could not be saved (No space: {path})" in writer.problem and writer.problem.count("\n") == 0
    assert [manager.step_of(path) for path in manager.committed(tmp_path)] == [1]
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_in_saving_is_a_failure_with_a_traceback(tmp_path, capsys):
    told = []
    writer = Saver(tmp_path, 3, lambda: told.append(writer.problem))
    writer.save(1, variables(), [], {"not JSON": object()}, monitored=None, best=False)
    writer.wait()
    assert told and "not JSON serializable" in writer.problem and "Traceback" in capsys.readouterr().err


def test_a_process_that_ends_ends_with_its_save_complete(tmp_path):
    code = f"""
import sys, time; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from distributed.checkpoint import saver
commit = saver.manager.commit
saver.manager.commit = lambda *arguments, **named: (time.sleep(1), commit(*arguments, **named))
saver.Saver(Path({str(tmp_path)!r}), 3, print).save(1, [], [], {{}}, monitored=None, best=False)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert manager.newest(tmp_path)[0] == tmp_path / "step-00000001"
