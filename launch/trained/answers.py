"""What a trained network says of many pictures: read, computed and gathered by all workers together."""

import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from data.datasets import DataError, Source
from data.diagnose import is_of_input
from data.order import SequentialOrder, Share
from distributed.health import heartbeat
from distributed.inference import Inference
from launch.job.preparation.inputs import find_unreadable
from launch.trained.program import FailedAlone, Workers

BATCH = 64


def answer_all(
    workers: Workers, network: keras.Model, source: Source, make_batches: Callable, *, batch: int, title: str
) -> tuple[np.ndarray, np.ndarray, float]:
    """Let a network answer to every example of a source, in its order; all workers must call it.

    Args:
        network: uint8 images [b, s, s, 3] -> float32 [b, width], built within the strategy's scope.
        make_batches: ``(order, share) -> tf.data.Dataset`` of (images, anything, marks float32 [b]).
        batch: examples that the network sees at once: with another number the last bits may differ.
        title: stands before the progress bar.

    Returns:
        The answers float32 [n, width] and the marks float32 [n], on every worker, and images per second.

    Raises:
        DataError: a picture that cannot be read, which is named.
    """
    strategy, console = workers.strategy, workers.console
    # As many on all workers, some of which may have more cores. The last round may be padding, no more than need be.
    rounds = -(-len(source) // (batch * strategy.replicas))
    side_by_side = min(*strategy.control.gather(workers.side_by_side), rounds)
    order = SequentialOrder(examples=len(source), replica_batch=batch * side_by_side, replicas=strategy.replicas)
    inference = Inference(network, strategy, batch=batch, side_by_side=side_by_side)
    batches = iter(strategy.distribute(lambda first, stride: make_batches(order, Share(first, stride))))
    console.start_epoch(title, len(source))
    answers, marks, began = [], [], time.perf_counter()
    for step in range(order.steps):
        # The first step holds the tracing of the graph.
        so_far = (time.perf_counter() - began) / max(step, 1)
        heartbeat.enter("validation" if step else "first validation", waiting=True, expected=so_far)
        try:
            rows, given = inference.answer(batches)
        except tf.errors.OpError as error:
            culprit = find_unreadable(source, order, strategy.share, step) if is_of_input(error) else None
            if culprit is None:
                raise
            raise (FailedAlone if strategy.world.size > 1 else DataError)(f"{culprit}; replace or remove it") from error
        answers.append(rows)
        marks.append(given)
        console.advance(min((step + 1) * len(rows), len(source)), "")
    console.stop()
    heartbeat.enter("ending")
    rate = len(source) / (time.perf_counter() - began)
    return np.concatenate(answers)[: len(source)], np.concatenate(marks)[: len(source)], rate


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Probabilities float32 [n, classes] from logits float32 [n, classes], or [n, 1] of class 1.

    In float64: a last bit that depends on where in an array a value stands, as vector units have it, is rounded away.
    So a picture's probabilities do not depend on what is asked beside it.
    """
    found = []
    for start in range(0, len(logits), 4096):
        raised = logits[start : start + 4096].astype(np.float64)
        if raised.shape[1] == 1:
            raised = np.concatenate([np.zeros_like(raised), raised], axis=1)
        with np.errstate(invalid="ignore"):  # what is not finite stays so, and whoever uses it says so
            raised = np.exp(raised - raised.max(axis=1, keepdims=True))
            found.append((raised / raised.sum(axis=1, keepdims=True)).astype(np.float32))
    return np.concatenate(found)
