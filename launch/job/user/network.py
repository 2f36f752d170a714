"""The user's own network, built and checked before the first step: pixels in, logits out."""

import re
from collections import Counter
from collections.abc import Callable

import keras
import tensorflow as tf

# Layer names are counted per process, and checkpoints go by them; Keras has no public way to begin anew.
from keras.src.utils.naming import reset_uids

from models import ModelError
from models.layers import scaled

# Layers and operations that turn logits into something else, where they are not a layer's ``activation``.
_ACTIVATIONS = {"Softmax", "LogSoftmax", "Sigmoid", "LogSigmoid", "HardSigmoid", "Tanh", "Softplus", "Softsign"}
_ACTIVATIONS |= {"ReLU", "Relu", "Relu6", "LeakyReLU", "LeakyRelu", "PReLU", "ELU", "Elu", "Gelu", "Silu", "Selu"}
# What leaves every logit as it is.
_SHAPES_ONLY = (keras.layers.Reshape, keras.layers.Flatten, keras.layers.Identity)


def build_network(
    function: Callable[[int, int], keras.Model], classes: int, image_size: int, pixels: str | None = None
) -> keras.Model:
    """Call the user's function and check what it gives.

    Layers are named as in a fresh process, so that checkpoints fit, whatever was built before.

    Args:
        function: ``(classes, image_size) -> keras.Model``; the size is the height and width of the images in pixels.
        classes: at least 2.
        image_size: as the function gets it.
        pixels: a key of ``models.PIXELS``, to scale pixels so in front of the network; None: that is left to it.

    Returns:
        A functional or sequential model, built: uint8 pixels 0..255 [b, image_size, image_size, 3] -> float32 logits
        [b, classes], or [b, 1] for two classes.  Its input may be of a float dtype; Keras then casts the pixels, still
        0..255.  Logits of another float dtype, as under a mixed policy, are cast to float32 by a last layer.

    Raises:
        ModelError: it is something else.
        UserCodeError: the function, of the command line, raised an exception.
    """
    who = getattr(function, "reference", None) or f"model {getattr(function, '__name__', type(function).__name__)}"
    if isinstance(function, keras.Model) or not callable(function):
        kind = type(function).__name__
        raise ModelError(
            f"model is of type {kind}, but must be a function (classes, image_size) that builds a keras.Model."
        )
    reset_uids()
    network = function(classes, image_size)
    if isinstance(network, keras.Sequential) and not network.built:
        _build_sequential(network, image_size, who)
    for problem in _problems(network, classes, image_size):
        raise ModelError(f"{who} {problem}.")
    if pixels is not None:
        network = _with_pixels(network, image_size, pixels, who)
    output = network.outputs[0]
    if output.dtype == "float32":
        return network
    logits = keras.layers.Activation("linear", dtype="float32", name="float32_logits")(output)
    return keras.Model(network.inputs[0], logits, name=network.name)


def _with_pixels(network: keras.Model, size: int, pixels: str, who: str) -> keras.Model:
    """The network behind what scales pixels, its layers in one graph with that."""
    if "float" not in network.inputs[0].dtype:
        raise ModelError(
            f"{who} gave a model of {network.inputs[0].dtype} images, which scales them itself, but --pixels {pixels} "
            "does so in front of it; leave --pixels out, or the dtype of keras.Input and the scaling."
        )
    images = keras.Input((size, size, 3), dtype="uint8", name="image")
    # Called as a layer the network would be a single one of the new network's.
    return keras.Model(images, network.call(scaled(images, pixels, "scale_pixels")), name=network.name)


def _build_sequential(network: keras.Sequential, image_size: int, who: str) -> None:
    try:
        network.build((None, image_size, image_size, 3))
    except Exception as error:
        raise ModelError(
            f"{who} gave a Sequential model that cannot be built for images [None, {image_size}, {image_size}, 3]: "
            f"{_reason(error)}."
        ) from error


