"""`csv`: a table of paths and labels, with a header, or a folder with one table per split.

No row is skipped in silence: one without its file or label ends the run, and all such rows are named at once.
"""

import csv
import errno
import itertools
import os
import stat
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data.datasets import DataError, Progress
from data.files.source import FileSource
from data.files.tree import states_of
from data.formats.tables.columns import HEADER, Columns, find_columns, find_delimiter
from data.formats.tables.labels import class_names, integer, label_of, no_classes, plain
from data.formats.tables.paths import Finder
from data.messages import few, joined, shortened
from data.naming import IMAGE_SUFFIXES, by_split, is_litter, is_picture, split_of

TABLE_SUFFIXES = (".csv", ".tsv")
SHOWN = 20  # rows that are named in one message


_Row = tuple[int, list[str]]  # a row's line in the file, and its fields


class _Table(NamedTuple):
    file: str
    lines: list[int]  # line of each row in the file, for messages
    paths: list[str]
    labels: list[str]
    order: list[str]  # of the classes, where columns give one
    note: str | None


def load_csv(
    data_dir: str, chosen: Sequence[str] | None = None, progress: Progress | None = None
) -> tuple[FileSource, FileSource | None]:
    """A table with header `path,label`: the file itself, or a folder with train.csv and, if present, val.csv.

    Other usual headers, more columns, tabs and semicolons are understood, and said; see columns.py.
    Relative paths start at the table's folder. Where every label of train is an integer, the classes are "0" to the
    largest one, or "1" to it; else they are the sorted names.

    Args:
        data_dir: the table or the folder.
        chosen: class names; with them integer labels may have gaps.
        progress: told how many files of the rows were looked for.

    Raises:
        DataError: a missing table or column, a row without its file, a label out of range, naming file and line.
    """
    file, beside = _files(data_dir)
    before = states_of([data_dir, file, *(path for split, path in beside.items() if split == "val")])
    read = _read_rows(file, beside, progress)
    train, validation = [*(_only(table, chosen) for table in read), None][:2]
    in_order = (tuple(train.order), None) if train.order else None
    classes, shifted = in_order or class_names(train.file, train.lines, train.labels, chosen)
    source = _table_source(train, classes)
    # Files are looked at after this: one that goes meanwhile is missed then, one that goes later changes its folder.
    source.folders = before | states_of({_folder_of(table.file, path) for table in read for path in table.paths})
    unused = _unused(data_dir, {file, *beside.values()})
    if validation is None:
        source.note = joined(train.note, shifted, unused)
        return source, None
    held_out = _table_source(validation, classes)
    lacking = [classes[label] for label in np.setdiff1d(source.labels, held_out.labels)]
    less = f"{validation.file} has no picture of class {few(lacking)} to validate on" if lacking else None
    source.note = joined(train.note, validation.note if validation.note != train.note else None, shifted, less, unused)
    return source, held_out


def _folder_of(file: str, path: str) -> str:
    return os.path.join(os.path.dirname(file), path[: path.rfind("/") + 1])


def _files(data_dir: str) -> tuple[str, dict[str, str]]:
    """The table of training, and split -> table of those that lie beside it in the folder."""
    if not os.path.isdir(data_dir):
        return data_dir, {}
    tables = {split: os.path.join(data_dir, name) for split, name in _tables(data_dir).items()}
    return tables.pop("train", os.path.join(data_dir, "train.csv")), tables


def test_table(data_dir: str) -> str | None:
    """The table of test pictures beside that of training, or that of all pictures where its rows name their splits;
    None where there is none."""
    file, beside = _files(data_dir)
    if beside:
        return beside.get("test")
    # A column of splits names one in each row, so the first tells most tables that have none from those that may.
    if _parse(file, 1)[0].split is None:
        return None
    return file if _of_split(*_parse(file), "test") else None


def labelled_table(
    file: str, classes: Sequence[str], *, chosen: bool = False, progress: Progress | None = None
) -> FileSource:
    """The pictures of one table as for `load_csv`, labelled by `classes`, of which some may not occur.  Where its rows
    name their splits, and some of them test, these alone.

    Args:
        file: the table.
        classes: names, in the order of the labels.
        chosen: leave rows of other classes out.
        progress: as for `load_csv`.

    Raises:
        DataError: as `load_csv`; a label that is not among the classes.
    """
    columns, rows = _parse(file)
    table = _checked(file, columns, _of_split(columns, rows, "test") or rows, progress)
    return _table_source(_only(table, classes if chosen else None), classes)


def _tables(folder: str) -> dict[str, str]:
    """Split -> name of its table; DataError where training has none but other tables lie there."""
    names = _table_names(folder)
    found = by_split([(name, os.path.splitext(name)[0]) for name in names], folder)
    if names and "train" not in found:
        raise DataError(
            f"{folder} has no train.csv but {few(names)}: expected train.csv and, if there is one, val.csv; point "
            f"--data-dir at the table itself, such as {os.path.join(folder, names[0])}."
        )
    return found


def _table_names(folder: str) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.lower().endswith(TABLE_SUFFIXES) and not is_litter(name))


def _unused(data_dir: str, known: set[str]) -> str | None:
    """Which tables of the folder are none of the known ones, in words."""
    names = _table_names(data_dir) if os.path.isdir(data_dir) else []
    others = [name for name in names if os.path.join(data_dir, name) not in known]
    return f"not used: {few(others)} in {data_dir}" if others else None


