"""What a run leaves besides its checkpoints and logs: ``summary.json`` and ``curves.png``."""

import hashlib
import json
import platform
from importlib import metadata
from pathlib import Path

import keras
import numpy as np

from launch.callbacks import finite_metrics
from launch.observers import read_table

PACKAGES = ("tensorflow", "keras", "horovod", "mpi4py", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}


def weights_sha256(model: keras.Model) -> str:
    """SHA-256 over all weights in ``model.weights`` order, as little-endian float32 bytes."""
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(np.ascontiguousarray(weight, dtype="<f4").tobytes())
    return digest.hexdigest()


def write_json(path: Path, value: dict) -> None:
    """Replace ``path`` by ``value`` at once, so that a reader never sees half of it."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
    temporary.replace(path)


def split_metrics(metrics: dict[str, float]) -> dict[str, float | None]:
    """The metrics that people compare: without the counts of examples, finite or null."""
    return finite_metrics({name: value for name, value in metrics.items() if not name.endswith("examples")})


def draw_curves(table: Path, picture: Path) -> None:
    """Draw loss, accuracy and learning rate over the epochs of ``metrics.csv``; nothing before the first epoch."""
    rows = read_table(table)
    if not rows:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    epochs = [int(row["epoch"]) for row in rows]
    panels = (("loss", ("loss", "val_loss")), ("accuracy", ("accuracy", "val_accuracy")), ("learning rate", ("learning_rate",)))
    figure, axes = pyplot.subplots(1, len(panels), figsize=(12, 3.6), layout="constrained")
    for axis, (title, names) in zip(axes, panels, strict=True):
        for name in names:
            points = [(epoch, float(row[name])) for epoch, row in zip(epochs, rows, strict=True) if row[name]]
            if points:
                label = "validation" if name.startswith("val_") else "training"
                axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.legend()
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)
