"""Random access by index: what the pipeline needs of a data set, however it is stored.

A source knows its classes and labels at once and gives images for a vector of indices inside a tf.data graph.
Which index stands where in a run is not its business: see order.py.
"""

import contextlib
import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
import tensorflow as tf

from data.messages import printable

Progress = Callable[[str, int, int], None]  # called with (what is under way, how much is done, of how much)


class DataError(ValueError):
    """Input that the user can mend: a missing folder, an unreadable image, a label out of range.

    Its message is one sentence: what came, what was expected, how to mend it. It ends the run with exit code 2.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class UnlabelledError(DataError):
    """Pictures of which nobody knows the classes, as the test split of a competition; all else may be right."""


@contextlib.contextmanager
def opening(place: str) -> Iterator[None]:
    """What opening a data set raises as an OSError, as a DataError that names the file, or else `place`."""
    try:
        yield
    except OSError as error:
        what = error.filename or place
        raise DataError(f"cannot read {what} ({error.strerror or error}): restore it or make it readable.") from error


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
        sha256: the fingerprint, where it is known already.
    """

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray
    image_size: tuple[int, int] | None
    encoded: bool
    ready: bool = False
    note: str | None = None
    turned: int | None = None
    sha256: str | None = None

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
        if self.sha256 is None:
            self.sha256 = self.digest()
        return self.sha256

    def digest(self) -> str:
        """The fingerprint, computed."""
        raise NotImplementedError

    def outline(self) -> str:
        """SHA-256 (hex) of what can be compared without looking at any example: names, labels and the images' size."""
        size = self.image_size and tuple(self.image_size)
        digest = hashlib.sha256(repr((self.name, self.classes, size)).encode())
        digest.update(self.labels.astype("<i4").tobytes())
        return digest.hexdigest()

    def files(self) -> Iterator[tuple[str, int]]:
        """The place and the size in bytes of each example's file; none where they are no files of their own."""
        return iter(())

    def glance(self, indices: np.ndarray) -> list[int]:
        """A number for each of a few examples (int64 [m]) by which another process can tell that it sees the same:
        the size of a file, -1 where there is none, or a checksum of pixels. None of all where labels say enough."""
        return []


def captured(array: np.ndarray) -> tf.Tensor:
    """The array as one eager CPU tensor: a graph that uses it refers to it instead of holding a copy.

    Lifted out of any graph under construction, and kept off the GPU, where tf.data could not reach it.
    """
    with tf.init_scope(), tf.device("CPU:0"):
        return tf.convert_to_tensor(array)


class ArraySource(Source):
    """Pixels in memory, or in a file that is mapped into it: uint8 [n, height, width, 3] and labels [n].

    Reading gathers a whole batch at once.
    """

    def __init__(self, name: str, classes: Sequence[str], pixels: np.ndarray, labels: np.ndarray):
        super().__init__(name, classes, labels, image_size=pixels.shape[1:3], encoded=False)
        assert pixels.dtype == np.uint8 and pixels.ndim == 4 and pixels.shape[3] == 3, (pixels.dtype, pixels.shape)
        assert len(pixels) == len(self.labels), (len(pixels), len(self.labels))
        self._mapped = isinstance(pixels, np.memmap) or isinstance(pixels.base, np.memmap)
        self.pixels = np.ascontiguousarray(pixels)

    @cached_property
    def _pixels_tensor(self) -> tf.Tensor:
        tensor = captured(self.pixels)
        self.pixels = np.asarray(memoryview(tensor))  # instead of a second copy
        return tensor

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        if not self._mapped:
            return tf.gather(self._pixels_tensor, indices)
        indices = tf.convert_to_tensor(indices)
        images = tf.numpy_function(lambda rows: self.pixels[rows], [indices], tf.uint8, stateful=False)
        return tf.ensure_shape(images, [indices.shape[0], *self.pixels.shape[1:]])

    def where(self, index: int) -> str:
        return f"example {index} of {self.name}"

    def digest(self) -> str:
        digest = hashlib.sha256(repr((self.name, self.classes, self.pixels.shape)).encode())
        digest.update(self.labels.astype("<i4").tobytes())
        digest.update(self.pixels)
        return digest.hexdigest()

    def glance(self, indices: np.ndarray) -> list[int]:
        return [zlib.crc32(self.pixels[index]) for index in indices]


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

    def digest(self) -> str:
        digest = hashlib.sha256(self.source.fingerprint().encode())
        digest.update(self.indices.astype("<i8").tobytes())
        return digest.hexdigest()

    def files(self) -> Iterator[tuple[str, int]]:
        files = list(self.source.files())
        return (files[index] for index in self.indices.tolist()) if files else iter(())

    def glance(self, indices: np.ndarray) -> list[int]:
        return self.source.glance(self.indices[indices])
