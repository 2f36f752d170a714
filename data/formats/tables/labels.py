"""What the labels of a table mean: names, numbers, or a 1 in one of several columns."""

import re
from collections.abc import Sequence

from data.datasets import DataError
from data.formats.tables.columns import Columns
from data.messages import few, shortened

NAMED = 20  # labels with gaps up to which the remedy can be typed


def label_of(columns: Columns, row: list[str]) -> tuple[str, str | None]:
    """The label of a row, and what is wrong with it."""
    if columns.label is not None:
        label = row[columns.label].strip()
        return label, None if label else "has an empty label: expected a class name or an integer"
    ones = [columns.names[at] for at in columns.one_hot if float(row[at])]
    if len(ones) != 1:
        return "", f"has a 1 in {len(ones)} of the columns {few(columns.names[at] for at in columns.one_hot)}, not in 1"
    return ones[0], None


def no_classes(columns: Columns, rows: Sequence[list[str]]) -> str:
    """What to do where rows have not one 1 in the columns of the classes, empty where all have."""
    ones = [[at for at in columns.one_hot if float(row[at])] for row in rows]
    if not columns.one_hot or all(len(each) == 1 for each in ones):
        return ""
    alone = [at for at in columns.one_hot if all(len(set(each) - {at}) == 1 for each in ones)]
    named = f", as {' or '.join(columns.names[at] for at in alone)} seems to be" if alone else ""
    return (
        f"\n  Each column of 0 and 1 is taken for a class: remove those that are none{named}, and pictures of no class "
        "or of several."
    )


def integer(label: str) -> int | None:
    """The number that a label is, None where it is a name."""
    # int() also takes 20_30, +1 and digits of other scripts, which are names. Longer numbers it refuses.
    return int(label) if re.fullmatch("-?[0-9]{1,4300}", label) else None


def plain(label: str) -> str:
    """The label as the name of a class, where classes are numbers: "03" is class "3"."""
    number = integer(label)
    return label if number is None else str(number)


def class_names(
    file: str, lines: Sequence[int], labels: Sequence[str], chosen: Sequence[str] | None
) -> tuple[tuple[str, ...], str | None]:
    """Class names in order, and a note on how labels were understood.

    Args:
        file: the table, for messages.
        lines: of each row, for messages.
        labels: of each row.
        chosen: class names; with them integer labels may have gaps.

    Raises:
        DataError: integer labels that are negative or have gaps.
    """
    numbers = [integer(label) for label in labels]
    if None in numbers:
        whole = all(re.fullmatch(r"[0-9]{1,300}(\.0*)?", label) for label in set(labels))
        return tuple(sorted(set(labels), key=(lambda label: (float(label), label)) if whole else None)), None
    for line, number in zip(lines, numbers, strict=True):
        if number < 0:
            raise DataError(f"{file} line {line}: label {number} is negative; integer labels start at 0.")
    present = sorted(set(numbers))
    names = tuple(map(str, present))
    if chosen is not None or present == list(range(len(present))):
        return names, None
    if present == list(range(1, len(present) + 1)):
        return names, f"{file}: labels are 1 to {len(present)}; class 1 is the first"
    gap = next(number for number in range(len(present)) if number != present[number])
    line = lines[numbers.index(max(numbers))]
    listed = shortened(",".join(names)) if len(names) <= NAMED else "FILE with one label per line"
    raise DataError(
        f"{file} line {line}: label {shortened(str(max(numbers)))} is out of range, as no row has label {gap}; "
        f"integer labels must cover 0, or 1, to the largest; if the gaps are meant, pass --classes {listed}."
    )
