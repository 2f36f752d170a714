"""A source of files: one JPEG or PNG file per example."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import tensorflow as tf

from data.datasets import DataError, Source, captured
from data.files.paths import Paths
from data.files.spread import slices, spread

TOGETHER = 64  # paths that are one string to TensorFlow


class FileSource(Source):
    """One JPEG or PNG file per example; `paths` are relative to `root` or absolute, `labels` int [n].

    Attributes:
        sizes: integers [n], in bytes; None where nobody has asked for them yet.
        folders: the folders and tables that these files were found by, with what `data.files.tree.state_of` said of
            them before; those of training also stand for validation.
    """

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        root: str,
        paths: Paths | Iterable[str],
        labels: np.ndarray,
        sizes: np.ndarray | None = None,
    ):
        super().__init__(name, classes, labels, image_size=None, encoded=True)
        # Half the memory, as long as no file has 4 GiB.
        small = sizes is not None and sizes.max(initial=0) < 2**32
        self.root, self.sizes = root, sizes.astype(np.uint32) if small else sizes
        self.paths = paths if isinstance(paths, Paths) else Paths.of(paths)
        self.folders: dict[str, tuple[int, ...] | None] = {}
        assert len(self.paths) == len(self.labels), (len(self.paths), len(self.labels))

    def without(self, indices: Iterable[int]) -> "FileSource":
        """The same examples but for some."""
        kept = np.setdiff1d(np.arange(len(self)), list(indices))
        sizes = None if self.sizes is None else self.sizes[kept]
        rest = FileSource(self.name, self.classes, self.root, self.paths.take(kept), self.labels[kept], sizes)
        rest.note, rest.folders = self.note, self.folders
        return rest

    @cached_property
    def _path_tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Paths in groups, as strings of their own would take several times as much memory; and their bounds."""
        return captured(np.array(self.paths.groups(TOGETHER), dtype=object)), captured(self.paths.bounds)

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        groups, bounds = self._path_tensors
        indices = tf.cast(indices, tf.int64)
        group = indices // TOGETHER
        first, start = (tf.gather(bounds, index) + 1 for index in (group * TOGETHER, indices))
        length = tf.gather(bounds, indices + 1) - start
        paths = tf.strings.substr(tf.gather(groups, group), start - first, length)
        below = os.fsencode(os.path.join(self.root, ""))
        paths = tf.where(tf.strings.substr(paths, 0, 1) == b"/", paths, below + paths)
        return tf.map_fn(tf.io.read_file, paths, fn_output_signature=tf.TensorSpec([], tf.string))

    def where(self, index: int) -> str:
        return os.path.join(self.root, self.paths[index])

    def places(self, start: int, stop: int) -> list[bytes]:
        """`where` of all from `start` to before `stop`, as bytes."""
        below = os.fsencode(os.path.join(self.root, ""))
        return [path if path[:1] == b"/" else below + path for path in self.paths.some(start, stop)]

    def digest(self) -> str:
        """Over relative path, size in bytes and label of each file; the contents are not read."""
        digest = hashlib.sha256(repr((self.name, self.classes)).encode())
        sizes = self._known_sizes()
        for part in slices(len(self)):
            rows = zip(
                self.paths.some(part.start, part.stop),
                sizes[part.start : part.stop].tolist(),
                self.labels[part.start : part.stop].tolist(),
                strict=True,
            )
            digest.update(b"".join([b"%b\0%d\0%d\n" % row for row in rows]))
        return digest.hexdigest()

    def files(self) -> Iterator[tuple[str, int]]:
        places = (self.where(index) for index in range(len(self)))
        return zip(places, self._known_sizes().tolist(), strict=True)

    def _known_sizes(self) -> np.ndarray:
        if self.sizes is None:
            parts = spread(self._stat, slices(len(self)))
            self.sizes = np.concatenate([np.zeros(0, np.int64), *parts])
        return self.sizes

    def _stat(self, part: range) -> np.ndarray:
        sizes = np.zeros(len(part), np.int64)
        for number, place in enumerate(self.places(part.start, part.stop)):
            try:
                sizes[number] = os.stat(place).st_size
            except OSError as error:
                raise DataError(f"cannot read {os.fsdecode(place)} ({error.strerror}); restore the file.") from error
        return sizes

    def glance(self, indices: np.ndarray) -> list[int]:
        return list(spread(lambda index: _size(self.where(index)), indices.tolist()))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
