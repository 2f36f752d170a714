"""How gradients of dense layers travel in this run: measured once per set of workers, said aloud, kept with the run."""

import contextlib
import json
from dataclasses import asdict
from pathlib import Path

from distributed.planner import Calibration, Choice, Line, calibrate
from distributed.strategies import Strategy
from launch.config import TrainConfig


def measure(config: TrainConfig, strategy: Strategy, directory: Path, threads: int) -> Calibration | None:
    """Measure what ``--exchange auto`` decides by, or read what ``directory/exchange.json`` has of these workers.

    Returns:
        None where nothing is to be measured: one process, a choice by flag, or ``--deterministic``, since a choice that
        hangs on a measurement would not be the same in every run.
    """
    if strategy.world.size == 1 or config.exchange != "auto" or config.deterministic:
        return None
    workers = {"hosts": strategy.control.gather(strategy.world.host), "threads": threads, "dtype": config.precision}
    path = directory / "exchange.json"
    kept = strategy.control.agree(_read(path, workers) if strategy.is_chief else None)
    if kept is not None:
        return Calibration(**{name: Line(**line) for name, line in kept.items()})
    calibration = calibrate(strategy, config.precision)
    if strategy.is_chief:
        # Only saves the next run a second: a folder that cannot be written is not this file's to complain about.
        with contextlib.suppress(OSError):
            path.write_text(json.dumps({"workers": workers, "calibration": asdict(calibration)}, indent=1) + "\n")
    return calibration


def sentence(choices: dict[str, Choice]) -> str:
    """Who travels how, and the bytes per step."""
    ways = []
    for scheme, words in (("factors", "by factors"), ("allreduce", "summed")):
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
