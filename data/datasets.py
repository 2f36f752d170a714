"""Random access by index: what the pipeline needs of a data set, however it is stored.

A source knows its classes and labels at once and gives images for a vector of indices inside a tf.data graph.
Which index stands where in a run is not its business: see order.py.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import tensorflow as tf


class DataError(ValueError):
    """Input that the user can mend: a missing folder, an unreadable image, a label out of range.

    Its message is one sentence: what came, what was expected, how to mend it. It ends the run with exit code 2.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """The text, with bytes of file names that are not UTF-8 as Python escapes them."""
    return text.encode("utf-8", "backslashreplace").decode()


class Source:
    """A data set of labelled images with random access; the base of all sources.

    Attributes:
        name: the data set's name, for messages.
        classes: class names; a label is an index into them.
        labels: int32 [n].
        image_size: (height, width) in pixels if all images share it and lie in memory, else None.
        encoded: True if `read` gives JPEG or PNG bytes, False if it gives pixels.
        ready: True if `read` and `view` give what the network takes, which is not to be resized or augmented.
        note: a sentence on how the data was understood, for people to read, or None.
        turned: of all pictures of the data set, also those of its other split, how many have an orientation tag
            that turns or mirrors them; None where nobody has looked.
    """

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray
    image_size: tuple[int, int] | None
    encoded: bool
    ready: bool = False
    note: str | None = None
    turned: int | None = None

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        labels: np.ndarray,
        image_size: tuple[int, int] | None,
        encoded: bool,
    ):
        self.name = name
        self.classes = tuple(classes)
        self.labels = np.ascontiguousarray(labels, dtype=np.int32)
        self.image_size = image_size
        self.encoded = encoded
        assert self.labels.ndim == 1

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def labels_tensor(self) -> tf.Tensor:
        """int32 [n], on the CPU, to be captured by a tf.data function and gathered there."""
        return captured(self.labels)

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        """Images at `indices` (int64 [b]): uint8 [b, height, width, 3], or encoded bytes as string [b]."""
        raise NotImplementedError

    def view(self, indices: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """Where `ready`: what training takes of the examples at `indices` in an epoch (int64, from 0)."""
        raise NotImplementedError

    def where(self, index: int) -> str:
        """The place of one example in words, for error messages."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """SHA-256 (hex) that changes with the names, sizes, labels and, where they lie in memory, the pixels."""
        raise NotImplementedError

    def files(self) -> Iterator[tuple[str, int]]:
        """The place and the size in bytes of each example's file; none where they are no files of their own."""
        return iter(())


def captured(array: np.ndarray) -> tf.Tensor:
    """The array as one eager CPU tensor: a graph that uses it refers to it instead of holding a copy.

    Lifted out of any graph under construction, and kept off the GPU, where tf.data could not reach it.
    """
    with tf.init_scope(), tf.device("CPU:0"):
        return tf.convert_to_tensor(array)


class ArraySource(Source):
    """Pixels in memory: uint8 [n, height, width, 3] and labels [n]. Reading gathers a whole batch at once."""

    def __init__(self, name: str, classes: Sequence[str], pixels: np.ndarray, labels: np.ndarray):
        super().__init__(name, classes, labels, image_size=pixels.shape[1:3], encoded=False)
        assert pixels.dtype == np.uint8 and pixels.ndim == 4 and pixels.shape[3] == 3, (pixels.dtype, pixels.shape)
        assert len(pixels) == len(self.labels), (len(pixels), len(self.labels))
        self.pixels = np.ascontiguousarray(pixels)

    @cached_property
    def _pixels_tensor(self) -> tf.Tensor:
        return captured(self.pixels)

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._pixels_tensor, indices)

    def where(self, index: int) -> str:
        return f"example {index} of {self.name}"

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.name, self.classes, self.pixels.shape)).encode())
        digest.update(self.labels.astype("<i4").tobytes())
        digest.update(self.pixels)
        return digest.hexdigest()


class FileSource(Source):
    """One JPEG or PNG file per example; `paths` are relative to `root` or absolute, `labels` int [n]."""

    def __init__(self, name: str, classes: Sequence[str], root: str, paths: Sequence[str], labels: np.ndarray):
        super().__init__(name, classes, labels, image_size=None, encoded=True)
        assert len(paths) == len(self.labels), (len(paths), len(self.labels))
        self.root = root
        self.paths = list(paths)
        self._sizes: list[int] = []

    def without(self, indices: Iterable[int]) -> "FileSource":
        """The same examples but for some."""
        kept = np.setdiff1d(np.arange(len(self)), list(indices))
        paths = [self.paths[index] for index in kept]
        rest = FileSource(self.name, self.classes, self.root, paths, self.labels[kept])
        rest.note = self.note
        return rest

    @cached_property
    def _paths_tensor(self) -> tf.Tensor:
        return captured(np.array([os.fsencode(self.where(i)) for i in range(len(self))], dtype=object))

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        paths = tf.gather(self._paths_tensor, indices)
        return tf.map_fn(tf.io.read_file, paths, fn_output_signature=tf.TensorSpec([], tf.string))

    def where(self, index: int) -> str:
        return os.path.join(self.root, self.paths[index])

    def fingerprint(self) -> str:
        """Over relative path, size in bytes and label of each file; the contents are not read."""
        digest = hashlib.sha256(repr((self.name, self.classes)).encode())
        self._sizes = [size for _, size in self._stat()]
        for path, size, label in zip(self.paths, self._sizes, self.labels.tolist(), strict=True):
            digest.update(os.fsencode(f"{path}\0{size}\0{label}\n"))
        return digest.hexdigest()

    def files(self) -> Iterator[tuple[str, int]]:
        places = (self.where(index) for index in range(len(self)))
        # On a disk of the network asking for a size takes as long as opening the file.
        return zip(places, self._sizes, strict=True) if self._sizes else self._stat()

    def _stat(self) -> Iterator[tuple[str, int]]:
        for index in range(len(self)):
            place = self.where(index)
            try:
                yield place, os.stat(place).st_size
            except OSError as error:
                raise DataError(f"cannot read {place} ({error.strerror}); restore the file.") from error


class Subset(Source):
    """The examples of `source` at `indices` (int64 [m], sorted so that neighbours in files stay neighbours)."""

    def __init__(self, source: Source, indices: np.ndarray):
        self.source = source
        self.indices = np.sort(np.asarray(indices, dtype=np.int64))
        super().__init__(source.name, source.classes, source.labels[self.indices], source.image_size, source.encoded)
        self.note, self.turned = source.note, source.turned

    @cached_property
    def _indices_tensor(self) -> tf.Tensor:
        return captured(self.indices)

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        return self.source.read(tf.gather(self._indices_tensor, indices))

    def where(self, index: int) -> str:
        return self.source.where(int(self.indices[index]))

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.source.fingerprint().encode())
        digest.update(self.indices.astype("<i8").tobytes())
        return digest.hexdigest()

    def files(self) -> Iterator[tuple[str, int]]:
        files = list(self.source.files())
        return (files[index] for index in self.indices.tolist()) if files else iter(())
