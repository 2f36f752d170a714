"""What is trained."""

from typing import Literal

from launch.job.settings.base import FileFunction, Positive, Settings, Share

Architecture = Literal[
    "alexnet",
    "alexnet_bn",
    "alexnet_2012",
    "alexnet_cifar",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "vgg11_bn",
    "vgg13_bn",
    "vgg16_bn",
    "vgg19_bn",
    "resnet20",
    "resnet56",
]


class NetworkSettings(Settings):
    """What is trained."""

    model: Architecture | FileFunction = "alexnet_cifar"
    """Architecture; alexnet_cifar is the small one for 32x32 images. Or your own: FILE.py:FUNCTION, called with
    (classes, image_size)."""
    weights: str | None = None
    """Begin at step 0 with these weights wherever layers and shapes fit, and train on: a run, a checkpoint, a file of
    Keras or safetensors. To go on with a run, optimizer and all, is --resume."""
    dropout: Share | None = None
    """Dropout rate of the dense layers; default: the architecture's."""
    batch_norm_span: Literal["global"] | Positive = "global"
    """Examples by whose mean and variance BatchNormalization goes in training: so many consecutive ones, which must
    divide a replica's micro-batch; global: the micro-batch over all replicas (with deterministic and micro-batch-size
    the micro-batch alone)."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the layers; weights stay float32, float16 scales the loss."""
