"""Where a network can be cut in two: what never changes in training, and what is trained."""

from typing import NamedTuple

import keras

from distributed.layers import convert


class Cut(NamedTuple):
    """
    Attributes:
        trunk: uint8 images [b, s, s, 3] -> float32 [b, width], the same in every step.
        shape: of one example's features, before they were flattened; the product is ``width``.
        head: features [b, *shape] -> logits; its layers are the network's own.
        layers: names of the trunk's layers that have weights.
    """

    trunk: keras.Model
    shape: tuple[int, ...]
    head: keras.Model
    layers: list[str]


def cut(network: keras.Model) -> Cut | None:
    """Cut a converted network behind the last tensor through which everything passes and before which nothing trains,
    draws or looks at the batch; None where no layer with weights lies before such a tensor."""
    graph = getattr(network, "_functional", None) or network
    (images,), (logits,) = graph.inputs, graph.outputs
    for tensor in reversed(_tensors(graph)):
        before = _upstream([tensor], until=None)
        if tensor is images or not all(_is_still(operation) for operation in before.values()):
            continue
        after = _upstream([logits], until=tensor)
        if id(_operation(images)) in after or tensor.shape[0] is not None or None in tensor.shape[1:]:
            continue
        frozen = [operation.name for operation in before.values() if getattr(operation, "weights", None)]
        if not frozen:
            return None
        flat = keras.layers.Flatten(dtype="float32", name="features")(tensor)
        return Cut(keras.Model(images, flat), tuple(tensor.shape[1:]), keras.Model(tensor, logits), frozen)
    return None


def _tensors(graph: keras.Model) -> list[keras.KerasTensor]:
    """What its layers put out, from the images on."""
    depths = sorted(graph._nodes_by_depth, reverse=True)
    return [tensor for depth in depths for node in graph._nodes_by_depth[depth] for tensor in node.outputs]


def _upstream(tensors: list[keras.KerasTensor], until: keras.KerasTensor | None) -> dict[int, object]:
    """Every operation that tensors depend on, without going further back than ``until``; by ``id``, the last first."""
    found, waiting = {}, list(tensors)
    while waiting:
        tensor = waiting.pop()
        if tensor is until:
            continue
        operation, node, _ = tensor._keras_history
        if (id(operation), node) in found:
            continue
        found[id(operation), node] = operation
        waiting += operation._inbound_nodes[node].input_tensors
    return {key: operation for (key, _), operation in found.items()}


def _operation(tensor: keras.KerasTensor):
    return tensor._keras_history.operation


def _is_still(operation) -> bool:
    """Whether what an operation gives for an example is the same in every step."""
    if not isinstance(operation, keras.layers.Layer):
        return True
    return not operation.trainable_variables and not any(
        convert.draws(layer) or convert.normalises_by_batch(layer)
        for layer in convert.all_layers(operation)
    )
