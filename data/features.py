"""Examples that come as a network has already seen them: an array of features in the place of pictures."""

import numpy as np
import tensorflow as tf

from data.datasets import Source


class FeatureSource(Source):
    """Features of each example of a source, in its order; read as they are."""

    ready = True

    def __init__(self, source: Source, features: np.ndarray, shape: tuple[int, ...]):
        """
        Args:
            source: what the features were computed of.
            features: float32 [n, width], which may lie in a file.
            shape: of one example; its product is ``width``.
        """
        super().__init__(source.name, source.classes, source.labels, image_size=None, encoded=False)
        assert features.shape == (len(source), int(np.prod(shape))), (features.shape, len(source), shape)
        self.source, self.note = source, source.note
        self._features, self._shape = features, shape

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        """Features at `indices` (int64 [b]): float32 [b, *shape]."""
        rows = tf.numpy_function(lambda places: self._features[places], [indices], tf.float32, stateful=False)
        return tf.reshape(rows, [indices.shape[0], *self._shape])

    def where(self, index: int) -> str:
        return self.source.where(index)

    def fingerprint(self) -> str:
        return self.source.fingerprint()
