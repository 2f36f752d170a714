"""What the arrays of an archive are called."""

from collections.abc import Iterable, Sequence

from data.datasets import DataError
from data.naming import split_of

AXES = {
    "x": ("x", "images", "image", "imgs", "data", "features", "pixels"),
    "y": ("y", "labels", "label", "targets", "target", "classes"),
}
_AXIS_OF = {word: axis for axis, words in AXES.items() for word in words}


def find_arrays(names: Iterable[str], place: str, needed: Sequence[str] = ("train",)) -> dict[tuple[str, str], str]:
    """("x" or "y", split) -> name: `x_train` as Keras says, `train_images` as MedMNIST, in any case.

    Args:
        names: of all arrays.
        place: where they lie, for messages.
        needed: splits that must be there; without any, nothing is missed.

    Raises:
        DataError: two arrays mean the same, or an array of what is needed or of a split that is there is missing.
    """
    found: dict[tuple[str, str], str] = {}
    for name in names:
        first, _, second = name.rpartition("_")
        for word, split in ((first, second), (second, first)):
            axis, split = _AXIS_OF.get(word.lower()), split_of(split)
            if axis is None or split is None:
                continue
            if (axis, split) in found:
                raise DataError(
                    f"{place} has both {found[axis, split]} and {name}: expected one of them; remove or rename the "
                    "other."
                )
            found[axis, split] = name
    splits = {*needed, *(split for _, split in found if needed)}
    missing = sorted((axis, split) for split in splits for axis in "xy" if (axis, split) not in found)
    if missing:
        shown = ", ".join(sorted(names)) or "none"
        raise DataError(
            f"{place} has no array {'_'.join(missing[0])} (it has {shown}): expected x_train and y_train (or "
            "train_images and train_labels), and x and y for val."
        )
    return found
