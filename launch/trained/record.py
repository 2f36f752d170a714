"""``labels.json``: the class names in order, and everything between a picture's file and what the network answers.

It stands in the run directory, in every checkpoint and beside every export, so that whoever reads one never guesses.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from distributed.checkpoint import disk
from launch import __version__

FILE = "labels.json"
FORMAT = 1
ONE_LOGIT, LOGITS = "one logit, that of class 1", "one logit per class"


class RecordError(ValueError):
    """A record that is missing or damaged; its message is one sentence.  It ends a program with exit code 2."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a trained network takes and answers.

    Attributes:
        classes: names, in the order of the labels.
        image_size: height and width of the network's input, in pixels.
        pixels: how a file becomes pixels uint8 [size, size, 3]; see ``data.pictures.decode.description``.
        outputs: ``ONE_LOGIT`` or ``LOGITS``.
        model: its name, as ``--model`` takes it.
        model_sha256: over names, shapes and dtypes of its weights, see ``identity.model_sha256``.
        dataset: the name of the data it was trained on, as ``--dataset`` takes it.
        data_sha256: the fingerprint of the training data.
        versions: of Python and the packages that the run was trained with.
        lockstep: the version of Lockstep that wrote the record.
    """

    classes: tuple[str, ...]
    image_size: int
    pixels: dict
    outputs: str
    model: str
    model_sha256: str
    dataset: str
    data_sha256: str
    versions: dict[str, str]
    lockstep: str = __version__

    def as_json(self) -> dict:
        """The record as a JSON value."""
        return {"format": FORMAT, **asdict(self)}


def read(directory: Path) -> Record:
    """The record that lies in a folder.

    Raises:
        RecordError: there is none, or none that this version can read.
    """
    path = directory / FILE
    try:
        return parse(json.loads(path.read_text()), path)
    except FileNotFoundError:
        raise RecordError(
            f"{directory} has no {FILE}, which runs leave since Lockstep 0.2; give the command that trained it once "
            "more, which writes it"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise RecordError(f"{path} cannot be read ({error}); give the command that trained it once more") from error


def parse(found: object, place: Path) -> Record:
    """A record from what ``Record.as_json`` gave; ``place`` is where it was found, for messages.

    Raises:
        RecordError: it is something else.
    """
    try:
        if found["format"] != FORMAT:
            what = f"the record of {place} has format {found['format']}"
            raise RecordError(f"{what}, expected {FORMAT}; use a newer Lockstep")
        values = {field.name: found[field.name] for field in fields(Record)}
        record = Record(**values | {"classes": tuple(found["classes"])})
        names = isinstance(found["classes"], list) and all(isinstance(name, str) for name in record.classes)
        size = record.image_size
        if len(record.classes) < 2 or not names or not isinstance(size, int) or size < 1:
            raise ValueError("its classes are no list of two or more names, or its image_size is no number")
        if not isinstance(record.pixels, dict):
            raise ValueError("its pixels are no table")
        return record
    except RecordError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"the record of {place} is damaged ({error}); take that of another checkpoint") from error


def write(record: Record, directory: Path) -> None:
    """Leave the record in a folder, whole or not at all."""
    with disk.whole_file(directory / FILE) as beside:
        beside.write_text(json.dumps(record.as_json(), indent=1) + "\n")
