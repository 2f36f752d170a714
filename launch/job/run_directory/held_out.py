"""Which files a run holds out once it has gone on with other data: those of before, whatever has come or gone since.

A draw goes by the places of examples among all. After a file has gone, it would hold out others, which were trained on.
"""

import contextlib
import json
from pathlib import Path

from data import DatasetConfig, arrange, file_names
from data.datasets import DataError
from data.files.listing import Listing
from distributed.checkpoint import disk
from launch.job.config import TrainConfig
from launch.job.logs.console import Console

FILE = "held_out.json"


def read(run: Path, dataset: DatasetConfig) -> frozenset[str] | None:
    """The names that a run directory keeps; None where it keeps none, or those of another seed or split."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads((run / FILE).read_text())
        if [found["seed"], found["validation_split"]] == [dataset.seed, dataset.validation_split]:
            return frozenset(found["files"])
    return None


def draw(found: Listing | None, dataset: DatasetConfig) -> frozenset[str] | None:
    """The names that are drawn of the files of a listing; None without one, and where nothing is drawn."""
    if found is None or found.sources[1] is not None or found.sources[0].name != dataset.kind:
        return None
    try:
        return frozenset(file_names(arrange(found.sources, dataset).validation))
    except DataError:
        return None  # it is of other settings


def keep(names: frozenset[str] | None, run: Path, config: TrainConfig, console: Console) -> None:
    """Leave the names in the run directory, or none; a disk that does not take them costs a warning."""
    try:
        if names is None:
            (run / FILE).unlink(missing_ok=True)
            return
        facts = {"seed": config.seed, "validation_split": config.validation_split, "files": sorted(names)}
        with disk.whole_file(run / FILE) as beside:
            beside.write_text(json.dumps(facts))
    except OSError as error:
        console.warn(f"{run / FILE} cannot be written ({error.strerror}); training goes on")
