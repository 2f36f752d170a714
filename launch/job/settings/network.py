"""What is trained."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

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

# A network of keras.applications; which there are is known when TensorFlow has been loaded.
KerasNetwork = Annotated[str, Field(pattern=r"^keras:\w+$")]


class NetworkSettings(Settings):
    """What is trained."""

    model: Architecture | KerasNetwork | FileFunction = "alexnet_cifar"
    """Architecture; alexnet_cifar is the small one for 32x32 images. keras:NAME: one of keras.applications, such as
    keras:ResNet50; train.py --list-models names all. Or your own: FILE.py:FUNCTION, called with (classes,
    image_size)."""
    head: Literal["flatten", "average", "max"] | None = None
    """What turns the feature maps of keras:NAME into numbers for dense layers, in the place of the network's own
    classifier; default: the network's own."""
    head_units: tuple[Positive, ...] | None = None
    """Units of the hidden dense layers of head, such as 4096,4096 or 256; none: straight to the logits."""
    pixels: Literal["scaled", "caffe", "tf", "torch"] | None = None
    """How pixels are scaled in front of a network of models/ or your own: to 0..1, as for Caffe's networks, to -1..1,
    as for PyTorch's. Default: as the run that --weights or --resume names was trained; else tf for models/, and not at
    all for your own, which gets 0 to 255. keras:NAME has its own way."""
    dropout: Share | None = None
    """Dropout rate of the dense layers; default: the architecture's, with head 0."""
    batch_norm_span: Literal["global"] | Positive = "global"
    """Examples by whose mean and variance BatchNormalization goes in training: so many consecutive ones, which must
    divide a replica's micro-batch; global: the micro-batch over all replicas (with deterministic and micro-batch-size
    the micro-batch alone)."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the layers; weights stay float32, float16 scales the loss."""


def problems(c) -> Iterator[str]:
    """Sentences about settings that do not go together; ``c`` is the whole ``TrainConfig``."""
    from_keras = c.model.startswith("keras:")
    if c.pixels and from_keras:
        yield f"--pixels {c.pixels} was given, but {c.model} has its own way to scale pixels; leave it out"
    if c.head and not from_keras:
        yield f"--head {c.head} belongs to --model keras:NAME, not to {c.model}; leave it out"
    if c.head_units and not c.head:
        units = ",".join(map(str, c.head_units))
        yield f"--head-units {units} was given without --head, to which it belongs; add --head flatten, average or max"
    if from_keras and c.dropout is not None and not c.head:
        yield (
            f"--dropout {c.dropout} is for dense layers of --head, but {c.model} was given with its own classifier; "
            "add --head flatten, average or max, or leave --dropout out"
        )
