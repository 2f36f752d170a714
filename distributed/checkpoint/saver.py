"""The chief's background writer: training goes on while a checkpoint goes to the disk.  No TensorFlow in here."""

import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from distributed.checkpoint import manager
from distributed.checkpoint.commit import Checkpoint, CheckpointError


class Saver:
    """Commits checkpoints from copies of the variables, one at a time, in a thread of its own."""

    def __init__(self, directory: Path, keep: int, on_failure: Callable[[], None]):
        """
        Args:
            directory: where checkpoints go.
            keep: how many to keep besides the best one.
            on_failure: called in the writer's thread when a save has failed; ``problem`` is set by then.
        """
        self.directory, self.keep, self.on_failure = directory, keep, on_failure
        self.problem: str | None = None
        self._thread: threading.Thread | None = None

    def save(
        self, step: int, weights: Sequence, optimizer: Sequence, state: dict, *, monitored: dict | None, best: bool
    ) -> None:
        """Wait for the save before this one, copy the variables, and begin to write; after a failure, do nothing.

        Args:
            weights: Keras variables, all with paths of their own; likewise ``optimizer``.
            state: a JSON value that nobody changes any more.
            monitored: see ``checkpoint.write``; likewise ``best``.
        """
        self.wait()
        if self.problem:
            return
        copy = Checkpoint(copy_to_host(weights), copy_to_host(optimizer), state)
        # Not a daemon: a process that ends in its own time ends with the save complete.
        self._thread = threading.Thread(target=self._commit, args=(step, copy, monitored, best), name="checkpoint")
        self._thread.start()

    def refuse(self, problem: str) -> None:
        """From now on nothing may be saved, for a reason of its own; from any thread."""
        self.problem = problem
        self.on_failure()

    def wait(self) -> None:
        """Return when no save is in flight."""
        if self._thread:
            self._thread.join()
            self._thread = None

    def _commit(self, step: int, copy: Checkpoint, monitored: dict | None, best: bool) -> None:
        try:
            manager.commit(self.directory, step, copy, keep=self.keep, monitored=monitored, best=best)
        except Exception as error:
            if isinstance(error, OSError):
                cause = f"{error.strerror}: {error.filename or self.directory}"
            else:
                cause = str(error).partition(";")[0]
            if not isinstance(error, (OSError, CheckpointError)):
                traceback.print_exc()
            self.problem = (
                f"the checkpoint of step {step} could not be saved ({cause}); the one before it is untouched: mend "
                "that and run the same command again"
            )
            self.on_failure()


def copy_to_host(variables: Sequence) -> dict[str, np.ndarray]:
    """Copies of Keras variables by path, in memory of their own, whatever is done to the variables afterwards."""
    return {variable.path: np.require(np.asarray(variable), requirements=("C", "OWNDATA")) for variable in variables}
