"""Pixels and labels in memory, checked and made a source: the arrays of an archive, or those that somebody hands over.

In messages `place` is where the arrays come from; there they are called x_train and y_train, x_val and y_val.
"""

from collections.abc import Sequence

import numpy as np

from data.datasets import ArraySource, DataError, Source


def training_source(
    name: str,
    pixels,
    labels,
    *,
    place: str,
    classes: list[str] | None = None,
    gap: str = "labels must cover 0 to the largest",
) -> ArraySource:
    """The examples to train on.

    Args:
        name: the source's.
        pixels: uint8 [n, height, width] or [n, height, width, 1 or 3], an array or what NumPy makes one of, such as
            a list of images; grey is repeated to three channels.
        labels: any integers, [n] or [n, 1], 0 to classes - 1.
        classes: their names. Default: "0", "1", ..., one more than the largest label; then all of them must occur.
        gap: ends the message on one that does not.

    Raises:
        DataError: wrong dtype, shape, length or label.
    """
    pixels, labels = _checked(pixels, labels, "train", place)
    if classes is None:
        classes = [str(label) for label in range(_class_count(labels, f"{place}: y_train", gap))]
    else:
        check_range(labels, len(classes), f"{place}: y_train", f"as {len(classes)} classes are named")
    return ArraySource(name, classes, pixels, labels)


def validation_source(
    name: str, pixels, labels, train: Source, *, place: str, split: str = "val", why: str = "the labels of y_train"
) -> ArraySource:
    """The examples to validate on, arrays as for `training_source`; with the classes and the image size of `train`.

    Args:
        split: what the arrays are called after x_ and y_.
        why: ends the message on a label that `train` has no class for.

    Raises:
        DataError: wrong dtype, shape, length or label, or another image size.
    """
    pixels, labels = _checked(pixels, labels, split, place)
    check_range(labels, len(train.classes), f"{place}: y_{split}", why)
    source = ArraySource(name, train.classes, pixels, labels)
    check_size(source, train, f"{place}: x_{split}")
    return source


def test_source(name: str, pixels, labels, classes: Sequence[str], *, place: str) -> ArraySource:
    """The examples to test on, arrays as for `training_source`, called x_test and y_test; with the labels of `classes`.

    Raises:
        DataError: wrong dtype, shape, length or label.
    """
    pixels, labels = _checked(pixels, labels, "test", place)
    check_range(labels, len(classes), f"{place}: y_test", f"as the run knows {len(classes)} classes")
    return ArraySource(name, classes, pixels, labels)


def check_range(labels: np.ndarray, count: int, name: str, why: str) -> None:
    """Raise DataError if a label [n], n > 0, is not below `count`."""
    if labels.max() >= count:
        raise DataError(f"{name}[{labels.argmax()}] is {labels.max()}, out of range: expected 0 to {count - 1}, {why}.")


def check_size(source: Source, train: Source, name: str) -> None:
    """Raise DataError if both sources know their image sizes, and these differ."""
    if source.image_size and train.image_size and source.image_size != train.image_size:
        raise DataError(
            f"{name} has images of {source.image_size} pixels, x_train of {train.image_size}: expected one size."
        )


def _checked(pixels, labels, split: str, place: str) -> tuple[np.ndarray, np.ndarray]:
    pixels = _images(_array(pixels, f"x_{split}", place), f"x_{split}", place)
    return pixels, _labels(_array(labels, f"y_{split}", place), f"y_{split}", len(pixels), place)


def _array(values, name: str, place: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        shapes = []
        if isinstance(values, list | tuple):
            shapes = list(dict.fromkeys(str(np.shape(value)) for value in values))
        what = f"elements of shapes {shapes[0]} and {shapes[1]}" if len(shapes) > 1 else f"what is no array ({error})"
        raise DataError(f"{place}: {name} has {what}: expected one array, all elements of one shape.") from error


def _images(pixels: np.ndarray, name: str, place: str) -> np.ndarray:
    if pixels.dtype != np.uint8:
        raise DataError(f"{place}: {name} is {pixels.dtype}: expected uint8 pixels 0 to 255; convert it.")
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or 0 in pixels.shape:
        raise DataError(
            f"{place}: {name} has shape {pixels.shape}: expected [n, height, width] or [n, height, width, 1 or 3], "
            "none of them 0."
        )
    return np.repeat(pixels, 3, axis=3) if pixels.shape[3] == 1 else pixels


def _labels(labels: np.ndarray, name: str, count: int, place: str) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras' own data sets have them
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{place}: {name} is {labels.dtype} of shape {labels.shape}: expected integers [n].")
    if len(labels) != count:
        raise DataError(f"{place}: {name} has {len(labels)} labels for {count} images: expected one per image.")
    if labels.min() < 0:
        raise DataError(f"{place}: {name}[{labels.argmin()}] is {labels.min()}, out of range: labels start at 0.")
    return labels


def _class_count(labels: np.ndarray, name: str, gap: str) -> int:
    """One more than the largest label; a label that no example has points to a wrong one further up."""
    present = np.unique(labels)
    gaps = np.flatnonzero(present != np.arange(len(present)))
    if gaps.size:
        raise DataError(
            f"{name}[{labels.argmax()}] is {labels.max()}, out of range, as no example has label {gaps[0]}: {gap}."
        )
    return len(present)
