"""Which layers of a file are which of a network: by name, else by their place."""

from collections import Counter
from dataclasses import dataclass

import keras
from keras.src.utils.naming import to_snake_case

from launch.job.weights.stored import Stored, StoredArray, StoredLayer, WeightsError


@dataclass(frozen=True)
class Match:
    """
    Attributes:
        taken: pairs of a layer of the network and the layer of the file whose values it gets.
        fresh: names of the network's layers that stay as the seed made them.
        unlike: (name, shapes in the file, shapes in the network) of layers of one name that do not fit.
        left: names of the file's layers that nothing takes.
        by: ``name`` or ``place``.
    """

    taken: list[tuple[keras.layers.Layer, StoredLayer]]
    fresh: list[str]
    unlike: list[tuple[str, str, str]]
    left: list[str]
    by: str


def match(network: keras.Model, stored: Stored, what: str) -> Match:
    """Find for each layer of a network the one of a file.

    Layers of one name and the same shapes belong together.  Where no name is known, layers belong together by class and
    number, or by their order, as long as the shapes are the same: networks that differ in their last dense layers.

    Args:
        what: what to call the file.

    Raises:
        WeightsError: nothing fits, or a name stands twice.
    """
    targets = layers_with_variables(network)
    named = Counter(layer.name for layer in stored.layers if layer.name)
    mine = {layer.name for layer, _ in targets}
    if mine & named.keys():
        if twice := [name for name, count in named.items() if count > 1 and name in mine]:
            raise WeightsError(f"{what} has several layers named {twice[0]}; give each its own name and save again")
        pairs, by = _by_name(targets, stored), "name"
    else:
        pairs, by = _by_place(targets, stored), "place"
    taken = [(layer, found) for layer, found in pairs if found and _fits(layer, found)]
    if not taken:
        difference = _first_difference(targets, stored)
        raise WeightsError(f"{what} fits no layer of the network: {difference}; take another file")
    filled, used = {id(layer) for layer, _ in taken}, {id(found) for _, found in taken}
    unlike = [
        (layer.name, _written([array.shape for array in in_order(layer, found)]), _written(shapes_of(layer)))
        for layer, found in pairs
        if found and id(layer) not in filled
    ]
    return Match(
        taken,
        [layer.name for layer, _ in targets if id(layer) not in filled],
        unlike,
        [layer.name or layer.slot for layer in stored.layers if id(layer) not in used],
        by,
    )


def layers_with_variables(network: keras.Model) -> list[tuple[keras.layers.Layer, str | None]]:
    """The layers that have variables of their own, in the network's order, and their places as Keras 3 writes them
    (None within a layer that is no model)."""
    found, seen = [], set()

    def walk(layers: list[keras.layers.Layer], slot: str | None) -> None:
        numbers = Counter()
        for layer in layers:
            name = to_snake_case(layer.__class__.__name__)
            number, numbers[name] = numbers[name], numbers[name] + 1
            place = slot and (f"{slot}/{name}_{number}" if number else f"{slot}/{name}")
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            if isinstance(layer, keras.Model):
                walk(layer.layers, place and f"{place}/layers")
                continue
            if own_variables(layer):
                found.append((layer, place))
            walk(layer._flatten_layers(include_self=False, recursive=False), None)

    walk(network.layers, "layers")
    return found


def own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """A layer's variables without those of layers within it, in the order in which Keras saves them."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def shapes_of(layer: keras.layers.Layer) -> list[tuple[int, ...]]:
    return [tuple(variable.shape) for variable in own_variables(layer)]


def in_order(layer: keras.layers.Layer, found: StoredLayer) -> list[StoredArray]:
    """The arrays of a file's layer in the order of ``own_variables``."""
    by_name = {array.name: array for array in found.arrays}
    names = [variable.name for variable in own_variables(layer)]
    return [by_name[name] for name in names] if set(names) == by_name.keys() else list(found.arrays)


def _by_name(targets: list, stored: Stored) -> list:
    named = {layer.name: layer for layer in stored.layers}
    return [(layer, named.get(layer.name)) for layer, _ in targets]


def _by_place(targets: list, stored: Stored) -> list:
    if not stored.ordered:
        places = {layer.slot: layer for layer in stored.layers}
        pairs = [(layer, places.get(slot)) for layer, slot in targets]
    else:
        pairs = [*zip((layer for layer, _ in targets), stored.layers, strict=False)]
    # What fits behind the first that does not is another network's.
    fits = [found is not None and _fits(layer, found) for layer, found in pairs]
    end = fits.index(False) if False in fits else len(fits)
    return pairs[: end + 1]


def _fits(layer: keras.layers.Layer, found: StoredLayer) -> bool:
    return shapes_of(layer) == [array.shape for array in in_order(layer, found)]


def _shapes(found: StoredLayer) -> list[tuple[int, ...]]:
    return [array.shape for array in found.arrays]


def _first_difference(targets: list, stored: Stored) -> str:
    if not stored.layers:
        return "it holds no layer with weights"
    found, layer = stored.layers[0], targets[0][0]
    there = f"its first is {found.name or found.slot} {_written(_shapes(found))}"
    return f"{there}, the network's first is {layer.name} {_written(shapes_of(layer))}"


def _written(shapes: list[tuple[int, ...]]) -> str:
    return " and ".join("x".join(map(str, shape)) or "()" for shape in shapes)
