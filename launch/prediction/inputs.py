"""Which pictures are asked for: files, folders, patterns, and lists of them from standard input."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data.files.tree import Tree
from data.naming import IMAGE_SUFFIXES
from launch.trained.program import OutputError


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
        words: files, which are tried whatever their names; folders, with all pictures below them, the same as training
            finds there; patterns such as ``*.jpg``; and ``-`` for a list of files and folders on standard input, one
            per line or, as ``find -print0`` writes them, each before a zero byte.  A file of a list that is not there
            is kept, as one that cannot be read: who made the list may have done so long ago.

    Raises:
        OutputError: words that name nothing, all of them; no picture at all.
        DataError: a folder that cannot be read, or that leads to itself.
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
            f"there is no picture ({', '.join(IMAGE_SUFFIXES)}) in {', '.join(words)}; give files or folders that hold "
            "some"
        )
    return Inputs(paths, passed_over)


def _expanded(words: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """The words, and whether they come from the list."""
    for word in words:
        if word != "-":
            yield word, False
            continue
        content = sys.stdin.buffer.read()
        names = content.split(b"\0") if b"\0" in content else content.splitlines()
        yield from ((os.fsdecode(name), True) for name in names if name)


def _below(folder: str) -> tuple[list[str], int]:
    """Pictures below a folder, its own before those of its folders, and how many other files there are."""
    tree = Tree()
    tree.list_below(folder, tree[folder].folders)
    found, others, waiting = [], 0, [folder]
    while waiting:
        place = tree[waiting.pop()]
        found += [os.path.join(place.path, name) for name in place.pictures]
        others += len(place.others)
        waiting += [os.path.join(place.path, name) for name in reversed(place.folders)]
    return found, others
