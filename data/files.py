"""Image files on disk: `image_folder` (one subfolder per class) and `csv` (a table of path and label).

Nothing is skipped in silence: a file that is no JPEG or PNG, a class without images or a row without a file ends
the run. Only hidden files and what operating systems litter folders with are passed over.
"""

import csv
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.datasets import DataError, FileSource

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
LITTER = {"thumbs.db", "desktop.ini", "__macosx"}  # hidden names (.DS_Store) are recognised by their dot
VALIDATION_FOLDERS = ("val", "validation")
TEST_FOLDERS = ("test", "testing")


def load_image_folder(data_dir: str, seed: int) -> tuple[FileSource, FileSource | None]:
    """Class subfolders of `data_dir`, or of its `train/` and `val/` (or `validation/`) where `train/` holds folders.

    Classes are the sorted names of the subfolders, as numbers where all are; files follow sorted by name. In the second
    layout only the split folders are looked at.

    Args:
        data_dir: the folder.
        seed: not used: the files decide.

    Raises:
        DataError: missing folder, unknown file, empty class, or splits that differ in their classes.
    """
    del seed
    train_dir = os.path.join(data_dir, "train")
    if not (os.path.isdir(train_dir) and any(entry.is_dir() for entry in _entries(train_dir))):
        return class_folders(data_dir), None
    splits = [name for name in VALIDATION_FOLDERS if os.path.isdir(os.path.join(data_dir, name))]
    if len(splits) > 1:
        raise DataError(f"{data_dir} holds both val and validation: expected one of them; remove or rename the other.")
    train = class_folders(train_dir)
    if not splits:
        return train, None
    validation = class_folders(os.path.join(data_dir, splits[0]))
    differing = sorted(set(train.classes) ^ set(validation.classes))
    if differing:
        lacking = splits[0] if differing[0] in train.classes else "train"
        raise DataError(
            f"class {differing[0]} has no folder in {os.path.join(data_dir, lacking)}: expected the same classes in "
            f"train and {splits[0]}; add the folder there or remove it from the other."
        )
    return train, validation


def test_folder(data_dir: str) -> str | None:
    """The folder of test pictures beside `train/`, or None."""
    if not os.path.isdir(os.path.join(data_dir, "train")):
        return None
    found = [path for name in TEST_FOLDERS if os.path.isdir(path := os.path.join(data_dir, name))]
    return found[0] if found else None


def class_folders(root: str) -> FileSource:
    """The pictures in the class subfolders of `root`, classes in order of their names; numbers in their own order.

    Raises:
        DataError: missing folder, unknown file, empty class.
    """
    classes, paths, counts = [], [], []
    entries = _entries(root)
    if all(entry.name.isdecimal() for entry in entries):
        entries.sort(key=lambda entry: (int(entry.name), entry.name))  # 2 before 10
    for entry in entries:
        if not entry.is_dir():
            raise DataError(
                f"{entry.path} lies next to the class folders: expected only subfolders, one per class; move it away."
            )
        files = _image_names(entry.path)
        classes.append(entry.name)
        paths += [f"{entry.name}/{name}" for name in files]
        counts.append(len(files))
    if not classes:
        raise DataError(f"{root} has no subfolders: expected one per class; point data_dir at the folder above them.")
    return FileSource("image_folder", classes, root, paths, np.repeat(np.arange(len(classes)), counts))


def _image_names(folder: str) -> list[str]:
    names = []
    for entry in _entries(folder):
        if not entry.name.lower().endswith(IMAGE_SUFFIXES) or entry.is_dir():
            raise DataError(f"{entry.path} is not a JPEG or PNG file (.jpg, .jpeg, .png): convert it or move it away.")
        names.append(entry.name)
    if not names:
        raise DataError(f"class folder {folder} is empty: expected JPEG or PNG files; add some or remove the folder.")
    return names


def _entries(folder: str) -> list[os.DirEntry]:
    """Content of the folder sorted by name, without hidden files and litter."""
    try:
        with os.scandir(folder) as entries:
            kept = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in LITTER]
    except OSError as error:
        raise DataError(f"cannot read {folder} ({error.strerror}): expected a folder; correct data_dir.") from error
    return sorted(kept, key=lambda entry: entry.name)


def test_table(data_dir: str) -> str | None:
    """The table of test pictures beside train.csv, or None."""
    path = os.path.join(data_dir, "test.csv")
    return path if os.path.isfile(path) else None


