"""Where the time of training steps goes, on each replica, by time stamps taken inside the compiled calls.

A stamp is an operation of the graph that runs when what stands before it is computed, so that the host does nothing:

    began --next batch--> fetched --forward, backward--> computed --exchange--> summed --optimizer--> updated

What is exchanged while the backward pass still goes on costs nothing, and is not seen; an exchange that the pass
itself waits for (split layers, batch normalisation over all replicas) is taken out of the pass.

TensorFlow refuses to tell the time where it is told to be deterministic: there nothing is known, and all stamps are 0.
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled

PARTS = ("input", "compute", "exchange", "update")


class StepTimes:
    """This replica's seconds by part, over all steps since it was made, if that is ``known``; create it in the
    strategy's scope."""

    def __init__(self):
        self.known = not is_op_determinism_enabled()
        # Each replica has its own, as of Keras' metrics; no layer that computes in 16 bits may round it.
        self.seconds = keras.Variable(
            tf.zeros(len(PARTS), tf.float64),
            dtype="float64",
            trainable=False,
            autocast=False,
            aggregation="sum",
            synchronization="on_read",
            name="step_seconds",
        )

    def add(self, stamps: Sequence[tf.Tensor]) -> None:
        """Add a step: the five stamps between which the parts lie, inside the step."""
        with tf.device("CPU:0"):
            seconds = tf.stack(stamps[1:]) - tf.stack(stamps[:-1])
        self.seconds.value.assign_add(seconds)

    def awaited(self, exchange: Callable) -> Callable:
        """``exchange``, a function of tensors, as one that the forward or backward pass waits for: its time counts as
        such, and not as computing."""

        def timed(tensors):
            began, _ = stamp(tensors)
            ended, results = stamp(exchange(tensors))
            with tf.device("CPU:0"):
                seconds = tf.stack([0.0, began - ended, ended - began, 0.0])
            self.seconds.value.assign_add(seconds)
            return results

        return timed


def stamp(tensors) -> tuple[tf.Tensor, object]:
    """The time when all tensors of a structure are computed, seconds since 1970, float64, inside a graph; and the same
    tensors, of which nothing is computed before the stamp is made: a single thread might take that first.

    A GPU is handed its work long before that is done: there it is when the last of them can be copied to the host, and
    nothing waits for it, as work is done there in the order in which it came.
    """
    if is_op_determinism_enabled():
        return tf.zeros((), tf.float64), tensors
    after = tf.nest.flatten(tensors)
    on_gpu = bool(tf.config.get_visible_devices("GPU"))
    if on_gpu:
        with tf.control_dependencies(after):
            mark = tf.reshape(after[-1], [-1])[:1]
        with tf.device("CPU:0"):
            after = [tf.identity(mark)]
    with tf.device("CPU:0"), tf.control_dependencies(after):
        now = tf.timestamp()
    if on_gpu:
        return now, tensors
    with tf.control_dependencies([now]):
        return now, tf.nest.map_structure(tf.identity, tensors)
