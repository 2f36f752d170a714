"""Examples that come as a network has already seen them: arrays of features in the place of pictures."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from data.datasets import Source


class FeatureSource(Source):
    """Features of each example of a source, in its order; read as they are."""

    ready = True

    def __init__(self, source: Source, views: Sequence[np.ndarray], shape: tuple[int, ...]):
        """
        Args:
            source: what the features were computed of.
            views: float32 [n, width] each, which may lie in files; epoch e, from 0, takes number e modulo how many
                there are.
            shape: of one example; its product is ``width``.
        """
        super().__init__(source.name, source.classes, source.labels, image_size=None, encoded=False)
        expected = (len(source), int(np.prod(shape)))
        assert all(features.shape == expected for features in views), ([one.shape for one in views], expected)
        self.source, self.note = source, source.note
        self._views, self._shape = views, shape

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        """Features of the first view at `indices` (int64 [b]): float32 [b, *shape]."""
        return self.view(indices, tf.constant(0, tf.int64))

    def view(self, indices: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """Features at `indices` (int64 [b]) in an epoch (int64): float32 [b, *shape]."""

        def rows(places: np.ndarray, epoch: np.int64) -> np.ndarray:
            return self._views[epoch % len(self._views)][places]

        found = tf.numpy_function(rows, [indices, epoch], tf.float32, stateful=False)
        return tf.reshape(found, [indices.shape[0], *self._shape])

    def where(self, index: int) -> str:
        return self.source.where(index)

    def fingerprint(self) -> str:
        return self.source.fingerprint()
