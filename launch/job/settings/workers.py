"""How the work is done, and by whom."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from launch.job.settings.base import Count, Positive, Settings


class WorkerSettings(Settings):
    """How the work is done, and by whom."""

    strategy: Literal["auto", "single", "mirrored", "horovod"] = "auto"
    """How to run; auto: several processes -> horovod, several GPUs -> mirrored, else single."""
    cpu: bool = False
    """Compute on the CPU, also where there is a GPU; without it, a GPU that TensorFlow cannot use ends the run."""
    cpu_devices: Positive | None = None
    """Split the CPU into this many devices, for mirrored where there is no GPU."""
    seed: Count = 0
    """Decides weights, order, augmentation, dropout and the validation split."""
    deterministic: bool = False
    """Bit-identical reruns at the same worker count; with micro-batch-size at any."""
    tf32: Literal["auto", "on", "off"] = "auto"
    """Whether a GPU may multiply float32 with 10 bits of its 23 (TensorFloat-32), which is faster; auto: unless
    deterministic. CPUs never do."""
    exchange: Literal["auto", "allreduce", "factors", "split"] = "auto"
    """How gradients of dense layers travel: summed, or as the factors they are the product of, or not at all, where two
    layers are split between the workers; auto: whichever is cheaper."""
    compression: Literal["none", "fp16"] = "none"
    """fp16: gradients that are summed travel as float16, half the bytes; an approximation."""
    check_replicas: Count | None = None
    """Steps between two comparisons of weights and optimizer state over all replicas; default: each epoch; 0: never."""
    hang_timeout: Annotated[float, Field(ge=0)] = 300.0
    """Seconds without a sign of life, besides three times what its steps took so far, after which a rank that hangs is
    ended, with all others; 0: never."""


def problems(c) -> Iterator[str]:
    """Sentences about settings that do not go together; ``c`` is the whole ``TrainConfig``."""
    if c.exact and c.compression != "none":
        yield (
            f"--compression {c.compression} approximates gradients, but --deterministic with --micro-batch-size asks "
            "for the same bits on any number of workers; leave one of them out"
        )
    if c.cpu_devices and c.strategy not in ("auto", "mirrored"):
        yield (
            f"--cpu-devices {c.cpu_devices} belongs to the mirrored strategy, not to {c.strategy}; "
            "use --strategy mirrored"
        )
