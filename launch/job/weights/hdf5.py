"""Weights in HDF5, in the layouts of Keras 3 and of the versions before; nothing but numbers is read.

Layouts: ``keras.src.saving.saving_lib`` (``layers/<class>_<number>/vars/<number>``, of late with the layer's name as an
attribute) and ``keras.src.legacy.saving.legacy_h5_format`` (attributes ``layer_names`` and ``weight_names``).
"""

import math
import re
from collections.abc import Iterator

import h5py
import numpy as np

from launch.job.weights.stored import Stored, StoredArray, StoredLayer, WeightsError

# HDF5 groups are a tree unless somebody has bent them.
DEEPEST, MOST_GROUPS = 64, 200_000
LARGEST_CHUNK = 1 << 28  # bytes; HDF5 unpacks whole chunks
# What Keras keeps beside a network's own variables.
BESIDE = ("optimizer", "seed_generator", "_metrics", "metrics", "_optimizer")
ADVICE = "write it anew: model.save_weights(...)"


def read_layers(file: h5py.File, what: str) -> Stored:
    """The layers of an open file; arrays are read later, while it is open.

    Args:
        what: what to call the file.

    Raises:
        WeightsError: neither layout, or links and the like where numbers were expected.
    """
    root = _child(file, "model_weights", what) if "model_weights" in file else file
    if any(name in root.attrs for name in ("layer_names", "layer_names0")):
        return Stored("weights of Keras 1 or 2", tuple(_old_layers(root, what)), ordered=True)
    for top in ("layers", "_layer_checkpoint_dependencies"):
        if top in file:
            layers = tuple(_new_layers(_child(file, top, what), what))
            return Stored("weights of Keras 3", layers, ordered=False)
    raise WeightsError(f"{what} is HDF5, but neither weights of Keras 3 nor of Keras 1 or 2; {ADVICE}")


def _new_layers(top: h5py.Group, what: str) -> Iterator[StoredLayer]:
    """Every group with variables of its own, those of one class in the order of their numbers."""
    waiting, seen = [(top, "layers", 0)], 0
    while waiting:
        group, slot, depth = waiting.pop(0)
        seen += 1
        if depth > DEEPEST or seen > MOST_GROUPS:
            raise WeightsError(f"{what} has groups within groups without end; {ADVICE}")
        if not isinstance(group, h5py.Group):
            raise WeightsError(f"{what}: {slot} is an array where a layer was expected; {ADVICE}")
        names = sorted(group, key=_natural)
        if "vars" in names:
            variables = _child(group, "vars", what)
            if not isinstance(variables, h5py.Group):
                raise WeightsError(f"{what}: {slot}/vars is an array where a layer's variables were expected; {ADVICE}")
            arrays = tuple(_array(variables, key, what) for key in sorted(variables, key=_natural))
            if arrays:
                yield StoredLayer(_text(variables.attrs.get("name")), slot, arrays)
        inner = [name for name in names if name not in (*BESIDE, "vars")]
        waiting[:0] = [(_child(group, name, what), f"{slot}/{name}", depth + 1) for name in inner]


def _old_layers(root: h5py.Group, what: str) -> Iterator[StoredLayer]:
    for name in _names(root, "layer_names", what):
        group = _child(root, name, what)
        arrays = tuple(_array(group, key, what) for key in _names(group, "weight_names", what))
        if arrays:
            yield StoredLayer(name.rpartition("/")[2], None, arrays)


def _names(group: h5py.Group, attribute: str, what: str) -> list[str]:
    """A list of names, which Keras cuts into several attributes where it is long."""
    pieces = [attribute] if attribute in group.attrs else []
    pieces = pieces or [key for key in (f"{attribute}{n}" for n in range(len(group.attrs))) if key in group.attrs]
    try:
        return [_text(name) for piece in pieces for name in group.attrs[piece]]
    except (TypeError, OSError, ValueError) as error:
        raise WeightsError(f"{what} has {attribute} that are no list of names ({error}); {ADVICE}") from error


def _array(group: h5py.Group, name: str, what: str) -> StoredArray:
    data = _child(group, name, what)
    place = f"{what}: {name}"
    if not isinstance(data, h5py.Dataset) or data.shape is None:
        raise WeightsError(f"{place} is no array; {ADVICE}")
    if data.is_virtual or data.external:
        raise WeightsError(f"{place} points into other files, which is not followed; {ADVICE}")
    if data.dtype.kind not in "fiu":
        raise WeightsError(f"{place} is of type {data.dtype}, expected numbers; {ADVICE}")
    stored, size = data.id.get_storage_size(), data.size * data.dtype.itemsize
    packed = data.id.get_create_plist().get_nfilters() > 0
    # HDF5 would make up what is missing.
    if size and (not stored if packed else stored < size):
        raise WeightsError(f"{place} should be {list(data.shape)}, but the file holds less; fetch it again")
    if (chunk := math.prod(data.chunks or ()) * data.dtype.itemsize) > LARGEST_CHUNK:
        raise WeightsError(f"{place} has chunks of {chunk:,} bytes, expected {LARGEST_CHUNK:,} at most; {ADVICE}")

    def read() -> np.ndarray:
        # HDF5 converts, also from 16 bits of either kind.
        return data.astype(np.float32)[()]

    return StoredArray(None, tuple(data.shape), read)


def _child(group: h5py.Group, name: str, what: str) -> h5py.Group | h5py.Dataset:
    """What lies in a group, step by step; links to elsewhere are not followed."""
    for part in name.split("/"):
        if not isinstance(group, h5py.Group) or part not in group:
            raise WeightsError(f"{what} names {name}, which is not in it; fetch it again")
        if group.get(part, getclass=True, getlink=True) is not h5py.HardLink:
            raise WeightsError(f"{what}: {name} is a link to elsewhere, which is not followed; {ADVICE}")
        group = group[part]
    return group


def _text(value) -> str | None:
    return value.decode("utf8", "replace") if isinstance(value, bytes) else None if value is None else str(value)


def _natural(name: str) -> list:
    """conv2d, conv2d_1, conv2d_2, conv2d_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part]
