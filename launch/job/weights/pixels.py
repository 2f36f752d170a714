"""How a run scales pixels: as its weights were trained.

A network that gets its pixels in another way than it has learnt them trains on, from a worse start, and nobody is told.
"""

import json
import os
from pathlib import Path

from launch.job.config import TrainConfig
from launch.job.weights.stored import WeightsError
from models import MODELS, applications

DEFAULT = "tf"  # of the networks of models/


def choose(config: TrainConfig, own_model: bool, checkpoint: Path | None) -> str | None:
    """What ``pixels`` of a run is: as the settings say, else as the run that its weights come from had them.

    Args:
        own_model: whether the network is the user's.
        checkpoint: that the run is about to go on from, if any.

    Raises:
        WeightsError: both are known, and differ.
    """
    if checkpoint is not None:
        return _kept(config, own_model, checkpoint)
    if config.weights is None or not os.path.isdir(path := Path(config.weights)):
        return config.pixels
    # Only where it is needed: runs that begin otherwise do without the programs' part.
    from launch.trained import load

    found = load.find(path)
    # A network that came as a Python object has another name than the settings have.
    return of_weights(config, own_model, found.config, found.record.model != found.config.model)


def of_weights(config: TrainConfig, own_model: bool, before: TrainConfig, its_own: bool) -> str | None:
    """What ``pixels`` of a run is that begins with the weights of the run ``before``; see ``choose``.

    Args:
        its_own: whether that one's network was the user's.
    """
    was, now = _way(before, its_own), _way(config, own_model)
    if was is None or was == now:
        return config.pixels
    if config.pixels is None and not own_model and config.model in MODELS:
        return was
    if now is None:
        return None
    mend = "use another network" if config.model.startswith(applications.PREFIX) else f"give --pixels {was}"
    raise WeightsError(f"--weights {config.weights} were trained on pixels {was}, this run has {now}; {mend}")


def _way(config: TrainConfig, own_model: bool) -> str | None:
    """How a run scales pixels; None where its network alone knows."""
    if not own_model and config.model.startswith(applications.PREFIX):
        return applications.pixels(config.model.removeprefix(applications.PREFIX))
    return config.pixels if own_model or config.model not in MODELS else config.pixels or DEFAULT


def _kept(config: TrainConfig, own_model: bool, checkpoint: Path) -> str | None:
    """As the run began; what is wrong with its checkpoint otherwise is said where it is loaded."""
    try:
        was = json.loads((checkpoint / "state.json").read_text())["configuration"].get("pixels")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return config.pixels
    if config.pixels in (None, was) or (not own_model and config.pixels == (was or DEFAULT)):
        return was
    before, mend = f"pixels {was or DEFAULT}", f"give --pixels {was or DEFAULT}"
    if was is None and own_model:
        before, mend = "pixels that the network scales itself", "leave --pixels out"
    raise WeightsError(
        f"{checkpoint} was trained on {before}, this run has {config.pixels}; {mend}, or begin anew in another "
        "--run-dir"
    )
