"""Whether a run may go on from a checkpoint: what each says about itself, what must be equal, what has changed."""

import hashlib
import json
from pathlib import Path

from distributed.checkpoint.commit import CheckpointError
from distributed.strategies import Strategy
from launch.job import identity
from launch.job.config import TrainConfig
from launch.job.preparation.batch_plan import DEFAULT_WARMUP, BatchPlan
from launch.job.run_directory import earlier
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
        "versions": identity.versions(),
        "files": dict(code.sha256),
        "record": record.as_json(),
        "configuration": settings,
        "configuration_sha256": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
    }


def check(path: Path, state: dict, facts: dict, plan: BatchPlan) -> None:
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


def changes(state: dict, facts: dict) -> list[str]:
    """What is not as it was, in words."""
    changed = []
    if (state["strategy"], state["replicas"]) != (facts["strategy"], facts["replicas"]):
        counts = [value["replicas"] for value in (state, facts)]
        names = [value["strategy"] for value in (state, facts)]
        was, now = (f"{n} worker{'s' * (n > 1)} ({name})" for n, name in zip(counts, names, strict=True))
        changed.append(f"was {was}, now {now}")
    if state["peak_learning_rate"] != facts["peak_learning_rate"]:
        changed.append(f"was learning rate {state['peak_learning_rate']:.4g}, now {facts['peak_learning_rate']:.4g}")
    if state["configuration_sha256"] != facts["configuration_sha256"]:
        now = facts["configuration"]
        # A setting that was not there yet is at what was done then.
        defaults = TrainConfig().model_dump(mode="json", include=set(now))
        before = defaults | earlier.settings_of(state["configuration"]) | state["configuration"]
        if "warmup_from" not in state and now["warmup_epochs"] is None and before["warmup_epochs"] == DEFAULT_WARMUP:
            before["warmup_epochs"] = None  # what the default was called
        changed += [
            f"was --{name.replace('_', '-')} {before.get(name)}, now {now.get(name)}"
            for name in {**before, **now}
            if before.get(name) != now.get(name)
        ]
    files = state.get("files", {})
    changed += [
        f"the file of --{flag} (SHA-256 was {files[flag][:12]}, now {digest[:12]})"
        for flag, digest in facts["files"].items()
        if files.get(flag, digest) != digest
    ]
    changed += [
        f"was {name} {before}, now {facts['versions'][name]}"
        for name, before in state["versions"].items()
        if before != facts["versions"].get(name)
    ]
    return changed
