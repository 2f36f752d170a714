"""All files that cannot be pictures are named before the first step, by their sizes and first bytes."""

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.datasets import DataError, Progress, Source
from data.files.source import FileSource
from data.messages import few, joined
from data.pictures import look

LOOKING = "looking at files"  # what `Progress` is told
SHOWN = 20


def check_pictures(
    sources: Sequence[Source | None], skip: int = 0, progress: Progress | None = None
) -> list[Source | None]:
    """Look at the size and the first bytes of each file of the sources that consist of files.

    Args:
        skip: leave out up to so many files that cannot be pictures.
        progress: told at how many files was looked.

    Returns:
        The sources without these, which the first one's note names; each knows how many of all have an orientation tag,
        and the sizes of its files.

    Raises:
        DataError: more cannot be pictures; it names the first 20 of them, each with its reason, and the two flags that
            help.
    """
    looked = [look_at(source, progress) if isinstance(source, FileSource) else None for source in sources]
    total = sum(len(source) for source, found in zip(sources, looked, strict=True) if found)
    pairs = [(source, found) for source, found in zip(sources, looked, strict=True) if found]
    problems = [f"{source.where(index)}: {why}" for source, found in pairs for index, why in found.problems.items()]
    if len(problems) > skip:
        count = f"{len(problems):,} of {total:,} files"
        many = f", more than the {skip:,} of --skip-unreadable" if skip else ""
        what = f"{count} cannot be pictures{many}; replace or remove them:"
        without = f"to train without: --skip-unreadable {len(problems)}"
        remedies = f"{without}; to list all: launch/check_data.py --list bad.txt"
        raise DataError("\n  ".join([what, *_shown(problems), remedies]))
    kept = [
        source.without(found.problems) if found and found.problems else source
        for source, found in zip(sources, looked, strict=True)
    ]
    if problems:
        left = "left out by --skip-unreadable"
        kept[0].note = joined(kept[0].note, "\n  ".join([f"{len(problems):,} {left}:", *_shown(problems)]))
    for source in filter(None, kept):
        source.turned = sum(found.turned for _, found in pairs) if pairs else source.turned
    _refuse_emptied(sources[0], kept[0])
    return kept


def _shown(problems: list[str]) -> list[str]:
    return [*problems[:SHOWN], *([f"... and {len(problems) - SHOWN:,} more"] if len(problems) > SHOWN else [])]


def _refuse_emptied(source: Source, kept: Source) -> None:
    gone = [source.classes[label] for label in np.setdiff1d(source.labels, kept.labels)]
    if gone:
        raise DataError(f"class {few(gone)} has no file that can be a picture: add some, or remove the folder.")


class Looked(NamedTuple):
    """What files are by their first bytes: why some cannot be pictures, by index; and how many have an orientation."""

    problems: dict[int, str]
    turned: int


def look_at(source: FileSource, progress: Progress | None = None) -> Looked:
    """Look at the size and the first bytes of each file; the source knows the sizes afterwards."""
    problems, turned = {}, 0
    sizes = np.zeros(len(source), np.int64)
    parts, looked = look.at_all(len(source), source.places)
    with contextlib.closing(looked):  # whatever the progress raises
        for part, (found, some, count) in zip(parts, looked, strict=True):
            sizes[part.start : part.stop] = some
            problems |= {part.start + number: problem for number, problem in found.items()}
            turned += count
            if progress:
                progress(LOOKING, part.stop, len(source))
    source.sizes = sizes
    return Looked(problems, turned)
