"""Which columns of a table hold the pictures' paths and their classes, by the names in its header."""

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

from data.datasets import DataError, UnlabelledError
from data.messages import few, shortened
from data.naming import split_of

DELIMITERS = (",", ";", "\t")
# Of several, the first that is there: what Kaggle, pandas, fastai and Keras call them.
PATHS = (
    "path", "filepath", "file_path", "image_path", "img_path", "filename", "file_name", "file", "image_name",
    "imagename", "image_file", "image", "img", "image_id", "imageid", "id_code", "id", "name",
    "filepaths", "file_paths", "image_paths", "img_paths", "filenames", "file_names", "img_name", "imgname", "img_file",
    "img_filename", "image_filename", "fname", "images",
)  # fmt: skip
LABELS = (
    "label", "labels", "class", "class_name", "classname", "category", "target", "class_id", "breed", "species",
    "diagnosis", "label_name", "y", "emotion", "classes", "categories", "targets",
)  # fmt: skip
HEADER = "path,label"


class Columns(NamedTuple):
    """Where in a row of `width` fields the path stands and where the label: in one column, or by a 1 in one of several.

    `one_hot` is empty where `label` is there. `names` is the header as it is written. `split` is the column that names
    each row's split, if there is one.
    """

    names: list[str]
    path: int
    label: int | None
    one_hot: list[int]
    split: int | None

    def note(self) -> str | None:
        """How the header was understood, where it is not exactly path and label."""
        used = {self.path, self.label, self.split, *self.one_hot}
        plain = [name.lower() for name in self.names]
        unused = [name for at, name in enumerate(self.names) if at not in used and not _is_index(name)]
        words = []
        if plain[self.path] != "path" or self.label is None or plain[self.label] != "label":
            classes = f"one of {few(self.names[at] for at in self.one_hot)} is 1: the class"
            label = classes if self.label is None else f"column {self.names[self.label]} is the class"
            words.append(f"column {self.names[self.path]} is the path, {label}")
        if self.split is not None:
            words.append(f"column {self.names[self.split]} is the split")
        if unused:
            words.append(f"column{'s' * (len(unused) > 1)} {few(unused)} not used")
        return ", ".join(words) or None


def find_delimiter(header: str) -> str:
    """Comma, semicolon or tab: the one that cuts a table's first line into most fields, comma if none does."""
    return max(DELIMITERS, key=lambda mark: len(next(csv.reader(io.StringIO(header), delimiter=mark), [])))


def find_columns(file: str, names: list[str], rows: Sequence[list[str]]) -> Columns:
    """Understand a header.

    Args:
        file: the table, for messages.
        names: the fields of its first line.
        rows: all others, each as long; they show which columns hold 0 and 1 alone.

    Raises:
        UnlabelledError: no column of labels.
        DataError: no column of paths, two of the same name, or several that name splits.
    """
    plain = [name.lower().replace(" ", "_") for name in names]
    path, label = (next((plain.index(word) for word in words if word in plain), None) for words in (PATHS, LABELS))
    for at in (path, label):
        if at is not None and plain.count(plain[at]) > 1:
            raise DataError(f"{file} has more than one column {names[at]}: expected one; rename the others.")
    one_hot: list[int] = []
    if label is None and path is not None:
        others = [at for at, name in enumerate(names) if at != path and not _is_index(name)]
        one_hot = [at for at in others if rows and all(is_bit(row[at]) for row in rows)]
    if path is None or label is None and len(one_hot) < 2:
        kind = DataError if path is None else UnlabelledError
        raise kind(
            f"{file} has the header {shortened(','.join(names))!r}: expected {HEADER}, or usual names such as "
            "filename,class or id,label, or a column of 0 and 1 for each class; correct line 1."
        )
    return Columns(names, path, label, one_hot, _split_column(file, names, rows, {path, label, *one_hot}))


def _split_column(file: str, names: list[str], rows: Sequence[list[str]], used: set[int | None]) -> int | None:
    """The column that names a split in every row."""
    others = [at for at in range(len(names)) if at not in used]
    found = [at for at in others if rows and all(split_of(row[at].strip()) for row in rows)]
    if len(found) > 1:
        raise DataError(
            f"{file} names splits in the columns {few(names[at] for at in found)}: expected one; remove the others."
        )
    return found[0] if found else None


def is_bit(field: str) -> bool:
    """Whether a field is 0 or 1, as an integer or as a float."""
    return field.strip() in ("0", "1", "0.0", "1.0")


def _is_index(name: str) -> bool:
    """Whether it is a column that pandas adds unasked."""
    return name == "" or name.lower() == "index" or name.lower().startswith("unnamed:")
