"""`csv`: a table of paths and labels, with a header, or a folder with one table per split.

No row is skipped in silence: one without its file or label ends the run, and all such rows are named at once.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data.datasets import DataError, Progress
from data.files.source import FileSource
from data.files.tree import states_of
from data.formats.tables.columns import Columns
from data.formats.tables.labels import class_names, integer, label_of, no_classes, plain
from data.formats.tables.paths import Finder
from data.formats.tables.rows import Row, of_split, parse, tables_in, unused_tables
from data.messages import few, joined, shortened
from data.naming import IMAGE_SUFFIXES, is_picture

SHOWN = 20  # rows that are named in one message


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
    file, beside = tables_in(data_dir)
    before = states_of([data_dir, file, *(path for split, path in beside.items() if split == "val")])
    read = _read_rows(file, beside, progress)
    train, validation = [*(_only(table, chosen) for table in read), None][:2]
    in_order = (tuple(train.order), None) if train.order else None
    classes, shifted = in_order or class_names(train.file, train.lines, train.labels, chosen)
    source = _table_source(train, classes)
    # Files are looked at after this: one that goes meanwhile is missed then, one that goes later changes its folder.
    source.folders = before | states_of({_folder_of(table.file, path) for table in read for path in table.paths})
    unused = unused_tables(data_dir, {file, *beside.values()})
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


def test_table(data_dir: str) -> str | None:
    """The table of test pictures beside that of training, or that of all pictures where its rows name their splits;
    None where there is none."""
    file, beside = tables_in(data_dir)
    if beside:
        return beside.get("test")
    # A column of splits names one in each row, so the first tells most tables that have none from those that may.
    with contextlib.suppress(DataError):  # which all rows may mend: there, two columns seem to name splits
        if parse(file, 1)[0].split is None:
            return None
    return file if of_split(*parse(file), "test") else None


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
    columns, rows = parse(file)
    table = _checked(file, columns, of_split(columns, rows, "test") or rows, progress)
    return _table_source(_only(table, classes if chosen else None), classes)


def _read_rows(file: str, beside: Mapping[str, str], progress: Progress | None) -> list[_Table]:
    """The tables of training and, where there is one, validation; `beside` are the files of splits that have one.

    Raises:
        DataError: no row of training, or a column that names other splits than the files do.
    """
    if not beside:
        columns, rows = parse(file)
        parts = {split: of_split(columns, rows, split) for split in ("train", "val")}
        if not parts["train"]:
            name = columns.names[columns.split]
            raise DataError(f"{file} has no row of training by its column {name}: expected some; write train there.")
        return [_checked(file, columns, part, progress) for part in parts.values() if part]
    read = []
    for split, path in {"train": file, **{split: path for split, path in beside.items() if split == "val"}}.items():
        columns, rows = parse(path)
        if columns.split is not None and len(of_split(columns, rows, split)) < len(rows):
            raise DataError(
                f"{path} names other splits than {split} in its column {columns.names[columns.split]}, and there is "
                f"{os.path.basename(next(iter(beside.values())))} beside it: expected one of both; point --data-dir at "
                "the table, or remove the column."
            )
        read.append(_checked(path, columns, rows, progress))
    return read


def _checked(file: str, columns: Columns, rows: list[Row], progress: Progress | None) -> _Table:
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
