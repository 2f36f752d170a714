"""The files of a run directory, each read, or refused in one sentence.  No TensorFlow in here."""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path

from distributed.checkpoint import disk
from launch.job.text_files import TextError, parse_yaml

LARGEST = 1 << 27  # bytes of a file


class ComparisonError(ValueError):
    """Runs that cannot be compared; its message has a sentence a line. It ends the program with exit code 2."""


@dataclass(frozen=True)
class Evaluation:
    """A folder ``evaluation-<name>``: ``metrics.json`` as it is, the lines of ``per_class.csv``, and the bytes of its
    pictures, file name -> PNG."""

    name: str
    metrics: dict
    per_class: list[dict[str, str]]
    pictures: dict[str, bytes]


def settings(path: Path) -> dict:
    """``config.yaml``."""
    try:
        found = parse_yaml(_text(path))
    except TextError as error:
        raise ComparisonError(f"{path} is not YAML ({error}); mend it or leave the run out") from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ComparisonError(f"{path} is not lines of the form 'name: value'; mend it or leave the run out")
    return found


def json_object(path: Path, *objects: str) -> dict:
    """A file that holds an object, empty where there is none; ``objects`` name the parts of it that must be, too."""
    if not path.exists():
        return {}
    try:
        found = json.loads(_text(path))
    except ComparisonError:
        raise
    except (ValueError, RecursionError):  # also a number of 5,000 digits
        raise ComparisonError(f"{path} is not JSON; mend it or leave the run out") from None
    if not isinstance(found, dict):
        raise ComparisonError(f"{path} holds no JSON object; mend it or leave the run out")
    for name in objects:
        if not isinstance(found.get(name, {}), dict):
            raise ComparisonError(f"{name} in {path} is no JSON object; mend it or leave the run out")
    return found


def table(path: Path) -> list[dict[str, float | None]]:
    """``metrics.csv``: its lines, each with epoch and step; None where a cell is empty, none where there is no file."""
    rows = _rows(path)
    try:
        found = [{name: float(cell) if cell else None for name, cell in row.items()} for row in rows]
    except ValueError as error:
        raise ComparisonError(f"{path} has a cell that is no number ({error}); mend it or leave the run out") from None
    if not all(math.isfinite(row.get(name) or math.nan) for row in found for name in ("epoch", "step")):
        raise ComparisonError(f"{path} lacks the number of an epoch or step; mend it or leave the run out")
    return found


def evaluation(folder: Path) -> Evaluation:
    """What ``launch/evaluate.py`` has left in a folder."""
    pictures = {}
    for path in (folder / "confusion.png", folder / "worst.png"):
        if path.exists():
            content = _bytes(path)
            if not content.startswith(b"\x89PNG\r\n\x1a\n"):
                raise ComparisonError(f"{path} is no PNG picture; evaluate the run again")
            pictures[path.name] = content
    name = folder.name.removeprefix("evaluation-")
    return Evaluation(name, json_object(folder / "metrics.json"), _rows(folder / "per_class.csv"), pictures)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    try:
        reader = csv.DictReader(_text(path).splitlines(), strict=True)
        rows = list(reader)
    except csv.Error as error:
        raise ComparisonError(f"{path} is not CSV ({error}); mend it or leave the run out") from None
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            cells = len(reader.fieldnames)
            raise ComparisonError(f"line {number} of {path} has not {cells} cells; mend it or leave the run out")
    return rows


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode()
    except UnicodeDecodeError:
        raise ComparisonError(f"{path} cannot be read (it is not text); mend it or leave the run out") from None


def _bytes(path: Path) -> bytes:
    try:
        return disk.read_regular(path, LARGEST)
    except OSError as error:
        reason = error.strerror or error
        raise ComparisonError(f"{path} cannot be read ({reason}); mend it or leave the run out") from None
