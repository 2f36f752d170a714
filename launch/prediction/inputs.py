"""Which pictures are asked for: files, folders, patterns, and lists of them from standard input."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from launch.trained.program import OutputError

# What TensorFlow decodes; a file that is named itself is tried whatever its name.
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")


@dataclass(frozen=True)
class Inputs:
    """
    Attributes:
        paths: in the order in which they were asked for; those of a folder in order of their names.
        passed_over: files of folders that are no pictures by their names.
    """

    paths: list[str]
    passed_over: int


def collect(words: Sequence[str]) -> Inputs:
    """Find the pictures.

    Args:
        words: files, folders (with all below them), patterns such as ``*.jpg``, and ``-`` for a list of files and
            folders on standard input, one per line.  A file of a list that is not there is kept, as one that cannot be
            read: who made the list may have done so long ago.

    Raises:
        OutputError: words that name nothing, all of them; no picture at all.
    """
    paths, passed_over, missing = [], 0, []
    for word, listed in _expanded(words):
        place = word if listed else os.path.expanduser(word)
        if os.path.isdir(place):
            found, others = _below(place)
            paths += found
            passed_over += others
        elif listed or os.path.lexists(place):
            paths.append(place)
        elif glob.has_magic(place) and (matches := sorted(glob.glob(place, recursive=True))):
            paths += [match for match in matches if not os.path.isdir(match)]
        else:
            missing.append(word)
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise OutputError(f"there is no {shown}; give files, folders or patterns of pictures that are there")
    if not paths:
        raise OutputError(
            f"there is no picture ({', '.join(SUFFIXES)}) in {', '.join(words)}; give files or folders that hold some"
        )
    return Inputs(paths, passed_over)


def _expanded(words: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """The words, and whether they come from the list."""
    for word in words:
        if word != "-":
            yield word, False
            continue
        for line in sys.stdin:
            if name := line.rstrip("\r\n"):
                yield name, True


def _below(folder: str) -> tuple[list[str], int]:
    """Pictures below a folder, in order of their paths, and how many other files there are that are not hidden."""
    try:
        return _walk(folder)
    except RecursionError:  # of Python 3.11
        raise OutputError(f"{folder} has folders within folders without end; give the ones with the pictures") from None


def _walk(folder: str) -> tuple[list[str], int]:
    found, others = [], 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):
                continue
            if name.lower().endswith(SUFFIXES):
                found.append(os.path.join(place, name))
            else:
                others += 1
    return found, others
