"""Layers that Keras lacks, and what networks share: image input, initialisation, normalisation, classifier."""

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

# How uint8 pixels reach the first layer, as keras.applications.imagenet_utils calls it: the order of their channels,
# and each one's factor and offset.
PIXELS = {
    "tf": ([0, 1, 2], 1 / 127.5, -1),
    "scaled": ([0, 1, 2], 1 / 255, 0),
    "torch": ([0, 1, 2], [1 / 58.395, 1 / 57.12, 1 / 57.375], [-2.117904, -2.035714, -1.804444]),
    "caffe": ([2, 1, 0], 1, [-103.939, -116.779, -123.68]),
}
DENSE_UNITS = 4096  # both hidden dense layers of both papers


class ModelError(ValueError):
    """A model that cannot be built as asked; one sentence: what came, what was expected, how to mend it."""


@dataclass(frozen=True)
class Spec:
    """What the builders need to know, checked by `build_model`.

    Attributes:
        name: the model's name.
        classes: number of classes, at least 2.
        image_size: height and width in pixels.
        dropout: rate of the dropout after both hidden dense layers; 0 leaves these layers out.
        pixels: a key of `PIXELS`.
        seed: makes weights and dropout reproducible; None draws them anew each time.
    """

    name: str
    classes: int
    image_size: int
    dropout: float
    seed: int | None
    pixels: str = "tf"

    def kernel_initializer(self, index: int) -> keras.Initializer:
        """Initial weights of layer `index`, counting layers with weights in order: he_uniform (He et al. 2015)."""
        return keras.initializers.HeUniform(self._derive(0, index))

    def dropout_seed(self, index: int) -> int | None:
        """Seed of the dropout behind layer `index`; a stream of its own, so that dropout leaves the weights alone."""
        return self._derive(1, index)

    def _derive(self, stream: int, index: int) -> int | None:
        if self.seed is None:
            return None
        word = np.random.SeedSequence((self.seed, stream, index)).generate_state(1)[0]
        return int(word >> 1)  # 31 bits fit wherever a layer may put its seed


def image_input(spec: Spec) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The model's input, uint8 [b, size, size, 3] in 0..255, and the same pixels scaled as `PIXELS` says."""
    images = keras.Input((spec.image_size, spec.image_size, 3), dtype="uint8", name="image")
    return images, scaled(images, spec.pixels, "scale")


def scaled(images: keras.KerasTensor, pixels: str, name: str) -> keras.KerasTensor:
    """Pixels 0..255, uint8 [b, h, w, 3], scaled as `PIXELS` says by a layer of that name.

    In float32 whatever the precision: bfloat16 cannot tell the middle greys apart before the offset is subtracted.
    What follows casts the result to its compute dtype.
    """
    order, factor, offset = PIXELS[pixels]
    x = images if order == [0, 1, 2] else keras.ops.take(images, order, axis=-1)
    return keras.layers.Rescaling(factor, offset=offset, dtype="float32", name=name)(x)


def classifier(x: keras.KerasTensor, spec: Spec, names: tuple[str, str, str], first_index: int) -> keras.KerasTensor:
    """Flatten, two hidden dense layers with dropout behind each, and the logits.

    Args:
        x: feature maps [b, h, w, c].
        spec: the model's.
        names: names of the three dense layers.
        first_index: number of layers with weights in front, for the seeds.

    Returns:
        Logits, float32 [b, classes], or [b, 1] for two classes.
    """
    x = keras.layers.Flatten(name="flatten")(x)
    for index, name in enumerate(names[:2], start=first_index):
        kernel = spec.kernel_initializer(index)
        x = keras.layers.Dense(DENSE_UNITS, activation="relu", kernel_initializer=kernel, name=name)(x)
        if spec.dropout:
            x = keras.layers.Dropout(spec.dropout, seed=spec.dropout_seed(index), name=f"{name}_dropout")(x)
    return logits(x, spec, first_index + 2, names[2])


def logits(x: keras.KerasTensor, spec: Spec, index: int, name: str) -> keras.KerasTensor:
    """The last dense layer, number ``index`` of those with weights: float32 [b, classes], or [b, 1] for two classes."""
    units = 1 if spec.classes == 2 else spec.classes
    x = keras.layers.Dense(units, kernel_initializer=spec.kernel_initializer(index), name=name)(x)
    return keras.layers.Activation("linear", dtype="float32", name="logits")(x)


def normalized(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Batch normalisation (Ioffe and Szegedy 2015) of feature maps, in front of their activation.

    Statistics that move by a tenth per step and an epsilon of 1e-5, as torchvision's networks have; Keras' defaults, a
    hundredth and 1e-3, are slow for an epoch of a few hundred steps.
    """
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


@keras.saving.register_keras_serializable("lockstep")
class LocalResponseNormalization(keras.layers.Layer):
    """y[c] = x[c] / (k + alpha * sum of x[j]^2 over the n channels j around c) ^ beta.

    Krizhevsky, Sutskever and Hinton 2012, section 3.3, whose constants are the defaults. Alpha multiplies the plain
    sum, as in the paper; Caffe and PyTorch divide it by n first.

    Input and output: [b, h, w, c], channels last. Computed in float32 whatever the precision, because TensorFlow has
    no bfloat16 kernel and the squares overflow float16 from activations of 256 on; the result has the compute dtype.
    """

    def __init__(self, *, k=2.0, n=5, alpha=1e-4, beta=0.75, name=None, dtype=None, trainable=True):
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        assert n % 2 == 1, f"n counts the channel itself and as many on both sides, so it is odd; got {n}"
        self.k, self.n, self.alpha, self.beta = k, n, alpha, beta

    def call(self, inputs):
        x = tf.cast(inputs, tf.float32)
        x = tf.nn.local_response_normalization(
            x, depth_radius=self.n // 2, bias=self.k, alpha=self.alpha, beta=self.beta
        )
        return tf.cast(x, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "k": self.k, "n": self.n, "alpha": self.alpha, "beta": self.beta}


@keras.saving.register_keras_serializable("lockstep")
class GroupedConv2D(keras.layers.Conv2D):
    """keras.layers.Conv2D with `groups`: on CPUs one ordinary convolution per group, on GPUs cuDNN's grouped one.

    Same arguments, weights and result as Keras' own, which sends grouped convolutions through XLA because TensorFlow's
    CPU kernels do not cover them: conv2 of AlexNet, forward and backward, batch 8, on 2 cores took 500 ms that way
    and takes 56 ms this way.
    """

    def convolution_op(self, inputs, kernel):
        if tf.config.get_visible_devices("GPU"):
            convolution = {"strides": self.strides, "padding": self.padding.upper(), "dilations": self.dilation_rate}
            data_format = "NHWC" if self.data_format == "channels_last" else "NCHW"
            return tf.nn.convolution(inputs, kernel, data_format=data_format, **convolution)
        channels = -1 if self.data_format == "channels_last" else 1
        inputs = keras.ops.split(inputs, self.groups, axis=channels)
        kernels = keras.ops.split(kernel, self.groups, axis=-1)
        convolve = super().convolution_op
        return keras.ops.concatenate([convolve(x, k) for x, k in zip(inputs, kernels, strict=True)], axis=channels)
