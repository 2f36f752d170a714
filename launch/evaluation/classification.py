"""How good a classifier's answers are: every number of an evaluation, from plain arrays. No TensorFlow in here.

Definitions are scikit-learn's (``precision_recall_fscore_support``, ``confusion_matrix``, ``top_k_accuracy_score``),
except that ties always go to the lower class, and that what cannot be said is None, not 0: the recall of a class
without examples, the precision of one that was never predicted.
"""

import math
from dataclasses import dataclass

import numpy as np

from launch.trained.program import OutputError

TOP = 5
Z95 = 1.959963984540054  # standard normal quantile of 0.975


class EvaluationError(OutputError):
    """An evaluation that cannot be made or written; its message is one sentence. It ends a program with exit code 2."""


@dataclass(frozen=True)
class ClassScore:
    """One class: examples of it, how often it was predicted, how often rightly, and what follows from these.

    ``precision`` is None where it was never predicted, ``recall`` where it has no examples, ``f1`` where both hold.
    """

    count: int
    predicted: int
    correct: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class ConfusedPair:
    """Examples of class ``true`` that were taken for class ``predicted``, and their share of class ``true``."""

    true: int
    predicted: int
    count: int
    share: float


@dataclass(frozen=True, eq=False)
class Report:
    """What an evaluation found.

    Attributes:
        examples: how many.
        loss: mean of the losses, summed in float64.
        accuracy: share of examples whose most probable class is their own.
        accuracy_interval: its 95 % interval (Wilson 1927).
        top5_accuracy: share of examples whose class is among the five most probable; None up to five classes.
        macro_precision, macro_recall, macro_f1: means over the classes that have examples, where the precision of a
            class that was never predicted counts as 0.
        classes: one score per class.
        confusion: int64 [c, c], examples by true class (row) and predicted class (column).
        confused: the pairs of classes most often confused, at most ten.
        top: int32 [n, min(5, c)], each example's most probable classes, best first.
    """

    examples: int
    loss: float
    accuracy: float
    accuracy_interval: tuple[float, float]
    top5_accuracy: float | None
    macro_precision: float
    macro_recall: float
    macro_f1: float
    classes: tuple[ClassScore, ...]
    confusion: np.ndarray
    confused: tuple[ConfusedPair, ...]
    top: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """int32 [n]: each example's most probable class."""
        return self.top[:, 0]


def report(labels: np.ndarray, probabilities: np.ndarray, losses: np.ndarray) -> Report:
    """Judge a classifier's answers.

    Args:
        labels: int32 [n], the true classes.
        probabilities: float32 [n, c], c at least 2.
        losses: float32 [n], one per example.

    Raises:
        EvaluationError: there are no examples, or a probability or loss is not finite.
    """
    n, c = probabilities.shape
    assert labels.shape == losses.shape == (n,) and c >= 2, (labels.shape, losses.shape, probabilities.shape)
    _check(probabilities, losses)
    best = top_classes(probabilities, min(TOP, c))
    # A 64-bit product: c * c may not fit into a label's 32 bits.
    cells = labels.astype(np.int64) * c + best[:, 0]
    confusion = np.bincount(cells, minlength=c * c).reshape(c, c)
    scores = _class_scores(confusion)
    seen = [score for score in scores if score.count]
    correct = int(np.trace(confusion))
    return Report(
        examples=n,
        loss=float(np.sum(losses, dtype=np.float64) / n),
        accuracy=correct / n,
        accuracy_interval=wilson_interval(correct, n),
        top5_accuracy=float(np.mean((best == labels[:, None]).any(axis=1))) if c > TOP else None,
        macro_precision=math.fsum(score.precision or 0.0 for score in seen) / len(seen),
        macro_recall=math.fsum(score.recall for score in seen) / len(seen),
        macro_f1=math.fsum(score.f1 for score in seen) / len(seen),
        classes=scores,
        confusion=confusion,
        confused=most_confused(confusion, 10),
        top=best,
    )


def _check(probabilities: np.ndarray, losses: np.ndarray) -> None:
    if not len(losses):
        raise EvaluationError("there are no examples to evaluate; give a split that has some")
    wrong = np.flatnonzero(~(np.isfinite(probabilities).all(axis=1) & np.isfinite(losses)))
    if len(wrong):
        raise EvaluationError(
            f"the network's answer is not finite for {len(wrong):,} of {len(losses):,} examples, the first at index "
            f"{wrong[0]}; evaluate an earlier checkpoint"
        )


def top_classes(probabilities: np.ndarray, k: int) -> np.ndarray:
    """The k most probable classes of each row, best first, of equal ones the lower class first: int32 [n, k]."""
    rest, rows = probabilities.copy(), np.arange(len(probabilities))
    chosen = np.empty((len(rest), k), np.int32)
    # k passes are far quicker than sorting rows of a thousand classes, and argmax answers the first of equal ones.
    for place in range(k):
        chosen[:, place] = rest.argmax(axis=1)
        rest[rows, chosen[:, place]] = -1
    return chosen


def _class_scores(confusion: np.ndarray) -> tuple[ClassScore, ...]:
    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    columns = zip(
        confusion.sum(axis=1).tolist(), confusion.sum(axis=0).tolist(), np.diag(confusion).tolist(), strict=True
    )
    return tuple(
        ClassScore(
            count,
            predicted,
            correct,
            precision=share(correct, predicted),
            recall=share(correct, count),
            f1=share(2 * correct, count + predicted),
        )
        for count, predicted, correct in columns
    )


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22:209), which holds near 0 and 1, too."""
    share, z2 = correct / n, Z95 * Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At the ends the formula is exact, its rounding is not.
    return (0.0 if correct == 0 else centre - half), (1.0 if correct == n else centre + half)


def most_confused(confusion: np.ndarray, limit: int) -> tuple[ConfusedPair, ...]:
    """The pairs of classes (int64 [c, c]) most often confused, by count, then in the order of the classes."""
    true, predicted = np.nonzero(confusion)
    mistakes = true != predicted
    true, predicted = true[mistakes], predicted[mistakes]
    counts, totals = confusion[true, predicted], confusion.sum(axis=1)
    order = np.lexsort((predicted, true, -counts))[:limit]
    return tuple(
        ConfusedPair(int(true[i]), int(predicted[i]), int(counts[i]), float(counts[i] / totals[true[i]])) for i in order
    )


def worst_mistakes(labels: np.ndarray, probabilities: np.ndarray, report: Report, limit: int) -> np.ndarray:
    """Indices (int64, at most ``limit``) of the mistakes the network was surest of, of equal ones the earlier first."""
    mistakes = np.flatnonzero(report.predicted != labels)
    sureness = probabilities[mistakes, report.predicted[mistakes]]
    return mistakes[np.argsort(-sureness, kind="stable")[:limit]]
