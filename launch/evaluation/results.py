"""What an evaluation shows: numbers on the console, pictures in its folder."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from data.splits import Part
from distributed.metrics import METRICS, GlobalMetrics
from launch.evaluation import confusion
from launch.evaluation.classification import Report
from launch.evaluation.files import CONFUSION
from launch.trained.load import Found

MISTAKES = 48  # on the contact sheet
ROWS = 30  # classes that are listed on the console; per_class.csv has all


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Probabilities float32 [n, classes] from logits [n, classes], or [n, 1] of class 1."""
    if logits.shape[1] == 1:
        return tf.sigmoid(np.concatenate([-logits, logits], axis=1)).numpy()
    return tf.nn.softmax(logits).numpy()


def training_metrics(
    names: Sequence[str], labels: np.ndarray, logits: np.ndarray, losses: np.ndarray
) -> dict[str, float]:
    """What training would say of these answers: its loss and the run's ``--metrics``, to the last digit.

    Args:
        names: keys of ``METRICS``.
        labels: int32 [n].
        logits: float32 [n, classes] or [n, 1].
        losses: float32 [n].
    """
    classes = 2 if logits.shape[1] == 1 else logits.shape[1]
    metrics = GlobalMetrics([METRICS[name](classes) for name in names], lambda arrays: arrays)
    for start in range(0, len(labels), 1024):
        part = slice(start, start + 1024)
        metrics.update(tf.constant(labels[part]), tf.constant(logits[part]), tf.constant(losses[part]))
    return {name: value for name, value in metrics.results().items() if name != "examples"}


def draw(folder: Path, found: Found, part: Part, report: Report, probabilities: np.ndarray) -> None:
    """Draw ``confusion.png``, and ``worst.png`` where there is a mistake."""
    names, source = found.record.classes, part.source
    confusion.draw(folder / CONFUSION, report.confusion, names, f"{found.record.model} on {part.split}")


def lines(report: Report, names: Sequence[str]) -> Iterator[str]:
    """The numbers for people, line by line."""
    low, high = report.accuracy_interval
    yield f"loss {report.loss:.4f}  accuracy {report.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f})"
    if report.top5_accuracy is not None:
        yield f"top-5 accuracy {report.top5_accuracy:.4f}"
    yield (
        f"macro precision {report.macro_precision:.4f}  recall {report.macro_recall:.4f}  F1 {report.macro_f1:.4f}"
    )
    width = max(len("class"), *(len(name) for name in names[:ROWS]))
    yield f"{'class':<{width}}  precision  recall      F1    count"
    for name, score in list(zip(names, report.classes, strict=True))[:ROWS]:
        values = "  ".join(f"{'-' if value is None else f'{value:.4f}':>{wide}}" for value, wide in (
            (score.precision, 9), (score.recall, 6), (score.f1, 6)))
        yield f"{name:<{width}}  {values}  {score.count:>7,}"
    if len(names) > ROWS:
        yield f"... and {len(names) - ROWS} more, in per_class.csv"
    for pair in report.confused[:5]:
        yield f"confused: {names[pair.true]} for {names[pair.predicted]}, {pair.count} times ({pair.share:.1%} of it)"
