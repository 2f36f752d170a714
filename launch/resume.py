"""Where a run begins: anew, or from a checkpoint.  The chief reads; every worker gets its answer and its weights."""

from pathlib import Path

import numpy as np

from distributed import checkpoint
from distributed.checkpoint import Checkpoint, CheckpointError
from distributed.step import LockstepModel
from distributed.strategies import Strategy
from launch.config import TrainConfig

# What a resumed run must share with the one it goes on from, and what to do where it does not.
_REMEDIES = {
    "model": "use --model {}",
    "seed": "use --seed {}",
    "global_batch": "use --global-batch-size {}",
    "steps_per_epoch": "use the same --steps-per-epoch and data",
    "dataset": "use the data the run began with",
    "optimizer": "use --optimizer {}",
}


def restore(config: TrainConfig, strategy: Strategy, model: LockstepModel, directory: Path, facts: dict) -> dict | None:
    """Load the checkpoint that ``--resume`` asks for into the chief's model and optimizer.

    Args:
        directory: the run's ``checkpoints`` folder.
        facts: what this run would write into its own checkpoints; see ``_REMEDIES``.

    Returns:
        The checkpoint's state on the chief, None where the run begins anew or on another worker.

    Raises:
        CheckpointError: if it cannot be used.
    """
    if not strategy.is_chief:
        return None
    found = find(config.resume, directory)
    if found is None:
        return None
    path, saved = found
    for fact, remedy in _REMEDIES.items():
        if saved.state[fact] != facts[fact]:
            raise CheckpointError(
                f"{path} was made with {fact.replace('_', ' ')} {saved.state[fact]}, this run has {facts[fact]}; "
                f"{remedy.format(saved.state[fact])}, or begin anew in another --run-dir"
            )
    assign(model.network.weights, saved.weights, path / "weights.safetensors")
    assign(model.optimizer.variables, saved.optimizer, path / "optimizer.safetensors")
    # A run that halted on a loss that was not finite may go on, with a lower rate for example.
    model.optimizer.halted.assign(0)
    return saved.state | {"path": str(path)}


def find(resume: str, directory: Path) -> tuple[Path, Checkpoint] | None:
    """The checkpoint to begin from, or None."""
    if resume == "never":
        if checkpoint.committed(directory):
            raise CheckpointError(
                f"{directory} has checkpoints and --resume is never; use --resume auto to go on, or another --run-dir"
            )
        return None
    found = checkpoint.latest_readable(directory)
    if found or resume == "auto":
        return found
    path = Path(resume)
    if (path / "manifest.json").exists():
        return path, checkpoint.read(path)
    found = checkpoint.latest_readable(path / "checkpoints") or checkpoint.latest_readable(path)
    if not found:
        raise CheckpointError(
            f"--resume {resume} is neither auto, never, a checkpoint nor a run with checkpoints; give one of these"
        )
    return found


def restore_best(strategy: Strategy, model: LockstepModel, directory: Path) -> None:
    """Give every replica the weights of the best epoch's checkpoint; without one, leave them as they are."""
    best = directory / "best"
    if strategy.is_chief and best.exists():
        assign(model.network.weights, checkpoint.read(best).weights, best)
    strategy.broadcast(model.network.variables)


def assign(variables: list, arrays: dict[str, np.ndarray], source: Path) -> None:
    """Set variables by name, after all names and shapes were compared."""
    for variable in variables:
        array = arrays.get(variable.path)
        if array is None or array.shape != tuple(variable.shape):
            have = "nothing" if array is None else f"shape {list(array.shape)}"
            raise CheckpointError(
                f"{source} has {have} for {variable.path}, but the model needs {list(variable.shape)}; "
                "resume with the settings the run began with"
            )
    for variable in variables:
        variable.assign(arrays[variable.path])
