"""A run as those use it who come after training: what its network takes and answers, and the network itself.

>>> from launch.trained import load_run
>>> network, record = load_run("runs/one")
>>> network.predict(pixels)                        # uint8 [b, s, s, 3] -> probabilities [b, classes]
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launch.trained.load import TrainedRun


def load_run(
    path: str | Path, *, checkpoint: str = "best", precision: str | None = None, logits: bool = False
) -> "TrainedRun":
    """Load what a run has learnt.

    Args:
        path: a run directory, or one of its checkpoints.
        checkpoint: ``best`` (the last one where no validation has judged them), ``last``, or the path of one.
        precision: ``float32`` rebuilds a network of 16 bits in float32; None leaves it as it was trained.
        logits: give what the network was trained to give, [b, classes] or, for two classes, [b, 1].

    Returns:
        ``(network, record)``: plain Keras, uint8 pixels [b, s, s, 3] -> float32 probabilities [b, classes]; and the
        class names with all that turns a file into these pixels.

    Raises:
        ValueError: one sentence: what is missing or does not fit.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from launch.job import environment
    from launch.job.environment import leftovers

    leftovers.overrule(os.environ)
    with environment.loading(quiet=True):
        from launch.trained import load
    return load.load_run(path, checkpoint=checkpoint, precision=precision, logits=logits)
