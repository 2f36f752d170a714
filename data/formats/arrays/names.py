"""What the arrays of an archive are called."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from data.datasets import DataError
from data.messages import few, joined
from data.naming import split_of

AXES = {
    "x": ("x", "images", "image", "imgs", "data", "features", "pixels"),
    "y": ("y", "labels", "label", "targets", "target", "classes"),
}
_SET = re.compile("_?set$", re.IGNORECASE)  # as in train_set_x
_AXIS_OF = {word: axis for axis, words in AXES.items() for word in words}


def find_arrays(names: Iterable[str], place: str, needed: Sequence[str] = ("train",)) -> dict[tuple[str, str], str]:
    """("x" or "y", split) -> name: `x_train` as Keras says, `train_images` as MedMNIST, `train_set_x`, in any case.

    Args:
        names: of all arrays.
        place: where they lie, for messages.
        needed: splits that must be there; without any, nothing is missed.

    Raises:
        DataError: two arrays mean the same, or an array of what is needed or of validation, if it is there, is missing.
            A test split may lack its labels, as that of a competition: who uses it asks `held_out_split`.
    """
    found: dict[tuple[str, str], str] = {}
    for name in names:
        first, _, second = name.rpartition("_")
        for word, split in ((first, second), (second, first)):
            axis, split = _AXIS_OF.get(word.lower()), split_of(_SET.sub("", split))
            if axis is None or split is None:
                continue
            if (axis, split) in found:
                raise DataError(
                    f"{place} has both {found[axis, split]} and {name}: expected one of them; remove or rename the "
                    "other."
                )
            found[axis, split] = name
    splits = {*needed, *(split for _, split in found if needed and split != "test")}
    missing = sorted((axis, split) for split in splits for axis in "xy" if (axis, split) not in found)
    if missing:
        shown = ", ".join(sorted(names)) or "none"
        raise DataError(
            f"{place} has no array {'_'.join(missing[0])} (it has {shown}): expected x_train and y_train (or "
            "train_images and train_labels), and x and y for val."
        )
    return found


def training_arrays(
    names: Collection[str], place: str, features: tuple[str | None, str | None]
) -> dict[tuple[str, str], str]:
    """The arrays of training and, where nothing is asked for by name, of the other splits; as `find_arrays`.

    Args:
        names: of all arrays.
        place: where they lie, for messages.
        features: the image's and the label's array, as flags name them; the one that is None is found by its name.
            There are no other splits then.

    Raises:
        DataError: as `find_arrays`; no array of a name; a test split, whose labels may be others than those named.
    """
    if not any(features):
        return find_arrays(names, place)
    usual, found = find_arrays(names, place, needed=()), {}
    for axis, flag, given in zip("xy", ("--image-feature", "--label-feature"), features, strict=True):
        name = given or usual.get((axis, "train"), f"{axis}_train")
        if name not in names:
            shown = ", ".join(sorted(names)) or "none"
            raise DataError(f"{place} has no array {name} (it has {shown}): name one of these with {flag}.")
        found[axis, "train"] = name
    if {("x", "test"), ("y", "test")} <= set(usual):
        both = f"{usual['x', 'test']} and {usual['y', 'test']}"
        raise DataError(
            f"{place} has {both} beside the arrays that --image-feature and --label-feature name: expected no test "
            "split, as nobody knows whether its labels mean the same; copy the arrays into a file without it."
        )
    return found


def held_out_split(found: Mapping[tuple[str, str], str]) -> str | None:
    """The split that training validates on: "val", else "test" where its labels are there, else None."""
    if ("x", "val") in found:
        return "val"
    return "test" if {("x", "test"), ("y", "test")} <= set(found) else None


def kept_apart(found: Mapping[tuple[str, str], str], place: str) -> str | None:
    """The test images in words where training leaves them alone: beside x_train, without x_val, it validates on
    them."""
    alone = ("x", "val") in found or ("x", "train") not in found
    return f"{found['x', 'test']} of {place}" if alone and {("x", "test"), ("y", "test")} <= set(found) else None


def unused_note(names: Iterable[str], found: Mapping[tuple[str, str], str]) -> str | None:
    """Which of the arrays `names` are not used, as they have no meaning or lack their labels; None where all are."""
    lone = [axis for axis in "xy" if (axis, "test") in found]
    without = "labels" if lone == ["x"] else "images"
    others = sorted(set(names) - set(found.values()))
    return joined(
        f"{found[lone[0], 'test']} has no {without} and is not used" if len(lone) == 1 else None,
        f"not used: {few(others)}" if others else None,
    )
