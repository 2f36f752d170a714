"""A run's network for those who do not have Lockstep: the same numbers, computed by Keras' own layers alone."""

from collections.abc import Callable

import keras
import numpy as np

# Neither the stochastic depth of ConvNeXt nor the class of keras.Model(inputs, outputs) has a public name.
from keras.src.applications.convnext import StochasticDepth
from keras.src.models.functional import Functional

from models.layers import GroupedConv2D, LocalResponseNormalization


def plain_network(network: keras.Model, image_size: int) -> keras.Model:
    """Lay the network anew over an input of uint8 pixels, without what only training or this repository needs.

    Dropout and stochastic depth are left out, and ``models.layers`` are composed of Keras' own layers. All others are
    the very same objects: a clone would lose what a layer's configuration does not hold, such as adapted statistics.

    Args:
        network: functional, images [b, image_size, image_size, 3] of any dtype -> one tensor; it stays as it is.
        image_size: height and width in pixels.

    Returns:
        A functional model: uint8 [b, image_size, image_size, 3] -> what ``network`` gives, within a few last bits.
    """
    images = keras.Input((image_size, image_size, 3), dtype="uint8", name="images")
    dtype = network.inputs[0].dtype
    pixels = images if dtype == "uint8" else keras.ops.cast(images, dtype)
    return keras.Model(images, _lay(network, pixels, {}), name=network.name)


def layers_of_others(network: keras.Model) -> list[keras.layers.Layer]:
    """The layers that are not Keras' own, one of each class, wherever they stand in the network."""
    found = {type(layer): layer for layer in network._flatten_layers(include_self=False)}
    return [layer for kind, layer in found.items() if kind.__module__.partition(".")[0] != "keras"]


def _lay(network: keras.Model, inputs, made: dict):
    """The outputs of a network over other inputs; ``made`` holds replacements by the id of what they replace."""

    def call(layer, *args, **kwargs):
        if id(layer) not in made:
            made[id(layer)] = _replacement(layer, args[0] if args else None, made)
        return made[id(layer)](*args, **kwargs)

    # keras.models.clone_model does the same, but makes its own inputs whatever it is given.
    return network._run_through_graph(inputs, call_fn=call)


def _replacement(layer, inputs, made: dict) -> Callable:
    """What to call in the place of a layer, which may be called on other inputs too."""
    if type(layer) in (keras.layers.Dropout, StochasticDepth):
        return lambda x, **_: x
    if type(layer) in (keras.layers.Conv2D, GroupedConv2D) and layer.groups > 1:
        return _convolution_by_groups(layer)
    if type(layer) is LocalResponseNormalization:
        return _response_normalization(layer, inputs.shape[-1])
    if type(layer) is keras.Sequential:
        layer = keras.Model(layer.inputs[0], layer.outputs[0], name=layer.name)
    if type(layer) is Functional:
        own = keras.tree.map_structure(lambda x: keras.Input(batch_shape=x.shape, dtype=x.dtype), layer.input)
        return keras.Model(own, _lay(layer, own, made), name=layer.name)
    return layer


def _convolution_by_groups(layer: keras.layers.Conv2D) -> Callable:
    """One convolution per group: Keras' grouped one goes through XLA, which ONNX knows nothing of."""
    axis = -1 if layer.data_format == "channels_last" else 1
    parts = [
        keras.layers.Conv2D(
            layer.filters // layer.groups,
            layer.kernel_size,
            strides=layer.strides,
            padding=layer.padding,
            data_format=layer.data_format,
            dilation_rate=layer.dilation_rate,
            use_bias=layer.use_bias,
            dtype=layer.dtype_policy,
            name=f"{layer.name}_group{group + 1}",
        )
        for group in range(layer.groups)
    ]
    join = keras.layers.Concatenate(axis=axis, dtype=layer.dtype_policy, name=f"{layer.name}_groups")
    activate = keras.layers.Activation(layer.activation, dtype=layer.dtype_policy, name=layer.name)
    # The last axis of a kernel and of a bias is that of the filters.
    weights = [*zip(*(np.split(weight, layer.groups, axis=-1) for weight in layer.get_weights()), strict=True)]

    def call(x):
        pieces = keras.ops.split(x, layer.groups, axis=axis)
        y = activate(join([part(piece) for part, piece in zip(parts, pieces, strict=True)]))
        for part, own in zip(parts, weights, strict=True):
            part.set_weights(own)
        return y

    return call


def _response_normalization(layer: LocalResponseNormalization, channels: int) -> Callable:
    """The sum over neighbouring channels is a 1x1 convolution with a band of ones."""
    scale = keras.layers.Multiply(dtype="float32", name=layer.name)
    places = np.arange(channels)
    band = layer.alpha * (abs(places[:, None] - places) <= layer.n // 2)
    sums = keras.layers.Conv2D(channels, 1, dtype="float32", trainable=False, name=f"{layer.name}_sums")

    def call(x):
        bases = sums(keras.ops.square(x))
        sums.set_weights([band[None, None], np.full(channels, layer.k)])
        return scale([x, keras.ops.power(bases, -layer.beta)])

    return call
