"""Which tables lie in a place, and the rows of each as they are written."""

import csv
import errno
import itertools
import os
import stat

from data.datasets import DataError
from data.formats.tables.columns import HEADER, Columns, find_columns, find_delimiter
from data.messages import few, shortened
from data.naming import by_split, is_litter, split_of

Row = tuple[int, list[str]]  # a row's line in the file, and its fields
TABLE_SUFFIXES = (".csv", ".tsv")


def tables_in(data_dir: str) -> tuple[str, dict[str, str]]:
    """The table of training, and split -> table of those that lie beside it in the folder."""
    if not os.path.isdir(data_dir):
        return data_dir, {}
    tables = {split: os.path.join(data_dir, name) for split, name in _by_split(data_dir).items()}
    return tables.pop("train", os.path.join(data_dir, "train.csv")), tables


def _by_split(folder: str) -> dict[str, str]:
    """Split -> name of its table; DataError where training has none but other tables lie there."""
    names = _names(folder)
    found = by_split([(name, os.path.splitext(name)[0]) for name in names], folder)
    if names and "train" not in found:
        raise DataError(
            f"{folder} has no train.csv but {few(names)}: expected train.csv and, if there is one, val.csv; point "
            f"--data-dir at the table itself, such as {os.path.join(folder, names[0])}."
        )
    return found


def _names(folder: str) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.lower().endswith(TABLE_SUFFIXES) and not is_litter(name))


def unused_tables(data_dir: str, known: set[str]) -> str | None:
    """Which tables of the folder are none of the known ones, in words."""
    names = _names(data_dir) if os.path.isdir(data_dir) else []
    others = [name for name in names if os.path.join(data_dir, name) not in known]
    return f"not used: {few(others)} in {data_dir}" if others else None


def parse(file: str, first: int | None = None) -> tuple[Columns, list[Row]]:
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


def of_split(columns: Columns, rows: list[Row], split: str) -> list[Row]:
    """The rows of a split by the column that names it; without one none but those of training, which are all."""
    if columns.split is None:
        return rows if split == "train" else []
    return [(line, row) for line, row in rows if split_of(row[columns.split].strip()) == split]
