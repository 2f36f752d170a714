"""Where a run begins.  The chief reads; every worker gets its answer and its weights.

1. The run directory has a checkpoint: go on from the newest one that can be read.
2. ``--resume PATH``: go on from that checkpoint, of another run with the same data and settings.
3. ``--weights PATH``: at step 0, with these weights wherever they fit (``launch/job/weights/begin.py``).
4. Otherwise: at step 0, from the weights that the seed decides.
"""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data import Splits
from distributed.checkpoint import commit, manager
from distributed.checkpoint.commit import CheckpointError
from distributed.checkpoint.tensor_files import Layout
from distributed.control import together
from distributed.model import LockstepModel
from distributed.strategies import Strategy
from launch.job.config import TrainConfig
from launch.job.logs import report
from launch.job.preparation.batch_plan import DEFAULT_WARMUP, BatchPlan
from launch.job.run_directory import data_changes, earlier
from launch.job.user.given import UserCode
from launch.trained.record import Record

# What a resumed run must share with the one it goes on from, and what to do where it does not.
_REMEDIES = {
    "model": "use --model {}",
    "seed": "use --seed {}",
    "optimizer": "use --optimizer {}",
}


def describe(
    config: TrainConfig, plan: BatchPlan, strategy: Strategy, record: Record, code: UserCode, data: dict
) -> dict:
    """What every checkpoint says about the run that made it; ``data`` is of ``data_changes.describe``."""
    settings = config.model_dump(mode="json", exclude={"run_dir", "resume", "data_changed", "reindex"})
    return {
        "model": code.model_name(config),
        "seed": config.seed,
        "optimizer": config.optimizer,
        "global_batch": plan.global_batch,
        "base_batch": plan.schedule.base_batch,
        "peak_learning_rate": plan.schedule.peak,
        "warmup_from": plan.schedule.warmup_from,
        "steps_per_epoch": plan.steps_per_epoch,
        "dataset": record.data_sha256,
        "data": data,
        "strategy": strategy.name,
        "world_size": strategy.world.size,
        "replicas": plan.replicas,
        "versions": report.versions(),
        "files": dict(code.sha256),
        "record": record.as_json(),
        "configuration": settings,
        "configuration_sha256": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
    }


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
        facts: what this run would write into its own checkpoints; see ``describe``.
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
        _compare(path, state, facts, plan)
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
    if changes := _changes(state, facts):
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
    path = directory if resume in ("auto", "never") or manager.committed(directory) else Path(resume)
    places = [*reversed(manager.committed(path)), *reversed(manager.committed(path / "checkpoints")), path]
    for place in places:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError, AttributeError):
            return commit.read_json(place / "state.json").get("record", {}).get("pixels", {})
    return None


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
    if (path / "manifest.json").exists():
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


def _compare(path: Path, state: dict, facts: dict, plan: BatchPlan) -> None:
    """Raise ``CheckpointError`` where this run cannot be the continuation of that one."""
    try:
        if state["global_batch"] != facts["global_batch"]:
            batch, base = state["global_batch"], state["base_batch"]
            micro, rest = divmod(batch, plan.replicas * plan.accumulate)
            ways = f"--global-batch-size {batch}" + ("" if rest else f" or --batch-size {micro}")
            raise CheckpointError(
                f"{path} was made with global batch {batch}, this run has {facts['global_batch']}; go on with {ways} "
                f"(and --base-batch-size {base} for the same learning rates), or begin anew in another --run-dir"
            )
        for fact, remedy in _REMEDIES.items():
            if state[fact] != facts[fact]:
                raise CheckpointError(
                    f"{path} was made with {fact.replace('_', ' ')} {state[fact]}, this run has {facts[fact]}; "
                    f"{remedy.format(state[fact])}, or begin anew in another --run-dir"
                )
        was, now = (",".join(value["configuration"]["metrics"]) for value in (state, facts))
        if was != now and state["metrics"] is not None:
            raise CheckpointError(
                f"{path} lies within an epoch that was measured by --metrics {was}, this run has {now}; "
                f"use --metrics {was}, or begin anew in another --run-dir"
            )
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} has no {error} in its state; begin anew in another --run-dir") from error


def _changes(state: dict, facts: dict) -> list[str]:
    """What is not as it was, in words."""
    changes = []
    if (state["strategy"], state["replicas"]) != (facts["strategy"], facts["replicas"]):
        counts = [value["replicas"] for value in (state, facts)]
        names = [value["strategy"] for value in (state, facts)]
        was, now = (f"{n} worker{'s' * (n > 1)} ({name})" for n, name in zip(counts, names, strict=True))
        changes.append(f"was {was}, now {now}")
    if state["peak_learning_rate"] != facts["peak_learning_rate"]:
        changes.append(f"was learning rate {state['peak_learning_rate']:.4g}, now {facts['peak_learning_rate']:.4g}")
    if state["configuration_sha256"] != facts["configuration_sha256"]:
        now = facts["configuration"]
        # A setting that was not there yet is at what was done then.
        defaults = TrainConfig().model_dump(mode="json", include=set(now))
        before = defaults | earlier.settings_of(state["configuration"]) | state["configuration"]
        if "warmup_from" not in state and now["warmup_epochs"] is None and before["warmup_epochs"] == DEFAULT_WARMUP:
            before["warmup_epochs"] = None  # what the default was called
        changes += [
            f"was --{name.replace('_', '-')} {before.get(name)}, now {now.get(name)}"
            for name in {**before, **now}
            if before.get(name) != now.get(name)
        ]
    files = state.get("files", {})
    changes += [
        f"the file of --{flag} (SHA-256 was {files[flag][:12]}, now {digest[:12]})"
        for flag, digest in facts["files"].items()
        if files.get(flag, digest) != digest
    ]
    changes += [
        f"was {name} {before}, now {facts['versions'][name]}"
        for name, before in state["versions"].items()
        if before != facts["versions"].get(name)
    ]
    return changes
