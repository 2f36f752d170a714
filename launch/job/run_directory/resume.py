"""Where a run begins.  The chief reads; every worker gets its answer and its weights.

1. The run directory has a checkpoint: go on from the newest one that can be read.
2. ``--resume PATH``: go on from that checkpoint, of another run with the same data and settings.
3. ``--weights PATH``: at step 0, with these weights wherever they fit (``launch/job/weights/begin.py``).
4. Otherwise: at step 0, from the weights that the seed decides.
"""

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data import Splits
from distributed.checkpoint import commit, manager
from distributed.checkpoint.commit import CheckpointError
from distributed.checkpoint.tensor_files import Layout
from distributed.control import together
from distributed.model import LockstepModel
from distributed.strategies import Strategy
from launch.job.config import TrainConfig
from launch.job.preparation.batch_plan import BatchPlan
from launch.job.run_directory import compatibility, data_changes


def restore(
    config: TrainConfig,
    plan: BatchPlan,
    strategy: Strategy,
    model: LockstepModel,
    directory: Path,
    facts: dict,
    splits: Splits,
) -> dict | None:
    """Load the checkpoint that ``--resume`` asks for into the chief's model and optimizer.

    Args:
        directory: the run's ``checkpoints`` folder.
        facts: what this run would write into its own checkpoints; see ``compatibility.describe``.
        splits: the run's data.

    Returns:
        On the chief the checkpoint's state, with its ``path``, ``notes`` (lines for the user), ``reported`` (whether
        the run's summary stands at the same step) and ``validates_others`` (than then); None where the run begins anew,
        and on another worker.

    Raises:
        CheckpointError: if it cannot be used.
    """
    if not strategy.is_chief:
        return None
    path, problems = find(config.resume, directory)
    if path is None:
        return None
    weights, optimizer = model.network.weights, model.optimizer.variables
    data: list[str] = []

    def accept(state: dict) -> None:
        compatibility.check(path, state, facts, plan)
        accepted = config.data_changed == "accept"
        data.extend(data_changes.check(path, state, facts, splits, config.data_dir, accepted=accepted))

    saved = commit.load(path, _layout(weights), _layout(optimizer), accept=accept)
    state = saved.state
    for variables, arrays in ((weights, saved.weights), (optimizer, saved.optimizer)):
        for variable in variables:
            variable.assign(arrays[variable.path])
    # A run that halted on a loss that was not finite may go on, with a lower rate for example.
    model.optimizer.halted.assign(0)
    if state["configuration"]["precision"] != config.precision:
        model.optimizer.begin_scaling()
    notes = [f"warning: {problem.partition(';')[0]}; going on from {path.name}" for problem in problems]
    if changes := compatibility.changes(state, facts):
        notes.append(f"changed since {path.name}: {'; '.join(changes)}")
    if data:
        notes.append(f"the data has changed, from epoch {state['epoch'] + 1} on: {'; '.join(data)}")
    others = "data" in state and state["data"]["val"] != facts["data"]["val"]
    if others:
        notes.append("validation has changed: best, patience and plateau begin anew")
    reported = _reported(directory.parent, state["step"])
    return state | {"path": str(path), "notes": notes, "reported": reported, "validates_others": others}


def began_with(resume: str, directory: Path) -> dict | None:
    """How the run that would be gone on from makes pixels of files, as its record says; {} where it says nothing.

    None on a run that begins anew, or whose checkpoints ``restore`` will refuse.
    """
    for place in _places(resume, directory):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError, AttributeError):
            return commit.read_json(place / "state.json").get("record", {}).get("pixels", {})
    return None


class Earlier(NamedTuple):
    """The checkpoint that a run would go on from: its state, and the run directory that it lies in."""

    state: dict
    run: Path


def peek(resume: str, run_dir: Path | None) -> Earlier | None:
    """What ``restore`` would go on from, before the run directory is taken: nothing is touched.

    None on a run that begins anew, or whose checkpoints ``restore`` will refuse.
    """
    if run_dir is None and resume in ("auto", "never"):
        return None
    for place in _places(resume, run_dir and run_dir / "checkpoints"):
        with contextlib.suppress(OSError, ValueError, RecursionError):
            state = commit.read_json(place / "state.json")
            if isinstance(state, dict):
                return Earlier(state, data_changes.run_of(place))
    return None


def _places(resume: str, directory: Path | None) -> list[Path]:
    """Where the newest checkpoint may lie, the likeliest first."""
    try:
        own = directory is not None and (resume in ("auto", "never") or bool(manager.committed(directory)))
        path = directory if own else Path(resume)
        return [*reversed(manager.committed(path)), *reversed(manager.committed(path / "checkpoints")), path]
    except OSError:
        return []


def has_thawed(config: TrainConfig, strategy: Strategy, directory: Path) -> bool | None:
    """On the chief, whether the checkpoint that ``restore`` will load was made after frozen layers had thawed."""
    if not strategy.is_chief or config.unfreeze_epoch is None:
        return None
    path, _ = find(config.resume, directory)
    if path is None:
        return False
    try:
        state = commit.read_json(path / "state.json")
        return isinstance(state, dict) and state.get("thawed", False) is True
    except (OSError, ValueError, RecursionError):
        return False  # what is wrong with it, restore says


def find(resume: str, directory: Path) -> tuple[Path | None, list[str]]:
    """The checkpoint to begin from, or None; and why newer ones were passed over."""
    manager.recover(directory)
    if resume == "never":
        if manager.committed(directory):
            raise CheckpointError(
                f"{directory} has checkpoints and --resume is never; use --resume auto to go on, or another --run-dir"
            )
        return None, []
    found = manager.newest(directory)
    if resume == "auto":
        return found
    # A path the user names may be a link, such as checkpoints/best.
    path = Path(resume).resolve()
    if found[0]:
        if path.parent == directory.resolve() and path.name < found[0].name:
            raise CheckpointError(
                f"--resume {resume} is a checkpoint of this very run, which goes on from its newest, {found[0].name}; "
                "to begin from that one, name another --run-dir"
            )
        return found
    if os.path.exists(path / "manifest.json"):
        return path, []
    for place in (path / "checkpoints", path):
        found = manager.newest(place)
        if found[0]:
            return found
    raise CheckpointError(
        f"--resume {resume} is neither auto, never, a checkpoint nor a run with checkpoints; give one of these"
    )


def restore_best(strategy: Strategy, model: LockstepModel, directory: Path, step: int) -> bool:
    """Give every replica the weights of the best epoch's checkpoint; without one, leave them as they are.

    Args:
        step: leave out checkpoints after it.

    Returns:
        Whether there was one.

    Raises:
        WorldError: on all workers, if it cannot be read.
    """

    def read():
        path = manager.find_best(directory, step) if strategy.is_chief else None
        if path:
            arrays = commit.load(path, _layout(model.network.weights)).weights
            for variable in model.network.weights:
                variable.assign(arrays[variable.path])
        return path is not None

    found = strategy.control.agree(together(strategy.control, (CheckpointError,), read))
    if found:
        strategy.broadcast(model.network.variables)
    return found


def _reported(directory: Path, step: int) -> bool:
    """Whether the run has left its summary: a kill may have come between the last checkpoint and that."""
    try:
        facts = json.loads((directory / "summary.json").read_text())
        return facts["steps"] == step and facts["stopped_by"] in ("epochs", "early_stopping")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _layout(variables: Sequence) -> Layout:
    return {variable.path: (tuple(variable.shape), np.dtype(variable.dtype)) for variable in variables}
