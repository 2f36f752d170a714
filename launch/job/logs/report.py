"""What a run leaves besides checkpoints and logs: ``summary.json``, ``curves.png``, and what rebuilds its network."""

import contextlib
import json
import math
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import keras

from distributed.checkpoint import disk
from distributed.health import heartbeat
from launch.job import config as configuration
from launch.job import identity
from launch.job.config import TrainConfig
from launch.job.logs import stragglers
from launch.job.logs.console import Console
from launch.job.logs.epochs import TableError, read_table
from launch.trained import record as records
from launch.trained.record import Record

if TYPE_CHECKING:
    from launch.job.preparation.assemble import Training

SUMMARY, MODEL, SETTINGS = "summary.json", "model.json", "config.yaml"


def keep_record(record: Record, model: keras.Model, directory: Path, console: Console) -> None:
    """Leave ``labels.json``, and ``model.json``, from which Keras builds the network where the user's code is not at
    hand; not where one of its layers cannot be written down.  Checkpoints have the record, too: a disk that takes
    neither file costs a warning.

    Beside what Keras writes stands ``weight_paths``: the weights' names in the checkpoints, in their order.  A rebuilt
    network may have others, as a name begins with the model in which the weight was first made.
    """
    architecture = None
    with contextlib.suppress(Exception):  # a layer of the user's may raise any
        architecture = json.loads(model.to_json())
    try:
        records.write(record, directory)
        if architecture is not None:
            architecture["weight_paths"] = [weight.path for weight in model.weights]
            with contextlib.suppress(ValueError):  # NaN, which JSON does not know
                write_json(directory / MODEL, architecture)
    except OSError as error:
        console.warn(f"{directory}/{records.FILE} or {MODEL} cannot be written ({error.strerror}); training goes on")


def keep_settings(config: TrainConfig, directory: Path, console: Console) -> None:
    """Leave ``config.yaml``; a disk that does not take it costs a warning."""
    try:
        configuration.save(config, directory / SETTINGS)
    except OSError as error:
        console.warn(f"{directory / SETTINGS} cannot be written ({error.strerror}); training goes on")


def write_json(path: Path, value: dict) -> None:
    """Replace ``path`` by ``value`` at once, so that a reader never sees half of it."""
    with disk.whole_file(path) as beside:
        beside.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def split_metrics(metrics: dict[str, float]) -> dict[str, float | None]:
    """The metrics that people compare, for JSON, which knows neither NaN nor infinity: without the example counts."""
    shown = {name: value for name, value in metrics.items() if not name.endswith("examples")}
    return {name: value if math.isfinite(value) else None for name, value in shown.items()}


def summarize(training: "Training", stopped_by: str, seconds: float) -> dict:
    """The facts of a run that has ended, as ``summary.json`` holds them.

    Args:
        stopped_by: what ended it.
        seconds: from the start of this process's run to its end.
    """
    config, strategy, plan = training.config, training.strategy, training.inputs.plan
    decisions, progress, network = training.decisions, training.progress, training.model.network
    best = {}
    if decisions.best_epoch is not None:
        best = {"epoch": decisions.best_epoch + 1} | split_metrics(decisions.best_metrics)
    rates, ranks = training.loop.watch.rates, training.loop.clock.epochs
    return {
        "strategy": strategy.name,
        "model": training.code.model_name(config),
        "parameters": network.count_params(),
        "dataset": training.code.data_name(config),
        "world_size": strategy.world.size,
        "replicas": plan.replicas,
        "global_batch_size": plan.global_batch,
        "epochs": progress.step // plan.steps_per_epoch,
        "steps": progress.step,
        "final": split_metrics(progress.epoch_metrics),
        "best": best,
        "validation_examples": int(progress.epoch_metrics.get("val_examples", 0)),
        "images_per_second": round(median(rates), 1) if rates else None,
        "seconds": round(seconds, 1),
        "stopped_by": stopped_by,
        "learning_rate": progress.learning_rate,
        "exchange": {name: asdict(choice) for name, choice in training.choices.items()},
        "weights_sha256": identity.weights_sha256(network),
        "versions": identity.versions(),
        "startup": training.startup.summary(),
        "time": stragglers.summarize(ranks, progress.epoch + 1 - len(ranks)),
    }


def read(directory: Path) -> dict:
    """``summary.json`` of a finished run."""
    return json.loads((directory / SUMMARY).read_text())


def leave(summary: dict, directory: Path, monitor: str, console: Console) -> bool:
    """Write ``summary.json`` and ``curves.png``, and say where everything is; False if there is no summary."""
    left = True
    try:
        write_json(directory / SUMMARY, summary)
    except OSError as error:
        left = False
        console.error(f"{directory}/summary.json cannot be written ({error.strerror}); mend that and run it again")
    if summary["stopped_by"] == "preempted":
        # Whoever wants the run gone does not wait for pictures; what counts is the checkpoint.
        console.say(f"preempted at step {summary['steps']}: checkpoint saved; run the same command again to go on")
        return True
    # matplotlib is loaded now, and may look for fonts first.
    heartbeat.enter("saving")
    try:
        draw_curves(directory / "metrics.csv", directory / "curves.png")
    except OSError as error:
        console.warn(f"{directory}/curves.png cannot be written ({error.strerror}); the rest is there")
    except TableError as error:
        console.warn(f"{directory}/metrics.csv {error}: there is no curves.png; the rest is there")
    heartbeat.enter("ending")
    best = summary["best"]
    if best:
        values = "  ".join(
            f"{name} {value:.4f}" for name, value in best.items() if name != "epoch" and value is not None
        )
        console.say(f"best: epoch {best['epoch']} of {summary['epochs']} by {monitor}: {values}")
    console.say(f"finished after {summary['seconds']:.0f} s, stopped by {summary['stopped_by']}")
    weights = f"   best weights: {directory}/checkpoints/best" if best else ""
    console.say(f"curves: {directory}/curves.png{weights}")
    console.say(f"look at it: tensorboard --logdir {directory}/tensorboard")
    return left


def draw_curves(table: Path, picture: Path) -> None:
    """Draw loss, metrics and learning rate over the epochs of ``metrics.csv``; nothing before the first epoch.

    Raises: ``TableError`` as ``read_table``; ``OSError``.
    """
    rows = read_table(table)
    if not rows:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    epochs = [int(row["epoch"]) for row in rows]
    metrics = [name.removeprefix("val_") for name in rows[0] if name.startswith("val_")]
    panels = [(name, (name, f"val_{name}")) for name in metrics] + [("learning rate", ("learning_rate",))]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4 * len(panels), 3.6), layout="constrained")
    for axis, (title, names) in zip(axes, panels, strict=True):
        for name in names:
            points = [(epoch, float(row[name])) for epoch, row in zip(epochs, rows, strict=True) if row.get(name)]
            if points:
                label = "validation" if name.startswith("val_") else "training"
                axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.legend()
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)
