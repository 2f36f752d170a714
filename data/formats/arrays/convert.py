"""Pixels and labels in other forms than uint8 and 0, 1, ...: recognised, and made these."""

from collections.abc import Sequence

import numpy as np

from data.datasets import DataError

# Ends the message on labels of an archive that `renumber` leaves with gaps.
GAP = "labels must cover 0, or 1, to the largest; if the gaps are meant, pass --classes with all labels"


def scale_of(pixels: np.ndarray) -> float | None:
    """What pixels must be multiplied by to be 0 to 255; None for uint8, and for what is no picture."""
    if pixels.dtype == np.uint8 or not _is_real(pixels):
        return None
    return scale_between(pixels.min(), pixels.max(), pixels.dtype)


def scale_between(low: float, high: float, dtype: np.dtype) -> float | None:
    """`scale_of` for pixels of which the least and the largest are known."""
    if not (low >= 0 and high <= 255):  # also for NaN
        return None
    if np.issubdtype(dtype, np.floating):
        return 255.0 if high <= 1 else 1.0
    return 1.0


def to_uint8(pixels: np.ndarray, scale: float | None, name: str, place: str) -> np.ndarray:
    """Pixels as uint8, rounded, by the scale of the training pixels; as they are where that is None.

    Raises:
        DataError: they are not in the range that training has.
    """
    # What is no picture is refused where the source is made.
    if scale is None or pixels.dtype == np.uint8 and scale == 1 or not _is_real(pixels):
        return pixels
    if not (pixels.min() >= 0 and pixels.max() <= 255 / scale):
        raise DataError(f"{place}: {name} is not in the range 0 to {255 / scale:g}, as training is: scale it.")
    return np.concatenate(  # by parts, as float pixels may fill the memory
        [np.rint(np.multiply(pixels[at : at + 1024], scale, dtype=np.float32)).astype(np.uint8)
         for at in range(0, len(pixels), 1024)]
    )  # fmt: skip


def _is_real(pixels: np.ndarray) -> bool:
    return pixels.ndim > 2 and pixels.size > 0 and pixels.dtype.kind in "iuf"


def scale_note(scale: float | None, dtype: np.dtype, name: str) -> str | None:
    """How the pixels were understood, or None where they are uint8."""
    if scale is None:
        return None
    how = "0 to 1: multiplied by 255 and rounded" if scale == 255 else "0 to 255: rounded"
    return f"{name} is {dtype} in the range {how}"


def one_hot_labels(labels: np.ndarray) -> np.ndarray:
    """Labels [n] of rows with one 1 each, [n, classes > 1]; others as they are."""
    if labels.ndim != 2 or labels.shape[1] < 2 or labels.dtype.kind not in "biuf":
        return labels
    bits = np.all((labels == 0) | (labels == 1)) and np.all(labels.sum(axis=1) == 1)
    return labels.argmax(axis=1) if bits else labels


def whole_labels(labels: np.ndarray) -> np.ndarray:
    """Labels [n] of [n, 1], of rows with one 1, and integers of 0.0, 1.0, ...; others as they are."""
    labels = one_hot_labels(labels)
    if labels.dtype.kind == "f" and np.isfinite(labels).all() and np.array_equal(labels, np.rint(labels)):
        labels = labels.astype(np.int64)
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def renumber(labels: np.ndarray, chosen: Sequence[str] | None) -> tuple[list[str] | None, np.ndarray, str | None]:
    """(class names or None for "0", "1", ...; their labels; a note) of integer labels from 1, or with gaps where
    classes are chosen."""
    if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
        return None, labels, None
    present, places = np.unique(labels, return_inverse=True)
    names = [str(label) for label in present]
    if len(present) > 1 and present[0] == 1 and present[-1] == len(present):
        return names, places, f"labels are 1 to {present[-1]}; class 1 is the first"
    if chosen is not None and present[0] >= 0:
        return names, places, None
    return None, labels, None


def placed(labels: np.ndarray, classes: Sequence[str], name: str, place: str) -> np.ndarray:
    """Labels as places among classes that are numbers; DataError on one that none has."""
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return labels  # refused where the source is made
    numbers = np.array([int(word) for word in classes])
    order = np.argsort(numbers)
    places = np.minimum(np.searchsorted(numbers[order], labels), len(numbers) - 1)
    wrong = np.flatnonzero(numbers[order][places] != labels)
    if len(wrong):
        raise DataError(
            f"{place}: {name}[{wrong[0]}] is {labels[wrong[0]]}, out of range: expected one of the training labels "
            f"{classes[0]} to {classes[-1]}."
        )
    return order[places]


def as_known(labels: np.ndarray, classes: Sequence[str], name: str, place: str) -> np.ndarray:
    """`placed` among the classes of a run; labels as they are where these are 0, 1, ..., or no numbers."""
    if list(classes) == [str(label) for label in range(len(classes))] or not all(map(str.isdecimal, classes)):
        return labels
    return placed(labels, classes, name, place)
