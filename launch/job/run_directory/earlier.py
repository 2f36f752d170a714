"""What a run of an earlier version did where there is a choice now: it goes on with that, unless told otherwise."""

import json
from pathlib import Path

from launch.job.config import TrainConfig


def settings_of(configuration: dict) -> dict:
    """The settings that a checkpoint's configuration leaves out, and that were not at their default of today."""
    before = {} if "exif" in configuration else {"exif": "ignore"}
    if configuration.get("weight_decay") and "decay_all" not in configuration:
        before["decay_all"] = True  # it used to act on all variables
    return before


def inherited(config: TrainConfig, checkpoint: Path | None) -> dict:
    """The settings that a run takes over from the checkpoint that it is about to go on from, if any; how files become
    pixels is kept by ``stages.keep_decoding``."""
    if checkpoint is None or not config.weight_decay or "decay_all" in config.model_fields_set:
        return {}
    try:
        before = settings_of(json.loads((checkpoint / "state.json").read_text())["configuration"])
        return {name: value for name, value in before.items() if name == "decay_all"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # what is wrong with it is said where it is loaded
