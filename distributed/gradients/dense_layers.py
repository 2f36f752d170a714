"""The dense layers whose gradient may travel as factors, and the notes that they leave of what it is made of."""

from collections import Counter

import keras
import tensorflow as tf
from keras.src.models.functional import Functional

from distributed import step_context
from distributed.gradients.matmul import multiply
from distributed.layers.dropout import LayerError


def dense_layers(network: keras.Model) -> dict[str, keras.layers.Dense]:
    """The layers whose gradient may travel as factors: plain dense layers on inputs [b, in] that are trained, called
    once in a step; also those of networks nested in this one.

    Returns:
        By name, in the same order on all workers; layers that share their name go by the path of their weights.
    """
    nodes = {id(node.operation): node for node in graph_nodes(network)}
    calls = Counter(id(node.operation) for node in graph_nodes(network))
    trained = {id(variable) for variable in network.trainable_variables}
    # A sequential network holds its layers twice.
    layers = {
        id(layer): layer
        for layer in network._flatten_layers()
        if type(layer) is keras.layers.Dense
        and calls[id(layer)] == 1
        and len(nodes[id(layer)].arguments.keras_tensors[0].shape) == 2
        and id(layer.kernel) in trained
    }
    names = Counter(layer.name for layer in layers.values())
    return {
        layer.name if names[layer.name] == 1 else layer.kernel.path.removesuffix("/kernel"): layer
        for layer in layers.values()
    }


def graph_nodes(network: keras.Model) -> list:
    """Every call of a layer in a functional or sequential network, and those in networks nested in it, as often as they
    are called: Keras' nodes, with the layer as ``operation``.  (A layer's own list of nodes holds calls of other
    networks as well.)"""
    # A sequential model keeps its calls in a functional one of its own.
    graph = getattr(network, "_functional", None) or network
    found = []
    for node in (node for nodes in graph._nodes_by_depth.values() for node in nodes):
        found.append(node)
        # A class derived from these may call its layers as it likes.
        if type(node.operation) in (Functional, keras.Sequential):
            found += graph_nodes(node.operation)
    return found


def record(layer: keras.layers.Dense, name: str) -> None:
    """Wrap the layer's ``call``: in a step it leaves a note, under this name, of what its gradient is made of."""
    plain = layer.call

    def call(inputs, training=None):
        context = step_context.current()
        if context is None:
            return plain(inputs, training=training)
        outputs = multiply(inputs, tf.convert_to_tensor(layer.kernel))
        if layer.bias is not None:
            outputs = keras.ops.add(outputs, layer.bias)
        if name in context.recorded:
            raise LayerError(
                f"the dense layer {name} is called twice in a step, from within a layer of yours; call it in the "
                "network itself, or use two layers"
            )
        context.recorded[name] = inputs, outputs
        return outputs if layer.activation is None else layer.activation(outputs)

    layer.call = call
