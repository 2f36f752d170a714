"""How many examples make a step, and how many steps a run."""

from collections.abc import Iterator
from typing import Literal

from launch.job.settings.base import Positive, Settings


class BatchSettings(Settings):
    """How many examples make a step, and how many steps a run."""

    epochs: Positive = 6
    """Passes over the training examples."""
    steps_per_epoch: Positive | None = None
    """Cap on the steps of an epoch."""
    steps_per_call: Literal["auto"] | Positive = "auto"
    """Optimizer steps that one compiled call takes at most; auto: as many as fit into a tenth of a second. No result
    depends on it."""
    batch_size: Positive | None = None
    """Examples per replica and micro-batch (64 if neither batch size is given)."""
    global_batch_size: Positive | None = None
    """Examples per optimizer step of the whole run; must divide by replicas x accumulate-steps."""
    accumulate_steps: Positive = 1
    """Micro-batches that a replica adds up before each optimizer step."""
    micro_batch_size: Positive | None = None
    """Examples that a replica computes at a time; accumulate-steps follows. With deterministic: the same bits for any
    number of workers."""


def problems(c) -> Iterator[str]:
    """Sentences about settings that do not go together; ``c`` is the whole ``TrainConfig``."""
    if c.batch_size and c.global_batch_size:
        yield (
            f"--batch-size {c.batch_size} and --global-batch-size {c.global_batch_size} were both given; "
            "give one of them"
        )
    if c.micro_batch_size and not c.global_batch_size:
        batch = f"not --batch-size {c.batch_size}" if c.batch_size else "which was not given"
        yield (
            f"--micro-batch-size {c.micro_batch_size} cuts the global batch, {batch}; give --global-batch-size, or "
            "--micro-batch-size none"
        )
    if c.micro_batch_size and c.accumulate_steps > 1:
        yield (
            f"--micro-batch-size {c.micro_batch_size} and --accumulate-steps {c.accumulate_steps} were both given; "
            "the second follows from the first, leave it out"
        )
