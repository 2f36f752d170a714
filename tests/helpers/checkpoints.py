"""Small checkpoints for tests: made, read, compared and damaged."""

import hashlib
import json
import shutil

import numpy as np

from distributed.checkpoint import commit, manager
from distributed.checkpoint.commit import Checkpoint

FILES = ("weights.safetensors", "optimizer.safetensors", "state.json", "manifest.json")

STATE = {"step": 3, "decisions": {"best": 0.1 + 0.2, "epoch": None}, "name": "größe", "metrics": [[1.0, 2.5]]}


def example(value=1.0):
    generator = np.random.default_rng(0)
    weights = {
        "dense/kernel": generator.normal(size=(3, 4)).astype(np.float32) * np.float32(value),
        "double": np.arange(5) / 3,
        "special": np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45], np.float32),
        "empty": np.zeros((0, 5), np.float32),
        "seed": np.array([1, 2**32 - 1], np.uint32),
    }
    slots = {
        "iterations": np.array(2**40, np.int64),
        "scale": np.array(0.5, np.float32),
        "halted": np.array(1, np.int32),
    }
    return Checkpoint(weights, slots, STATE)


def layout(arrays):
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


def read(path, like=None):
    like = like or example()
    return commit.load(path, layout(like.weights), layout(like.optimizer))


def newest(directory):
    path, _ = manager.newest(directory)
    return path, read(path)


def same(one, other):
    for ours, theirs in ((one.weights, other.weights), (one.optimizer, other.optimizer)):
        assert ours.keys() == theirs.keys()
        for name in ours:
            a, b = ours[name], theirs[name]
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), name
    assert one.state == other.state
    return True


def forget(directory, setting):
    """Leave checkpoints as those of a version that did not know a setting."""
    for path in directory.glob("step-*"):
        state = json.loads((path / "state.json").read_text())
        del state["configuration"][setting]
        _replace_state(path, state)


def cut(run, target, step, *unknown):
    """Copy a run as it was after a kill with this step's checkpoint as the newest, which lacks these facts."""
    shutil.copytree(run, target, symlinks=True)
    for path in (target / "checkpoints").iterdir():
        if path.is_symlink():
            path.unlink()
        elif path.name > f"step-{step:08d}":
            shutil.rmtree(path)
    (target / "summary.json").unlink()
    checkpoint = target / "checkpoints" / f"step-{step:08d}"
    state = json.loads((checkpoint / "state.json").read_text())
    _replace_state(checkpoint, {name: value for name, value in state.items() if name not in unknown})


def _replace_state(path, state):
    manifest = json.loads((path / "manifest.json").read_text())
    content = json.dumps(state).encode()
    manifest["files"]["state.json"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (path / "state.json").write_bytes(content)
    (path / "manifest.json").write_text(json.dumps(manifest))


def damage(path, position, mask=0xFF):
    content = bytearray(path.read_bytes())
    content[position] ^= mask
    path.write_bytes(content)
