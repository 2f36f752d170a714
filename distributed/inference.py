"""A network's answers to examples in order, the same bits on any number of workers.

What a kernel computes may depend on the shape of its batch and on how many cores share it.  So a network sees batches
of one fixed size, each on one core, and what runs side by side is batches: several on each replica, and the replicas.
"""

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from distributed.strategies import Strategy


class Inference:
    """A network that answers on all workers together; create it within ``strategy.scope()``."""

    def __init__(self, network: keras.Model, strategy: Strategy, *, batch: int, side_by_side: int):
        """
        Args:
            network: plain Keras, uint8 images [b, h, w, 3] -> one float32 tensor [b, width].
            batch: examples that the network sees at once.
            side_by_side: such batches of one replica that are computed at the same time, on a core each.
        """
        self._network, self._strategy, self._shape = network, strategy, (side_by_side, batch)
        self._compiled = None

    def answer(self, batches: Iterator) -> tuple[np.ndarray, np.ndarray]:
        """Take the next batch of every replica; all workers must call it.

        Args:
            batches: of (images uint8 [n, h, w, 3], anything, marks float32 [n]), with n = batch * side_by_side.

        Returns:
            The network's outputs, float32 [replicas * n, width], and the marks [replicas * n], of all replicas in their
            order; on every worker.
        """
        if self._compiled is None:
            signature = [tf.type_spec_from_value(batches)]
            self._compiled = tf.function(self._take, input_signature=signature, autograph=False)
        rows = self._compiled(batches).numpy()
        return rows[:, :-1], rows[:, -1]

    def _take(self, batches):
        return self._strategy.run(self._on_replica, next(batches))

    def _on_replica(self, data):
        images, _, marks = data
        side_by_side, batch = self._shape
        images = tf.reshape(images, [side_by_side, batch, *images.shape[1:]])
        width = self._network.output_shape[-1]
        answers = tf.map_fn(
            lambda part: self._network(part, training=False),
            images,
            fn_output_signature=tf.TensorSpec([batch, width], tf.float32),
            parallel_iterations=side_by_side,
        )
        rows = tf.concat([tf.reshape(answers, [side_by_side * batch, width]), marks[:, None]], axis=1)
        (gathered,) = self._strategy.gather_replicas([rows])
        return gathered
