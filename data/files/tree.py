"""Folders and what is in them, each listed once; whole trees of them many at a time where the disk is slow."""

import os
from collections.abc import Iterable
from typing import NamedTuple

from data.datasets import DataError, Progress
from data.files.spread import spread
from data.naming import is_litter, is_picture

DEEPEST = 100  # folders within each other
LISTING = "listing folders"  # what `Progress` is told


class Folder(NamedTuple):
    """A folder's content in order of names, without litter.

    Attributes:
        others: names of the files that are no pictures by their names.
        state: what `state_of` says of the folder.
        identity: the same under any path.
    """

    path: str
    folders: list[str]
    pictures: list[str]
    others: list[str]
    state: tuple[int, ...]
    identity: tuple[int, int]


class Tree:
    """Folders by their paths, from which each is listed when it is first asked for."""

    def __init__(self, progress: Progress | None = None):
        self._progress = progress
        self._known: dict[str, Folder] = {}

    def __getitem__(self, path: str) -> Folder:
        if path not in self._known:
            self._known[path] = _list(path)
        return self._known[path]

    @property
    def states(self) -> dict[str, tuple[int, ...]]:
        """By path, the states that all folders had before they were listed."""
        return {path: folder.state for path, folder in self._known.items()}

    def list_below(self, root: str, names: Iterable[str]) -> None:
        """List folders of `root` and all folders below them, those of one depth together.

        Raises:
            DataError: one cannot be read, is a link to a folder above it, leads a second time to a folder of the same
                name's, or lies too deep.
        """
        level = [(os.path.join(root, name), (self[root].identity,), set()) for name in names]
        while level:
            new = [path for path, _, _ in level if path not in self._known]
            for done, folder in enumerate(spread(_list, new), 1):
                self._known[folder.path] = folder
                if self._progress:
                    self._progress(LISTING, done, len(new))
            deeper = []
            for path, above, seen in level:
                folder = self[path]
                if folder.identity in above:
                    raise DataError(
                        f"{path} is a link to {os.path.realpath(path)}, a folder above it: expected folders that end; "
                        "remove the link."
                    )
                if folder.identity in seen:
                    raise DataError(
                        f"{path} leads to {os.path.realpath(path)}, which has been reached by another way: expected "
                        "each once; remove the link."
                    )
                if len(above) > DEEPEST:
                    raise DataError(f"{path[:200]}... lies {DEEPEST} folders deep: expected less; move pictures up.")
                seen.add(folder.identity)
                deeper += [(os.path.join(path, name), (*above, folder.identity), seen) for name in folder.folders]
            level = deeper


def _list(path: str) -> Folder:
    try:
        status = os.stat(path)  # first: what changes meanwhile is then seen to have changed
        with os.scandir(path) as entries:
            kept = [(entry.name, entry.is_dir()) for entry in entries if not is_litter(entry.name)]
    except NotADirectoryError as error:
        raise DataError(
            f"{path} is a file: expected a folder; unpack it if it is an archive, and name that."
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}): expected a folder; correct the path.") from error
    folders, pictures, others = [], [], []
    for name, is_folder in sorted(kept):
        (folders if is_folder else pictures if is_picture(name) else others).append(name)
    return Folder(path, folders, pictures, others, _state(status), (status.st_dev, status.st_ino))


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mtime_ns, status.st_size, status.st_nlink


def state_of(path: str) -> tuple[int, ...] | None:
    """What changes when a name comes into a folder or leaves it, or when a file is written to: time, size and number of
    links; None where there is no such thing."""
    try:
        return _state(os.stat(path))
    except OSError:
        return None


def states_of(paths: Iterable[str]) -> dict[str, tuple[int, ...] | None]:
    """`state_of` by path."""
    paths = list(paths)
    return dict(zip(paths, spread(state_of, paths), strict=True))
