"""What comes out of a compiled call of many steps: the same on every worker, so that each may act on it alone."""

from typing import NamedTuple

import numpy as np

# What a worker may have to tell the others in mid-run: a signal asked it to leave (to be resumed), the user pressed
# Ctrl-C, a checkpoint could not be written.
NOTICES = ("leave", "interrupt", "save_failed")


class StepReport(NamedTuple):
    """What the host learns of k steps; all of it is the same on every worker.

    Attributes:
        losses: float32 [k, replicas], the mean loss of each replica's share of the global batch.
        notices: float32 [k, len(NOTICES)], how many workers had something to tell when the step was taken.
        halted: bool [k], whether the optimizer had refused this step or one before it, see
            ``optimization/optimizer.py``.
    """

    losses: np.ndarray
    notices: np.ndarray
    halted: np.ndarray

    @property
    def loss(self) -> np.ndarray:
        """float32 [k]: the mean loss of each step's global batch."""
        return self.losses.mean(axis=1)

    @property
    def heard(self) -> list[str]:
        """Those of ``NOTICES`` that some worker gave."""
        return [name for name, counts in zip(NOTICES, self.notices.T, strict=True) if counts.any()]