def _parse(file: str, first: int | None = None) -> tuple[Columns, list[_Row]]:
    """A table's columns and rows, perhaps the first ones alone, of which no file is looked for yet."""
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", file)
        # utf-8-sig: spreadsheets put a byte order mark first.
        with open(file, newline="", encoding="utf-8-sig") as stream:
            delimiter = find_delimiter(stream.readline())
            stream.seek(0)
            reader = csv.reader(stream, delimiter=delimiter)
            header = [name.strip() for name in next(reader, [])]
            rows = list(itertools.islice(((reader.line_num, row) for row in reader if row), first))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"cannot read {file} ({reason}): expected a UTF-8 file with header {HEADER}.") from error
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(
                f"{file} line {line} has {len(row)} fields, its header {len(header)} ({shortened(','.join(header))}): "
                "expected as many; quote commas in paths."
            )
    columns = find_columns(file, header, [row for _, row in rows])
    if not rows:
        raise DataError(f"{file} has no rows below its header: expected one row of {HEADER} per image; add them.")
    return columns, rows


def _of_split(columns: Columns, rows: list[_Row], split: str) -> list[_Row]:
    """The rows of a split by the column that names it; without one none but those of training, which are all."""
    if columns.split is None:
        return rows if split == "train" else []
    return [(line, row) for line, row in rows if split_of(row[columns.split].strip()) == split]


def _read_rows(file: str, beside: Mapping[str, str], progress: Progress | None) -> list[_Table]:
    """The tables of training and, where there is one, validation; `beside` are the files of splits that have one.

    Raises:
        DataError: no row of training, or a column that names other splits than the files do.
    """
    if not beside:
        columns, rows = _parse(file)
        parts = {split: _of_split(columns, rows, split) for split in ("train", "val")}
        if not parts["train"]:
            name = columns.names[columns.split]
            raise DataError(f"{file} has no row of training by its column {name}: expected some; write train there.")
        return [_checked(file, columns, part, progress) for part in parts.values() if part]
    read = []
    for split, path in {"train": file, **{split: path for split, path in beside.items() if split == "val"}}.items():
        columns, rows = _parse(path)
        if columns.split is not None and len(_of_split(columns, rows, split)) < len(rows):
            raise DataError(
                f"{path} names other splits than {split} in its column {columns.names[columns.split]}, and there is "
                f"{os.path.basename(next(iter(beside.values())))} beside it: expected one of both; point --data-dir at "
                "the table, or remove the column."
            )
        read.append(_checked(path, columns, rows, progress))
    return read


def _checked(file: str, columns: Columns, rows: list[_Row], progress: Progress | None) -> _Table:
    """The rows' paths and labels; DataError naming all rows that have none."""
    find, problems = Finder(file), []
    order = [columns.names[at] for at in columns.one_hot]
    paths = [row[columns.path].strip() for _, row in rows]
    table = _Table(file, [], [], [], order, None)
    for (line, row), written, there in zip(rows, paths, find.as_written(paths, progress), strict=True):
        path = written if there else find(written)
        label, fault = label_of(columns, row)
        if not written:
            fault = "has an empty path"
        elif not fault and path is None:
            fault = f"no file {shortened(written)!r}; paths are relative to the table's folder"
        elif not fault and not is_picture(path):
            fault = f"{shortened(written)!r} is not the name of a picture ({', '.join(IMAGE_SUFFIXES)})"
        if fault:
            problems.append(f"line {line}: {fault}")
        table.lines.append(line)
        table.paths.append(path)
        table.labels.append(label)
    if problems:
        remedy = no_classes(columns, [row for _, row in rows])
        more = f"\n  ... and {len(problems) - SHOWN:,} more lines" if len(problems) > SHOWN else ""
        raise DataError(f"{file} " + "\n  ".join(problems[:SHOWN]) + more + remedy)
    folder = f"{file}: pictures were found in {find.folder}/ beside it" if find.folder else None
    ending = f"{file}: the ending {find.suffix} was added to paths" if find.suffix else None
    slashes = f"{file}: \\ in paths is read as /" if find.backslashes else None
    header = columns.note() and f"{file}: {columns.note()}"
    return table._replace(note=joined(header, folder, ending, slashes))


def _only(table: _Table, chosen: Sequence[str] | None) -> _Table:
    """The rows of the chosen classes; DataError where none is left."""
    if chosen is None:
        return table
    kept = [at for at, label in enumerate(table.labels) if label in chosen or plain(label) in chosen]
    if not kept:
        raise DataError(f"{table.file} has no row of the classes {few(chosen)}: expected some; correct --classes.")
    lines, paths, labels = ([column[at] for at in kept] for column in (table.lines, table.paths, table.labels))
    left_out = len(table.lines) - len(kept)
    note = f"{table.file}: {left_out:,} rows of other classes than those of --classes left out" if left_out else None
    order = [name for name in table.order if name in chosen]
    return _Table(table.file, lines, paths, labels, order, joined(table.note, note))


def _table_source(table: _Table, classes: Sequence[str]) -> FileSource:
    index_of = {name: index for index, name in enumerate(classes)}
    numbered = all(integer(name) is not None and plain(name) == name for name in classes)
    labels = []
    for line, label in zip(table.lines, table.labels, strict=True):
        index = index_of.get(plain(label) if numbered else label)
        if index is None:
            raise DataError(
                f"{table.file} line {line}: label {shortened(label)} is out of range, expected one of {len(classes)} "
                f"classes of the training ({classes[0]} to {classes[-1]})."
            )
        labels.append(index)
    return FileSource("csv", classes, os.path.dirname(table.file), table.paths, np.array(labels))
