"""AlexNet: the network of 2012 in two towers, the same in one tower, and a small one for 32x32 images.

Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012.
"""

from typing import NamedTuple

import keras

from models.layers import GroupedConv2D, LocalResponseNormalization, Spec, classifier, image_input, normalized


class Conv(NamedTuple):
    """One line of a table: convolution and ReLU, then normalisation and pooling where the table says so.  Batch
    normalisation comes in front of the ReLU, and the convolution then has no bias."""

    filters: int
    kernel: int  # height and width in pixels
    stride: int = 1
    padding: str = "same"
    groups: int = 1
    normalize: bool = False
    batch_norm: bool = False
    pool: int = 0  # window of the max pooling with stride 2 behind this layer; 0: none


ONE_TOWER = (
    Conv(96, 11, stride=4, padding="valid", pool=3),
    Conv(256, 5, pool=3),
    Conv(384, 3),
    Conv(384, 3),
    Conv(256, 3, pool=3),
)

# The towers exchange features in conv3 only, hence the groups elsewhere.
TWO_TOWERS = (
    Conv(96, 11, stride=4, padding="valid", normalize=True, pool=3),
    Conv(256, 5, groups=2, normalize=True, pool=3),
    Conv(384, 3),
    Conv(384, 3, groups=2),
    Conv(256, 3, groups=2, pool=3),
)

ONE_TOWER_BN = tuple(conv._replace(batch_norm=True) for conv in ONE_TOWER)

SMALL = (
    Conv(24, 5, pool=2),
    Conv(64, 3, pool=2),
    Conv(128, 3),
    Conv(64, 3, pool=2),
    Conv(64, 3, pool=2),
)


def one_tower(spec: Spec) -> keras.Model:
    """In one tower, without response normalisation. 62,378,344 parameters at 227x227, 1000 classes."""
    return _build(spec, ONE_TOWER)


def one_tower_bn(spec: Spec) -> keras.Model:
    """In one tower, with batch normalisation. 62,382,472 parameters at 227x227, 1000 classes."""
    return _build(spec, ONE_TOWER_BN)


def two_towers(spec: Spec) -> keras.Model:
    """The paper's network. 60,965,224 parameters at 227x227, 1000 classes.

    It departs from the paper in its initial values: he_uniform and zero biases. The paper's (normal with deviation
    0.01, biases of 1) were made for pixels up to 255; with pixels in [-1, 1] the logits differ by 6e-5 from image to
    image. On ten classes of oriented gratings (67x67, batch 32, SGD with momentum 0.9) they did no better than chance
    within 90 steps at rates 0.001, 0.01 and 0.05; he_uniform came to a loss below 0.02 at 0.003 and 0.01.
    """
    return _build(spec, TWO_TOWERS)


def small(spec: Spec) -> keras.Model:
    """For 32x32 images. 18,075,242 parameters at 32x32, 10 classes."""
    return _build(spec, SMALL)


def _build(spec: Spec, convs: tuple[Conv, ...]) -> keras.Model:
    images, x = image_input(spec)
    for index, conv in enumerate(convs):
        number = index + 1
        convolution = keras.layers.Conv2D if conv.groups == 1 else GroupedConv2D
        x = convolution(
            conv.filters,
            conv.kernel,
            strides=conv.stride,
            padding=conv.padding,
            groups=conv.groups,
            activation=None if conv.batch_norm else "relu",
            use_bias=not conv.batch_norm,
            kernel_initializer=spec.kernel_initializer(index),
            name=f"conv{number}",
        )(x)
        if conv.batch_norm:
            x = normalized(x, f"bn{number}")
            x = keras.layers.Activation("relu", name=f"relu{number}")(x)
        if conv.normalize:
            x = LocalResponseNormalization(name=f"norm{number}")(x)
        if conv.pool:
            x = keras.layers.MaxPooling2D(conv.pool, strides=2, name=f"pool{number}")(x)
    return keras.Model(images, classifier(x, spec, ("fc6", "fc7", "fc8"), first_index=len(convs)), name=spec.name)