def labelled_table(file: str, classes: Sequence[str]) -> FileSource:
    """The pictures of one table as for `load_csv`, labelled by `classes`, of which some may not occur.

    Raises:
        DataError: as `load_csv`; a label that is not among the classes.
    """
    return _table_source(_read_table(file), classes)


class _Table(NamedTuple):
    file: str
    lines: list[int]  # line of each row in the file, for messages
    paths: list[str]
    labels: list[str]


def load_csv(data_dir: str, seed: int) -> tuple[FileSource, FileSource | None]:
    """A table with header `path,label`: the file itself, or a folder with train.csv and, if present, val.csv.

    Relative paths start at the table's folder. Where every label of train is an integer, the classes are
    "0" to the largest one; else they are the sorted names.

    Args:
        data_dir: the CSV file or the folder.
        seed: not used: the files decide.

    Raises:
        DataError: a missing table or column, a row without its file, a label out of range, naming file and line.
    """
    del seed
    train = _read_table(os.path.join(data_dir, "train.csv") if os.path.isdir(data_dir) else data_dir)
    classes = _table_classes(train)
    validation_file = os.path.join(data_dir, "val.csv")
    validation = _read_table(validation_file) if os.path.isfile(validation_file) else None
    return _table_source(train, classes), validation and _table_source(validation, classes)


def _read_table(file: str) -> _Table:
    table = _Table(file, [], [], [])
    try:
        # utf-8-sig: spreadsheets put a byte order mark first.
        with open(file, newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            header = [name.strip() for name in next(reader, [])]
            if sorted(header) != ["label", "path"]:
                raise DataError(f"{file} has the header {','.join(header)!r}: expected path,label; correct line 1.")
            for row in filter(None, reader):
                _add_row(table, header, row, reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {file} ({error}): expected a UTF-8 file with header path,label.") from error
    if not table.paths:
        raise DataError(f"{file} has no rows below its header: expected one row of path,label per image; add them.")
    return table


def _add_row(table: _Table, header: list[str], row: list[str], line: int) -> None:
    if len(row) != 2:
        raise DataError(f"{table.file} line {line} has {len(row)} fields: expected path,label; quote commas in paths.")
    path, label = row[header.index("path")].strip(), row[header.index("label")].strip()
    if not path.lower().endswith(IMAGE_SUFFIXES):
        raise DataError(f"{table.file} line {line}: {path!r} is not a JPEG or PNG file name (.jpg, .jpeg, .png).")
    if not os.path.isfile(os.path.join(os.path.dirname(table.file), path)):
        raise DataError(f"{table.file} line {line}: no file {path!r}; paths are relative to the table's folder.")
    if not label:
        raise DataError(f"{table.file} line {line} has an empty label: expected a class name or an integer.")
    table.lines.append(line)
    table.paths.append(path)
    table.labels.append(label)


def _integer(label: str) -> int | None:
    try:
        return int(label)
    except ValueError:
        return None


def _table_classes(train: _Table) -> tuple[str, ...]:
    numbers = [_integer(label) for label in train.labels]
    if None in numbers:
        return tuple(sorted(set(train.labels)))
    for line, number in zip(train.lines, numbers, strict=True):
        if number < 0:
            raise DataError(f"{train.file} line {line}: label {number} is negative; integer labels start at 0.")
    present = set(numbers)
    gap = next(number for number in range(len(present) + 1) if number not in present)
    if gap < len(present):
        line = train.lines[numbers.index(max(numbers))]
        raise DataError(
            f"{train.file} line {line}: label {max(numbers)} is out of range, as no row has label {gap}; "
            "integer labels must cover 0 to the largest."
        )
    return tuple(str(number) for number in range(gap))


def _table_source(table: _Table, classes: Sequence[str]) -> FileSource:
    index_of = {name: index for index, name in enumerate(classes)}
    numbered = all(name == str(index) for name, index in index_of.items())
    labels = []
    for line, label in zip(table.lines, table.labels, strict=True):
        index = index_of.get(str(_integer(label)) if numbered else label)  # "03" is class "3"
        if index is None:
            raise DataError(
                f"{table.file} line {line}: label {label} is out of range, expected one of the {len(classes)} classes "
                f"of the training ({classes[0]} to {classes[-1]})."
            )
        labels.append(index)
    return FileSource("csv", classes, os.path.dirname(table.file), table.paths, np.array(labels))
