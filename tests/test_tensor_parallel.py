"""Which two dense layers may be divided between the workers."""

import keras

from distributed.gradients.dense_layers import dense_layers, graph_nodes
from distributed.gradients.tensor_parallel import find_pair
from distributed.layers.dropout import SampleDropout


def test_pairs_are_found_by_what_lies_between():
    def find(*between, replicas=2, activation="relu", second=None, **first):
        inputs = keras.Input((4,))
        x = keras.layers.Dense(8, activation, name="first", **first)(inputs)
        for layer in between:
            x = layer(x)
        network = keras.Model(inputs, keras.layers.Dense(3, name="second", **(second or {}))(x))
        return find_pair(graph_nodes(network), [*dense_layers(network).values()], replicas)

    found = find(SampleDropout(0.5, seed=1))
    assert [layer.name for layer in found[:2]] == ["first", "second"] and len(found[2]) == 1
    assert find(replicas=4) is not None and find(activation=None) is not None
    assert find(replicas=3) is None  # 8 units do not divide
    assert find(keras.layers.BatchNormalization()) is None
    assert find(activation="softmax") is None  # needs all units
    whole = keras.constraints.MaxNorm(1.0)  # of a weight of which no worker has all
    assert find(kernel_constraint=whole) is None and find(bias_constraint=whole) is None
    assert find(second={"kernel_constraint": whole}) is None
    assert find(second={"bias_constraint": whole}) is not None


def test_a_pair_is_read_by_nobody_else():
    def find(build):
        inputs = keras.Input((4,))
        first, dropout = keras.layers.Dense(8, "relu", name="first"), SampleDropout(0.5, seed=1)
        second = keras.layers.Dense(3, name="second")
        network = keras.Model(inputs, build(inputs, first, dropout, second))
        return find_pair(graph_nodes(network), [*dense_layers(network).values()], 2)

    add = keras.layers.Add()
    assert find(lambda x, first, dropout, second: second(dropout(first(x)))) is not None
    assert find(lambda x, first, dropout, second: [second(hidden := first(x)), add([hidden, hidden])]) is None
    assert find(lambda x, first, dropout, second: [second(dropout(first(x))), dropout(x)]) is None
    assert find(lambda x, first, dropout, second: add([second(first(x)), second(first(x))])) is None


def test_layers_of_a_sequential_network_count_once():
    stack = [keras.Input((6,)), keras.layers.Dense(4, "relu", name="first"), keras.layers.Dense(3, name="last")]
    network = keras.Sequential(stack)
    assert [*dense_layers(network)] == ["first", "last"]
    assert find_pair(graph_nodes(network), [*dense_layers(network).values()], 2) is not None
    network.add(keras.layers.Dense(2, name="more"))
    assert [*dense_layers(network)] == ["first", "last", "more"]


def test_a_pair_lies_within_a_nested_network_and_nothing_of_it_leaves():
    def find(*outputs):
        inputs = keras.Input((4,))
        hidden = keras.layers.Dense(8, "relu", name="first")(inputs)
        last = keras.layers.Dense(6, name="second")(hidden)
        inner = keras.Model(inputs, [{"hidden": hidden, "last": last}[name] for name in outputs])
        images = keras.Input((4,))
        found = inner(images)
        found = keras.layers.Concatenate()(found) if len(found) > 1 else found[0]
        network = keras.Model(images, keras.layers.Dense(3, name="third")(found))
        return find_pair(graph_nodes(network), [*dense_layers(network).values()], 2)

    assert [layer.name for layer in find("last")[:2]] == ["first", "second"]
    assert find("last", "hidden") is None
