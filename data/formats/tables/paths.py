"""From the paths that a table writes to the files that are there."""

import os
from collections.abc import Iterator, Sequence

from data.datasets import Progress
from data.files.spread import slices, spread
from data.naming import IMAGE_SUFFIXES, expand, is_litter

FINDING = "finding files of the table"  # what `Progress` is told


class Finder:
    """From a path as a table writes it to that of a file that is there, relative to the table's folder if it is so.

    Attributes:
        suffix: what was added to a path without an ending, or None.
        folder: the subfolder in which paths were found, or None.
        backslashes: whether paths were found once / stood in the place of \\, as Windows writes them.
    """

    def __init__(self, file: str):
        self.root = os.path.dirname(file)
        self.suffix: str | None = None
        self.folder: str | None = None
        self.backslashes = False

    def as_written(self, paths: Sequence[str], progress: Progress | None) -> Iterator[bool]:
        """Whether there is a file at each path, just as it is written."""
        parts = slices(len(paths))
        found = spread(lambda part: [self._is_file(path) for path in paths[part.start : part.stop]], parts)
        for part, there in zip(parts, found, strict=True):
            yield from there
            if progress:
                progress(FINDING, part.stop, len(paths))

    def __call__(self, written: str) -> str | None:
        if not written:
            return None
        if written[0] == "~" or "$" in written:
            written = expand(written)
        folders = (None,) if os.path.isabs(written) else (None, self.folder) if self.folder else (None, *self._below())
        found = self._look(folders, written)
        if not found and "\\" in written:
            found = self._look(folders, written.replace("\\", "/"))
            self.backslashes = self.backslashes or bool(found)
        # In two subfolders, nobody knows which is meant.
        if not found or (found[0][0] is not None and len(found) > 1):
            return None
        folder, suffix, path = found[0]
        self.folder, self.suffix = folder or self.folder, suffix or self.suffix
        return path

    def _look(self, folders: Sequence[str | None], written: str) -> list[tuple[str | None, str, str]]:
        """(folder, ending, path) of the file, for each folder that holds it."""
        found = []
        for folder in folders:
            inside = os.path.join(folder, written) if folder else written
            # The ending that was found last is tried first: a set mostly has one.
            for suffix in dict.fromkeys(["", self.suffix or "", *IMAGE_SUFFIXES]):
                if self._is_file(inside + suffix):
                    found.append((folder, suffix, inside + suffix))
                    break
        return found

    def _is_file(self, path: str) -> bool:
        return os.path.isfile(os.path.join(self.root, path))

    def _below(self) -> list[str]:
        with os.scandir(self.root or ".") as entries:
            return sorted(entry.name for entry in entries if not is_litter(entry.name) and entry.is_dir())
