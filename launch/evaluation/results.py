"""What an evaluation shows: numbers on the console, pictures in its folder."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from data.datasets import Source
from data.pictures.decode import described
from data.views import evaluation_images
from distributed.metrics import METRICS, GlobalMetrics, example_losses
from launch.evaluation import classification, confusion, projector, sheet, tensorboard
from launch.evaluation.classification import Report, worst_mistakes
from launch.evaluation.files import CONFUSION, WORST
from launch.job.config import TrainConfig
from launch.trained.answers import probabilities
from launch.trained.load import Found

MISTAKES = 48  # on the contact sheet
ROWS = 30  # classes that are listed on the console; per_class.csv has all


class Judged(NamedTuple):
    """What is known of a split's examples once the network has answered.

    Attributes:
        report: all numbers but these:
        training_metrics: what training would say of the same answers.
        probabilities: float32 [n, classes].
    """

    report: Report
    training_metrics: dict[str, float]
    probabilities: np.ndarray


def judge(config: TrainConfig, labels: np.ndarray, logits: np.ndarray, batch: int) -> Judged:
    """Judge a network's answers; arguments as for ``losses``.

    Raises:
        EvaluationError: there is none, or one that is not finite.
    """
    of_each, of_classes = losses(config, labels, logits, batch), probabilities(logits)
    report = classification.report(labels, of_classes, of_each)
    return Judged(report, training_metrics(config.metrics, labels, logits, of_each), of_classes)


def losses(config: TrainConfig, labels: np.ndarray, logits: np.ndarray, batch: int) -> np.ndarray:
    """The loss of each example, float32 [n], as training computes it: in batches of one size, on which the last bits
    depend.

    Args:
        labels: int32 [n].
        logits: float32 [n, classes] or [n, 1].
    """
    loss_of = example_losses(max(2, logits.shape[1]), config.label_smoothing)
    rounds = -(-len(labels) // batch)

    def cut(array: np.ndarray) -> tf.Tensor:
        padding = [(0, rounds * batch - len(array))] + [(0, 0)] * (array.ndim - 1)
        return tf.constant(np.pad(array, padding).reshape(rounds, batch, *array.shape[1:]))

    @tf.function(autograph=False)
    def computed(labels, logits):
        return tf.map_fn(lambda pair: loss_of(*pair), (labels, logits), fn_output_signature=tf.float32)

    return computed(cut(labels), cut(logits)).numpy().reshape(-1)[: len(labels)]


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


def draw(folder: Path, found: Found, source: Source, split: str, report: Report, probabilities: np.ndarray) -> None:
    """Draw ``confusion.png`` and ``worst.png``, the mistakes that the network was surest of."""
    names, title = found.record.classes, f"{found.record.model}, {found.path.name}, {split}"
    confusion.draw(folder / CONFUSION, report.confusion, names, title)
    mistakes = int((report.predicted != source.labels).sum())
    tiles = [
        sheet.Tile(
            index,
            names[source.labels[index]],
            names[report.predicted[index]],
            float(probabilities[index, report.predicted[index]]),
            source.where(index),
        )
        for index in worst_mistakes(source.labels, probabilities, report, MISTAKES).tolist()
    ]
    which = f"the {len(tiles)} surest of {mistakes:,} mistakes" if tiles else "no mistakes"
    sheet.draw(folder / WORST, tiles, seen_by(found, source), f"{title}: {which}")


def seen_by(found: Found, source: Source) -> Callable[[int], np.ndarray]:
    """A function from an example's index to what the network sees of it, uint8 [s, s, 3]."""
    augment, size, decoding = found.config.augment, found.record.image_size, described(found.record.pixels)
    return lambda index: evaluation_images(source, [index], augment, size, decoding)[0].numpy()


def last_hidden(network: keras.Model) -> keras.Model:
    """The network up to what its last layer with weights takes in: uint8 pixels -> float32 [b, width], the mean over
    the axes between."""
    features = _before_last(network)
    if len(features.shape) > 2:
        features = keras.ops.mean(features, axis=tuple(range(1, len(features.shape) - 1)))
    return keras.Model(network.inputs[0], keras.layers.Activation("linear", dtype="float32")(features))


def _before_last(network: keras.Model) -> keras.KerasTensor:
    """What the last layer with weights takes in, as a tensor of the network's own graph; a network that is a layer of
    this one is looked into."""
    # Of the layer's calls the one in this graph, which alone leads to its input.
    graph = getattr(network, "_functional", None) or network
    depth = {id(node.operation): depth for depth, nodes in graph._nodes_by_depth.items() for node in nodes}
    last = min((layer for layer in network.layers if layer.weights), key=lambda layer: depth[id(layer)])
    inputs = next(
        node.input_tensors[0] for nodes in graph._nodes_by_depth.values() for node in nodes if node.operation is last
    )
    if not isinstance(last, keras.Sequential | keras.Function):
        return inputs
    inner = _before_last(last)
    return keras.Model(last.inputs, inner)(inputs)


def show_in_tensorboard(
    board: Path, folder: Path, found: Found, source: Source, report: Report, features: np.ndarray | None
) -> None:
    """Add the pictures of an evaluation's folder to ``board``, a run's folder for TensorBoard, and the last hidden
    layer's outputs where given; below a name that is none of the run's own."""
    name = folder.absolute().name
    board = board / (name if name.startswith("evaluation-") else f"evaluation-{name}")
    pictures = {"evaluation/confusion": folder / CONFUSION, "evaluation/worst": folder / WORST}
    tensorboard.add_images(board, pictures, found.state["epoch"])
    if features is None:
        return
    shown, names = projector.sampled(len(source)), found.record.classes
    columns = {
        "label": [names[label] for label in source.labels[shown]],
        "predicted": [names[label] for label in report.predicted[shown]],
        "path": [source.where(index) for index in shown.tolist()],
    }
    projector.write(board, shown, features, columns, seen_by(found, source))


def lines(report: Report, names: Sequence[str]) -> Iterator[str]:
    """The numbers for people, line by line."""
    low, high = report.accuracy_interval
    yield f"loss {report.loss:.4f}  accuracy {report.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f})"
    if report.top5_accuracy is not None:
        yield f"top-5 accuracy {report.top5_accuracy:.4f}"
    yield (f"macro precision {report.macro_precision:.4f}  recall {report.macro_recall:.4f}  F1 {report.macro_f1:.4f}")
    width = max(len("class"), *(len(name) for name in names[:ROWS]))
    yield f"{'class':<{width}}  precision  recall      F1    count"
    for name, score in list(zip(names, report.classes, strict=True))[:ROWS]:
        cells = ((score.precision, 9), (score.recall, 6), (score.f1, 6))
        values = "  ".join(f"{'-' if value is None else f'{value:.4f}':>{width_of}}" for value, width_of in cells)
        yield f"{name:<{width}}  {values}  {score.count:>7,}"
    if len(names) > ROWS:
        yield f"... and {len(names) - ROWS} more, in per_class.csv"
    for pair in report.confused[:5]:
        often = f"{pair.count} time{'s' * (pair.count > 1)} ({pair.share:.1%} of {names[pair.true]})"
        yield f"confused: {names[pair.true]} for {names[pair.predicted]}, {often}"
