"""Commit a checkpoint so that a crash at any instruction loses nothing.

A checkpoint is a directory ``step-XXXXXXXX``: tensors as safetensors, everything else as ``state.json``, and a
``manifest.json`` with the size and SHA-256 of each file.  It is written under a temporary name beside the others:
files, each
flushed to disk; the manifest; the directory; and only then renamed to its name, so that a directory that bears a
checkpoint's name is complete.  No committed checkpoint is ever written to.  Nothing is unpickled.  No TensorFlow in
here.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

_FILES = {"weights.safetensors", "optimizer.safetensors", "state.json"}
_NAME = re.compile(r"step-(\d{8})")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; its message is one sentence. It ends the run with exit code 2."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: named float arrays of the model and of the optimizer, and a JSON state."""

    weights: dict[str, np.ndarray]
    optimizer: dict[str, np.ndarray]
    state: dict


def write(directory: Path, step: int, checkpoint: Checkpoint) -> Path:
    """Commit ``checkpoint`` as ``directory/step-XXXXXXXX`` and return that path; an equal name is left as it is."""
    target = directory / f"step-{step:08d}"
    if target.exists():
        try:
            read(target)
            return target
        except CheckpointError:
            # The run fell back behind a damaged one and comes by again: what nobody can read makes room.
            shutil.rmtree(target)
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".writing-{target.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_file(_contiguous(checkpoint.weights), temporary / "weights.safetensors")
    save_file(_contiguous(checkpoint.optimizer), temporary / "optimizer.safetensors")
    _write_json(temporary / "state.json", checkpoint.state)
    files = {}
    for path in sorted(temporary.iterdir()):
        _flush(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    _write_json(temporary / "manifest.json", {"format": 1, "step": step, "files": files})
    _flush(temporary / "manifest.json")
    _flush(temporary)
    os.rename(temporary, target)
    _flush(directory)
    return target


def read(path: Path) -> Checkpoint:
    """Load a checkpoint and verify it against its manifest.

    Raises:
        CheckpointError: if a file is missing or is not what was written.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        if manifest["files"].keys() != _FILES:
            raise CheckpointError(f"{path}/manifest.json does not list a checkpoint's files; resume from another one")
        for name, expected in manifest["files"].items():
            if (path / name).stat().st_size != expected["bytes"] or _sha256(path / name) != expected["sha256"]:
                raise CheckpointError(
                    f"{path / name} is not the file that was saved (its SHA-256 differs); "
                    "resume from another checkpoint"
                )
        state = json.loads((path / "state.json").read_text())
        return Checkpoint(load_file(path / "weights.safetensors"), load_file(path / "optimizer.safetensors"), state)
    except CheckpointError:
        raise
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{path} is not a complete checkpoint ({error}); resume from another one") from error


def committed(directory: Path) -> list[Path]:
    """All committed checkpoints of a run, oldest first."""
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())


def step_of(path: Path) -> int:
    """The number of steps that were taken before the checkpoint."""
    return int(_NAME.fullmatch(path.name)[1])


def latest_readable(directory: Path) -> tuple[Path, Checkpoint] | None:
    """The newest checkpoint that verifies, or None if the run has none yet.

    Raises:
        CheckpointError: if there are checkpoints but none can be read; starting over silently would lose the run.
    """
    paths, problems = committed(directory), []
    for path in reversed(paths):
        try:
            return path, read(path)
        except CheckpointError as error:
            problems.append(error)
    if paths:
        raise CheckpointError(f"none of the {len(paths)} checkpoints in {directory} can be read: {problems[0]}")
    return None


def prune(directory: Path, keep: int, best: Path | None) -> None:
    """Delete all but the last ``keep`` checkpoints and the best one, and what a killed writer left behind."""
    # By name, since one path may be relative and another not.
    kept = {path.name for path in (*committed(directory)[-keep:], best) if path}
    for path in [*committed(directory), *directory.glob(".writing-*")]:
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


def point(link: Path, target: Path) -> None:
    """Make the relative symbolic link ``link`` name ``target``, at once."""
    temporary = link.with_name(f".{link.name}-new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target.name)
    os.replace(temporary, link)


def _contiguous(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    # safetensors writes the memory behind a view, not the view.
    return {name: np.asarray(array, order="C") for name, array in arrays.items()}


def _write_json(path: Path, value: Mapping) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
