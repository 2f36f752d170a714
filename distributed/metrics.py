"""Exact global metrics: the workers add up metric *state*, never results.

The average of the workers' accuracies is not the accuracy; the sum of their hits over the sum of their examples is.
Every metric here keeps an additive state (sums and counts), so that ``result(sum of states)`` is what one process
would have computed.  All states of an evaluation travel in one fused float64 exchange.

Keras' metrics count in float32, which has no room for every whole number beyond 2**24: an AUC of ImageNet's pairs of
example and class is there after 17 batches of 1,000.  Here each batch is counted by Keras in float32, where it is
exact, and the batches are added up in float64.
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

# Multiples of this add up in float64 without any rounding, hence to the same sum in any order: 2**29 of the losses'
# units, at half a float32's last digit of a loss of 1.
_UNIT = 2.0**-24


class Total(keras.metrics.Metric):
    """A float64 sum of weighted values, the same to the last bit in whatever order and on however many workers they are
    added up: ``loss`` and ``examples`` of a run."""

    def __init__(self, name: str):
        super().__init__(name=name, dtype="float64")
        self.total = self.add_variable((), "zeros", "float64", name="total")

    def update_state(self, values, sample_weight=None):
        values = tf.cast(values, tf.float64)
        if sample_weight is not None:
            values *= tf.cast(sample_weight, tf.float64)
        # In whole units, of which a power of two is divided out without rounding.
        self.total.assign_add(tf.reduce_sum(tf.round(values * (1 / _UNIT))) * _UNIT)

    def result(self):
        return self.total


def _accuracy(classes: int) -> keras.metrics.Metric:
    # One logit: its sign decides.
    binary = keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)
    return binary if classes == 2 else keras.metrics.SparseCategoricalAccuracy("accuracy")


# What ``--metrics`` may name.  Precision, recall and AUC are Keras': of all (example, class) pairs together, at the
# probability 0.5 where a threshold is needed.  Any metric whose state adds up over examples can stand here, if more of
# it is better: ``decisions.Rules`` relies on that.
METRICS: dict[str, Callable[[int], keras.metrics.Metric]] = {
    "accuracy": _accuracy,
    "top5": lambda classes: keras.metrics.SparseTopKCategoricalAccuracy(min(5, classes), "top5"),
    "precision": lambda classes: keras.metrics.Precision(name="precision"),
    "recall": lambda classes: keras.metrics.Recall(name="recall"),
    "auc": lambda classes: keras.metrics.AUC(name="auc"),
}
_ON_PROBABILITIES = (keras.metrics.Precision, keras.metrics.Recall, keras.metrics.AUC)


def example_losses(classes: int, label_smoothing: float) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """The loss of each example from its logits.

    Returns:
        ``(labels int32 [b], logits float32 [b, classes] or [b, 1]) -> losses float32 [b]``: cross-entropy, binary for
        two classes; ``label_smoothing`` as in Szegedy et al. 2016, section 7.
    """
    if classes == 2:

        def binary(labels, logits):
            targets = tf.cast(labels, tf.float32) * (1.0 - label_smoothing) + 0.5 * label_smoothing
            return tf.nn.sigmoid_cross_entropy_with_logits(targets, logits[:, 0])

        return binary

    def categorical(labels, logits):
        if not label_smoothing:
            return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        targets = tf.one_hot(labels, classes) * (1.0 - label_smoothing) + label_smoothing / classes
        return tf.nn.softmax_cross_entropy_with_logits(targets, logits)

    return categorical


def _probabilities(labels, logits):
    """Targets 0 or 1 and probabilities, both float32 [b, classes], or [b, 1] for one logit."""
    if logits.shape[-1] == 1:
        return tf.cast(labels[:, None], tf.float32), tf.sigmoid(logits)
    return tf.one_hot(labels, logits.shape[-1]), tf.nn.softmax(logits)


def _in_float64(metric: keras.metrics.Metric) -> keras.metrics.Metric:
    """The same metric with float64 state; some of Keras' take the dtype of that from ``floatx``, whatever theirs is."""
    floatx = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        return type(metric).from_config(metric.get_config() | {"dtype": "float64"})
    finally:
        keras.config.set_floatx(floatx)


class GlobalMetrics:
    """The metrics of one run on one worker, and their results over all of them."""

    def __init__(self, metrics: Sequence[keras.metrics.Metric], sum_workers: Callable):
        """Args: metrics with additive state; ``sum_workers`` sums a list of float64 arrays over the workers."""
        self.loss = Total("loss")
        self.examples = Total("examples")
        self._of_a_batch = list(metrics)
        self.others = [_in_float64(metric) for metric in metrics]
        self._sum_workers = sum_workers

    @property
    def all(self) -> list[keras.metrics.Metric]:
        return [self.loss, self.examples, *self.others]

    def update(self, labels, logits, losses, weights=None) -> None:
        """Add one batch, inside a step; all arguments have shape [b] but logits [b, classes]; no weights are all 1."""
        self.loss.update_state(losses, weights)
        self.examples.update_state(tf.ones_like(losses), weights)
        for metric, total in zip(self._of_a_batch, self.others, strict=True):
            if isinstance(metric, _ON_PROBABILITIES):
                targets, answers = _probabilities(labels, logits)
                given = None if weights is None else tf.broadcast_to(weights[:, None], tf.shape(answers))
            else:
                # Keras' binary accuracy wants labels of the logits' shape.
                targets, answers, given = labels[:, None] if logits.shape[-1] == 1 else labels, logits, weights
            nothing = [tf.zeros(variable.shape) for variable in metric.variables]
            states = metric.stateless_update_state(nothing, targets, answers, sample_weight=given)
            for variable, state in zip(total.variables, states, strict=True):
                variable.assign_add(tf.cast(state, tf.float64))

    def sum_states(self) -> list[np.ndarray]:
        """All states, float64, summed over the workers in one exchange; ``loss`` and ``examples`` come first."""
        return self._sum_workers(
            [np.asarray(variable, np.float64) for metric in self.all for variable in metric.variables]
        )

    def results(self) -> dict[str, float]:
        """Reduce all states over the workers in one exchange and compute each metric once.

        Returns:
            ``loss`` (mean over examples), ``examples`` (their number) and the other metrics, as Python floats; equal
            on all workers.
        """
        loss_sum, examples, *states = self.sum_states()
        results = {"loss": float(loss_sum / examples) if examples else float("nan"), "examples": float(examples)}
        for metric in self.others:
            own, states = states[: len(metric.variables)], states[len(metric.variables) :]
            value = metric.stateless_result([tf.constant(state, tf.float64) for state in own])
            # As a float32, and the shortest number that is this one: 0.104, not 0.10400000214576721.
            results[metric.name] = float(str(np.float32(value)))
        return results
