"""How much the examples of each class count in training: balanced, or as a file of the user's says."""

import csv
import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.datasets import Source
from launch.job.config import ConfigError
from launch.job.text_files import TextError, decoded, expanded, parse_pairs, read_content, shortened

BALANCED = "balanced"
LARGEST = 1 << 22  # bytes of a file


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights, read; ``sha256`` is that of its bytes."""

    name: str
    sha256: str
    weights: Mapping[str, str] = field(repr=False)  # by class, as written


def read_weights(given: str) -> WeightsFile:
    """The file of ``--class-weights``: YAML lines ``name: weight``, or CSV lines ``name,weight``.

    Raises:
        ConfigError: a file that cannot be read, or is neither.
    """
    path, what = Path(expanded(given)), f"--class-weights {given}"
    try:
        content = read_content(path, LARGEST)
        text = decoded(content)
    except TextError as error:
        raise ConfigError(f"{what} cannot be read ({error}); give balanced, or a YAML or CSV file") from error
    try:
        pairs = _rows(text) if path.suffix.lower() == ".csv" else parse_pairs(text)
    except csv.Error as error:
        raise ConfigError(f"{what} is no table of names and weights ({error}); mend it") from error
    except TextError as error:
        raise ConfigError(f"{what} is not YAML lines of the form name: weight ({error}); mend it") from error
    names = [pair[0] for pair in pairs]
    if wrong := [shortened(",".join(pair)) for pair in pairs if len(pair) != 2 or _number(pair[1]) is None]:
        raise ConfigError(
            f"{what} has {_some(wrong)}, but a weight is a number of 0 or more behind the name of a class; mend it"
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{what} names {_some(twice)} more than once; leave one line for each class")
    return WeightsFile(given, hashlib.sha256(content).hexdigest(), dict(pairs))


def _rows(text: str) -> list[list[str]]:
    """The cells of a table, without its line of titles."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text)) if row]
    return rows[1:] if rows and len(rows[0]) == 2 and _number(rows[0][1]) is None else rows


def weigh(given: str | None, file: WeightsFile | None, train: Source) -> tuple[float, ...] | None:
    """The weight of each class, in the order of the data's; None if all count alike.

    Args:
        given: ``--class-weights``.
        file: what it names.
        train: the training examples, without those held out.

    Raises:
        ConfigError: classes that have no weight, and names that are no class.
    """
    if given is None:
        return None
    if file is None:
        counts = np.bincount(train.labels, minlength=len(train.classes))
        if absent := [name for name, count in zip(train.classes, counts, strict=True) if not count]:
            raise ConfigError(
                f"--class-weights balanced, but there is no training example of {_some(absent)}; choose with --classes"
            )
        # As compute_class_weight("balanced", ...) of scikit-learn.
        return tuple((counts.sum() / (len(counts) * counts)).tolist())
    missing = [name for name in train.classes if name not in file.weights]
    unknown = [name for name in file.weights if name not in train.classes]
    if missing or unknown:
        problems = [f"has no weight for {_some(missing)}"] if missing else []
        problems += [f"names {_some(unknown)}, which no class is called"] if unknown else []
        raise ConfigError(f"--class-weights {file.name} {', and '.join(problems)}; give each class one line")
    weights = tuple(float(file.weights[name]) for name in train.classes)
    if not any(weights[label] for label in np.unique(train.labels)):
        raise ConfigError(f"--class-weights {file.name} gives every class 0, so that nothing is learned; mend it")
    return weights


def _number(text) -> float | None:
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:6])} and {len(names) - 6} more"
