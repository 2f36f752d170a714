"""How gradients of dense layers travel in this run: measured once per set of workers, said aloud, kept with the run."""

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from distributed.gradients.cost_model import Calibration, Choice, Line, calibrate
from distributed.strategies import Strategy
from launch.job.config import TrainConfig

FILE = "exchange.json"


@dataclass(frozen=True)
class Measured:
    """A measurement, and the set of workers that it holds for, as a JSON value."""

    workers: dict
    calibration: Calibration


def measure(config: TrainConfig, strategy: Strategy, directory: Path, threads: int) -> Measured | None:
    """Measure what ``--exchange auto`` decides by, or read what ``directory/exchange.json`` has of these workers.

    Returns:
        None where nothing is to be measured: one process, a choice by flag, or ``--deterministic``, since a choice that
        hangs on a measurement would not be the same in every run.
    """
    if strategy.shares_memory or config.exchange != "auto" or config.deterministic:
        return None
    workers = {"hosts": strategy.control.gather(strategy.world.host), "threads": threads, "dtype": config.precision}
    kept = strategy.control.agree(_read(directory / FILE, workers) if strategy.is_chief else None)
    if kept is not None:
        return Measured(workers, Calibration(**{name: Line(**line) for name, line in kept.items()}))
    return Measured(workers, calibrate(strategy, config.precision))


def keep(measured: Measured | None, directory: Path) -> None:
    """Leave the measurement in ``directory`` for the next run; call it on the chief."""
    # It only saves a second: a folder that cannot be written is not this file's to complain about.
    with contextlib.suppress(OSError):
        if measured is not None:
            (directory / FILE).write_text(json.dumps(asdict(measured), indent=1) + "\n")


def sentence(choices: dict[str, Choice]) -> str:
    """Who travels how, and the bytes per step."""
    if not choices:
        return "exchange: all gradients summed; there is no dense layer to train"
    ways = []
    for scheme, words in (("split", "split between the workers"), ("factors", "by factors"), ("allreduce", "summed")):
        if names := [name for name, choice in choices.items() if choice.scheme == scheme]:
            ways.append(f"{', '.join(names)} {words}")
    used, summed = (
        sum(getattr(choice, field) for choice in choices.values()) / 1e6 for field in ("bytes", "allreduce_bytes")
    )
    return (
        f"exchange: {'; '.join(ways)}; {used:,.1f} MB per step and replica for dense layers "
        f"instead of {summed:,.1f} MB all summed"
    )


def _read(path: Path, workers: dict) -> dict | None:
    try:
        kept = json.loads(path.read_text())
        return kept["calibration"] if kept["workers"] == workers else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
