"""What a prediction leaves: a table or a JSON list, whole or not at all."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from launch.evaluation.classification import top_classes


@dataclass(frozen=True)
class Answers:
    """What the network sees on each picture.

    Attributes:
        paths: of the n pictures.
        names: of the c classes.
        probabilities: float32 [n, c]; of no meaning where ``errors`` has an entry.
        errors: index -> why that picture could not be read.
        top: how many classes are named.
    """

    paths: Sequence[str]
    names: Sequence[str]
    probabilities: np.ndarray
    errors: dict[int, str]
    top: int

    def rows(self) -> Iterator[tuple[str, list[tuple[str, str]], str]]:
        """Of each picture: path, the most probable classes with their probabilities (the shortest digits that give the
        same float32 again), best first; or the reason why there are none."""
        best = top_classes(self.probabilities, min(self.top, len(self.names)))
        values = np.take_along_axis(self.probabilities, best, axis=1).astype(str)
        for index, path in enumerate(self.paths):
            error = self.errors.get(index, "")
            pairs = zip((self.names[label] for label in best[index]), values[index], strict=True)
            yield path, [] if error else [(name, str(value)) for name, value in pairs], error


def as_csv(answers: Answers) -> str:
    """``path,label,probability``, then the ``top`` most probable with theirs, then ``error``."""
    count = min(answers.top, len(answers.names))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    best = [f"top{place + 1}{what}" for place in range(count) for what in ("", "_probability")]
    table.writerow(["path", "label", "probability", *best, "error"])
    for path, pairs, error in answers.rows():
        cells = [cell for pair in pairs for cell in pair] or [""] * (2 * count)
        table.writerow([path, cells[0], cells[1], *cells, error])
    return text.getvalue()


def as_json(answers: Answers) -> str:
    """A list of objects: path, label, probability and top, or path and error."""
    found = []
    for path, pairs, error in answers.rows():
        top = [{"label": name, "probability": float(value)} for name, value in pairs]
        found.append({"path": path, "error": error} if error else {"path": path, **top[0], "top": top})
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def printable(text: str) -> str:
    """UTF-8; names of files that are not are given with backslashes."""
    return text.encode(errors="backslashreplace").decode()
