"""Many paths in one block of bytes: an object for each of a million would take four times as much memory."""

import os
from collections.abc import Iterable, Sequence

import numpy as np


class Paths(Sequence[str]):
    """Paths in a fixed order, as the file system has them: bytes that need not be UTF-8.

    Attributes:
        block: all of them, with a zero byte behind each, which no path holds.
        bounds: [n + 1], -1 and then the place of each zero byte: path i is block[bounds[i] + 1 : bounds[i + 1]].
    """

    def __init__(self, block: bytes):
        zeros = np.flatnonzero(np.frombuffer(block, np.uint8) == 0)
        # Half the memory, unless the block is larger than 2 GiB.
        self.bounds = np.concatenate([[-1], zeros]).astype(np.int32 if len(block) < 2**31 else np.int64)
        self.block = block
        assert not block or block[-1] == 0

    @classmethod
    def of(cls, paths: Iterable[str]) -> "Paths":
        text = "\0".join(paths)
        return cls(os.fsencode(text + "\0") if text else b"")

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return os.fsdecode(self.block[self.bounds[index] + 1 : self.bounds[index + 1]])

    def some(self, start: int, stop: int) -> list[bytes]:
        """Those from `start` to before `stop`, as bytes; 0 <= start < stop <= n."""
        return self.block[self.bounds[start] + 1 : self.bounds[stop]].split(b"\0")

    def take(self, indices: np.ndarray) -> "Paths":
        """Those at `indices`, int64 [m]."""
        bounds = self.bounds
        parts = [self.block[bounds[index] + 1 : bounds[index + 1] + 1] for index in indices.tolist()]
        return Paths(b"".join(parts))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Paths) and self.block == other.block

    def groups(self, size: int) -> list[bytes]:
        """The block in pieces of `size` paths each, the last one perhaps shorter."""
        cuts = [*self.bounds[:-1:size].tolist(), int(self.bounds[-1])]
        return [self.block[start + 1 : stop + 1] for start, stop in zip(cuts[:-1], cuts[1:], strict=True)]
