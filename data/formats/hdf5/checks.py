"""What an HDF5 file holds, looked at before it is trusted: where its arrays lie, their shapes, ranges and labels."""

import math
from collections.abc import Iterator, Sequence

import h5py
import numpy as np
import psutil

from data.datasets import DataError
from data.formats.arrays.convert import scale_between, whole_labels

ROWS, PART = 1024, 1 << 26  # images, and their bytes, that are read at once where all are looked at
LARGEST_CHUNK = 1 << 28  # bytes; HDF5 unpacks whole chunks


def is_array(file: h5py.File, name: str, path: str) -> bool:
    """Whether a name, a/b within a group, is that of an array; DataError where part of it is a link, which may lead
    into other files."""
    place = file
    for part in name.split("/"):
        if not isinstance(place, h5py.Group) or part not in set(place):
            return False
        if place.get(part, getclass=True, getlink=True) is not h5py.HardLink:
            raise DataError(
                f"{path}: {name} is a link to elsewhere, which is not followed: copy the array into its place."
            )
        place = place[part]
    return isinstance(place, h5py.Dataset)


def groups_without(file: h5py.File, arrays: Sequence[str]) -> list[str]:
    """The groups that hold none of the arrays."""
    return [f"{name}/" for name in file if not any(array.split("/")[0] == name for array in arrays)]


def _refuse_elsewhere(dataset: h5py.Dataset, name: str, path: str) -> None:
    """Raise DataError for an array that lies in another file, of which numbers are missing, or whose parts are too
    large."""
    if dataset.is_virtual or dataset.external:
        raise DataError(f"{path}: {name} points into other files, which is not followed: copy the numbers into it.")
    stored, size = dataset.id.get_storage_size(), (dataset.size or 0) * dataset.dtype.itemsize
    packed = dataset.id.get_create_plist().get_nfilters() > 0
    # HDF5 would make up what is missing.
    if size and (not stored if packed else stored < size):
        raise DataError(f"{path}: {name} should have {size:,} bytes and has {stored:,}: copy or write the file again.")
    chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    if chunk > LARGEST_CHUNK:
        raise DataError(f"{path}: {name} has chunks of {chunk:,} bytes: expected at most {LARGEST_CHUNK:,}.")


def find_scale(pixels: h5py.Dataset, name: str, path: str, trained: float | None) -> float | None:
    """By what pixels are to be multiplied, None where they are uint8: that of training, which is not known where it is
    NaN.

    Raises:
        DataError: no pictures by shape or type, or not in the range that training has.
    """
    _refuse_elsewhere(pixels, name, path)
    shape, first = pixels.shape or (), trained is not None and math.isnan(trained)
    if not (len(shape) == 3 or len(shape) == 4 and shape[3] in (1, 3)) or 0 in shape:
        raise DataError(f"{path}: {name} has shape {shape}: expected [n, height, width] or [n, height, width, 1 or 3].")
    if pixels.dtype == np.uint8 and (first or trained in (None, 1)):
        return None if first else trained
    span = (math.nan, math.nan)
    if pixels.dtype.kind in "iuf" and trained is not None:
        ends = np.array([(part.min(), part.max()) for part in parts(pixels)])
        span = (ends[:, 0].min(), ends[:, 1].max())
    scale = scale_between(*span, pixels.dtype) if first else trained
    if scale is None:
        raise DataError(f"{path}: {name} is {pixels.dtype}: expected uint8 pixels 0 to 255; convert it.")
    if not (span[0] >= 0 and span[1] <= 255 / scale):
        raise DataError(f"{path}: {name} is not in the range 0 to {255 / scale:g}, as training is: scale it.")
    return scale


def parts(pixels: h5py.Dataset) -> Iterator[np.ndarray]:
    """All images, so many at a time as memory has room for anywhere."""
    rows = max(1, min(ROWS, PART // max(1, math.prod(pixels.shape[1:]) * pixels.dtype.itemsize)))
    for start in range(0, len(pixels), rows):
        yield pixels[start : start + rows]


def read_labels(dataset: h5py.Dataset, name: str, count: int, path: str) -> np.ndarray:
    _refuse_elsewhere(dataset, name, path)
    size, free = (dataset.size or 0) * dataset.dtype.itemsize, psutil.virtual_memory().available
    if size > free:
        raise DataError(f"{path}: {name} takes {size:,} bytes, of which {free:,} are free here: make it smaller.")
    one_per_image = dataset.ndim in (1, 2) and len(dataset) == count and dataset.dtype.kind in "biuf"
    labels = whole_labels(dataset[()]) if one_per_image else np.zeros(0)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: {name} is {dataset.dtype} of shape {dataset.shape}: expected {count} integers.")
    return labels
