"""Plain Keras models that know nothing of workers: pixels in, logits out.

>>> model = build_model("alexnet_cifar", classes=10, image_size=32)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras

from models import alexnet, resnet, vgg
from models.layers import PIXELS as PIXELS
from models.layers import ModelError, Spec


@dataclass(frozen=True)
class Architecture:
    """An entry of `MODELS`. Sizes are the height and width of square images in pixels."""

    build: Callable[[Spec], keras.Model]
    default_size: int  # the one the layers were designed for
    min_size: int  # below it the last pooling has nothing left to pool
    default_dropout: float  # after both hidden dense layers; of a ResNet, which has none, in front of its last
    summary: str


MODELS: dict[str, Architecture] = {
    "alexnet": Architecture(alexnet.one_tower, 227, 67, 0.5, "AlexNet in one tower, no response normalisation"),
    "alexnet_bn": Architecture(alexnet.one_tower_bn, 227, 67, 0.5, "alexnet with batch normalisation"),
    "alexnet_2012": Architecture(alexnet.two_towers, 227, 67, 0.5, "AlexNet as in the paper: two towers, LRN"),
    "alexnet_cifar": Architecture(alexnet.small, 32, 16, 0.5, "a small AlexNet for 32x32 images"),
    "vgg11": Architecture(partial(vgg.build, convs_per_block=vgg.VGG11), 224, 32, 0.5, "VGG, configuration A"),
    "vgg13": Architecture(partial(vgg.build, convs_per_block=vgg.VGG13), 224, 32, 0.5, "VGG, configuration B"),
    "vgg16": Architecture(partial(vgg.build, convs_per_block=vgg.VGG16), 224, 32, 0.5, "VGG, configuration D"),
    "vgg19": Architecture(partial(vgg.build, convs_per_block=vgg.VGG19), 224, 32, 0.5, "VGG, configuration E"),
    "vgg11_bn": Architecture(
        partial(vgg.build, convs_per_block=vgg.VGG11, batch_norm=True), 224, 32, 0.5, "vgg11 with batch normalisation"
    ),
    "vgg13_bn": Architecture(
        partial(vgg.build, convs_per_block=vgg.VGG13, batch_norm=True), 224, 32, 0.5, "vgg13 with batch normalisation"
    ),
    "vgg16_bn": Architecture(
        partial(vgg.build, convs_per_block=vgg.VGG16, batch_norm=True), 224, 32, 0.5, "vgg16 with batch normalisation"
    ),
    "vgg19_bn": Architecture(
        partial(vgg.build, convs_per_block=vgg.VGG19, batch_norm=True), 224, 32, 0.5, "vgg19 with batch normalisation"
    ),
    "resnet20": Architecture(partial(resnet.build, blocks=3), 32, 8, 0.0, "ResNet of 20 layers for 32x32 images"),
    "resnet56": Architecture(partial(resnet.build, blocks=9), 32, 8, 0.0, "ResNet of 56 layers for 32x32 images"),
}


def build_model(
    name: str,
    *,
    classes: int,
    image_size: int,
    dropout: float | None = None,
    seed: int | None = None,
    pixels: str = "tf",
) -> keras.Model:
    """Build a model of `MODELS` with fresh weights.

    Args:
        name: a key of `MODELS`.
        classes: number of classes, at least 2.
        image_size: height and width in pixels, at least the architecture's `min_size`.
        dropout: rate in [0, 1) after both hidden dense layers; None: the architecture's own; 0: no dropout layers.
        seed: 0 or more; the same seed gives the same weights in any process. They do not depend on the dropout.
        pixels: a key of `PIXELS`: `tf` scales them to [-1, 1], `scaled` to [0, 1], `caffe` and `torch` as networks of
            those frameworks were trained on ImageNet.

    Returns:
        A functional model from uint8 pixels 0..255 [b, image_size, image_size, 3], which it scales
        itself, to float32 logits [b, classes]; for two classes [b, 1], the logit of class 1.

    Raises:
        ModelError: a value is not as said above.
    """
    if name not in MODELS:
        raise ModelError(f"model is {name!r}, but must be one of {', '.join(MODELS)}.")
    architecture = MODELS[name]
    _check_whole("number of classes", classes, 2, "check that the dataset has at least two class names")
    _check_whole(f"image size for {name}", image_size, architecture.min_size, _size_hint(image_size))
    if seed is not None:
        _check_whole("seed", seed, 0, "pass another, or None for a new one each time")
    rate = architecture.default_dropout if dropout is None else dropout
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise ModelError(f"dropout is {dropout!r}, but must be a rate in [0, 1); pass 0 to train without dropout.")
    return architecture.build(Spec(name, classes, image_size, rate, seed, pixels))


def _check_whole(what: str, value: int, least: int, hint: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ModelError(f"{what} is {value!r}, but must be a whole number of at least {least}; {hint}.")


def _size_hint(size: int) -> str:
    if isinstance(size, bool) or not isinstance(size, int):
        return "pass one number, the height and width in pixels"
    fitting = [name for name, architecture in MODELS.items() if size >= architecture.min_size]
    return f"use larger images or one of {', '.join(fitting)}" if fitting else "use larger images"
