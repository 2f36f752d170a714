"""What a run leaves, and where it begins."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from launch.job.settings.base import Count, Positive, Settings


class FileSettings(Settings):
    """What a run leaves, and where it begins."""

    run_dir: Path | None = None
    """Where the run's files go; default: runs/<model>-<dataset>-<time>."""
    resume: str = "auto"
    """auto: go on from run-dir's newest checkpoint; never: refuse a run-dir that has one; PATH: begin from that
    checkpoint, with its optimizer, step and decisions, as long as run-dir has none of its own. For new data or another
    network there is --weights."""
    data_changed: Literal["refuse", "accept"] = "refuse"
    """Going on with other data than before: refuse, or accept and say what differs."""
    checkpoint_every_steps: Positive | None = None
    """Also save a checkpoint every so many steps, not only at the end of each epoch."""
    keep_checkpoints: Positive = 3
    """How many checkpoints to keep besides the best one."""
    log_every_steps: Positive = 10
    """Steps between two points of the per-step TensorBoard curves."""
    histogram_epochs: Count = 0
    """Epochs between two weight histograms in TensorBoard; 0: none."""
    profile_steps: tuple[Positive, Positive] | None = None
    """A,B: trace steps A to B for TensorBoard's profiler."""
    verbose: bool = False
    """Show what TensorFlow and Open MPI print at start-up."""


def problems(c) -> Iterator[str]:
    """Sentences about settings that do not go together; ``c`` is the whole ``TrainConfig``."""
    if c.profile_steps and c.profile_steps[0] > c.profile_steps[1]:
        yield (
            f"--profile-steps {c.profile_steps[0]},{c.profile_steps[1]} runs backwards; "
            "give the first step, then the last"
        )
