"""What a run of an earlier version did where there is a choice now: it goes on with that, unless told otherwise."""

import json
from pathlib import Path

from launch.job.config import TrainConfig


def settings_of(configuration: dict) -> dict:
    """The settings that a checkpoint's configuration leaves out, and that were not at their default of today."""
    # Weight decay used to act on all variables.
    return {"decay_all": True} if configuration.get("weight_decay") and "decay_all" not in configuration else {}


def inherited(config: TrainConfig, checkpoint: Path | None) -> dict:
    """The settings that a run takes over from the checkpoint that it is about to go on from, if any."""
    if checkpoint is None or not config.weight_decay or "decay_all" in config.model_fields_set:
        return {}
    try:
        return settings_of(json.loads((checkpoint / "state.json").read_text())["configuration"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # what is wrong with it is said where it is loaded
