"""What a file of weights holds, before anything of it is read: layers in order, each with its arrays."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


class WeightsError(ValueError):
    """A file of weights that cannot be used; its message is one sentence.  It ends a program with exit code 2."""


@dataclass(frozen=True)
class StoredArray:
    """One variable in a file.

    Attributes:
        name: its name within the layer, such as ``kernel``; None where the file keeps none.
        shape: as the file says.
        read: gives the values, float32; what it allocates is of ``shape``.
    """

    name: str | None
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class StoredLayer:
    """One layer in a file.

    Attributes:
        name: its name; None where the file keeps none.
        slot: its place by class and number, as Keras 3 writes it, such as ``layers/conv2d_1``; None elsewhere.
        arrays: its variables, in the order in which Keras has them.
    """

    name: str | None
    slot: str | None
    arrays: tuple[StoredArray, ...]


@dataclass(frozen=True)
class Stored:
    """A file of weights.

    Attributes:
        kind: in words.
        layers: those that have variables.
        ordered: whether they stand in the order of the network.
    """

    kind: str
    layers: tuple[StoredLayer, ...]
    ordered: bool