def _problems(network, classes: int, size: int):
    """What is wrong with a network, in words that go on after the name of its function; the first is the cause."""
    if not isinstance(network, keras.Model):
        yield f"gave an object of type {type(network).__name__}, but must give a keras.Model"
    if not getattr(network, "inputs", None):
        yield (
            f"gave a model of type {type(network).__name__}, whose layers only its own code knows, but must give a "
            f"functional or sequential model; give keras.Model(inputs, outputs) of keras.Input(({size}, {size}, 3))"
        )
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        count = f"{len(network.inputs)} inputs and {len(network.outputs)} outputs"
        yield f"gave a model of {count}, but it must have one of each, images and logits"
    (images,), (logits,) = network.inputs, network.outputs
    if isinstance(getattr(network, "output", None), dict):
        yield "gave a model whose output is a dict, but it must be one tensor; write keras.Model(inputs, outputs)"
    yield from _input_problems(images, size)
    yield from _output_problems(logits, classes)
    if not network.trainable_weights:
        yield "gave a model without trainable weights, so that there is nothing to train"
    paths = Counter(weight.path for weight in network.weights)
    if twice := next((path for path, count in paths.items() if count > 1), None):
        yield (
            f"gave a model with {paths[twice]} weights called {twice!r}, which checkpoints could not tell apart; give "
            "the layers of networks nested in it names of their own"
        )
    if reason := _try(network, size):
        hint = ""
        if "float" not in images.dtype:
            hint = "; begin with keras.layers.Rescaling, or leave the dtype of keras.Input out"
        yield f"gave a model that fails on images uint8 [2, {size}, {size}, 3] ({reason}){hint}"


def _input_problems(images: keras.KerasTensor, size: int):
    shape = tuple(images.shape)
    fits = len(shape) == 4 and shape[0] is None and shape[3] == 3 and {*shape[1:3]} <= {None, size}
    if not fits:
        yield (
            f"gave a model of images {list(shape)} (layer {_operation(images).name!r}), but they are "
            f"[None, {size}, {size}, 3]; write keras.Input((image_size, image_size, 3))"
        )
    if images.dtype not in ("uint8", "int32", "int64", "bfloat16", "float16", "float32", "float64"):
        yield f"gave a model of {images.dtype} images, but pixels are uint8; leave out the dtype of keras.Input"


def _output_problems(logits: keras.KerasTensor, classes: int):
    name, shape, units = _operation(logits).name, list(logits.shape), 1 if classes == 2 else classes
    if shape != [None, units]:
        why = "one logit, that of class 1" if classes == 2 else "one logit per class"
        yield (
            f"gave a model that ends in {shape} (layer {name!r}), but for {classes} classes it must end in "
            f"[None, {units}], {why}"
        )
    if "float" not in logits.dtype:
        yield f"gave a model that ends in {logits.dtype} (layer {name!r}), but logits are float32"
    if ending := _activation(logits):
        what, name = ending
        yield (
            f"ends in {what} (layer {name!r}), but the losses here take logits; end it with a Dense layer without "
            "activation"
        )


def _activation(tensor: keras.KerasTensor) -> tuple[str, str] | None:
    """The activation that a tensor has passed last, if it is not linear, and the name of the layer that applied it."""
    operation = _operation(tensor)
    if isinstance(operation, keras.Model):  # a network that is a layer of this one
        return _activation(operation.outputs[0]) if getattr(operation, "outputs", None) else None
    activation = getattr(operation, "activation", None)
    if activation not in (None, keras.activations.linear):
        return getattr(activation, "__name__", type(activation).__name__), operation.name
    if type(operation).__name__ in _ACTIVATIONS:
        return type(operation).__name__.lower(), operation.name
    if isinstance(operation, (keras.layers.Activation, *_SHAPES_ONLY)):
        return _activation(operation.input)
    return None


def _operation(tensor: keras.KerasTensor):
    """The layer or operation whose output it is."""
    return tensor._keras_history.operation


def _try(network: keras.Model, size: int) -> str | None:
    """Why the network cannot take pixels, or None; traced, not computed.

    Keras lets a convolution on uint8 be built, and an image be too small for a network of any size.
    """
    pixels = tf.TensorSpec([2, size, size, 3], tf.uint8)
    try:
        tf.function(lambda images: network(images, training=False)).get_concrete_function(pixels)
    except Exception as error:
        return _reason(error)


def _reason(error: Exception) -> str:
    """The one line of Keras' many that says it."""
    # Without the terminal's colours and the names of graph nodes.
    text = re.sub(r"\x1b\[\d*m| for '\{\{node .*|\{\{.*?\}\}", "", str(error))
    called = re.search(r"Exception encountered when calling (\S+)\.call\(\)\.\s+(.+)", text)
    text = f"{called[1]}: {called[2]}" if called else next(iter(text.strip().splitlines()), type(error).__name__)
    text = text.strip(" .")
    return text if len(text) <= 200 else f"{text[:200]} ..."
