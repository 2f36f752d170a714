"""Folders that this process may not enter, or not write to, also where the tests are root's."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

NOBODY = 65534


@contextlib.contextmanager
def rights(folder: Path, mode: int) -> Iterator[None]:
    """The folder with these rights, for a process that is not root; both as before when the block ends.

    The folders above it, which pytest makes root's alone, stay open: another process of the tests may be in one.
    """
    for parent in folder.parents:
        if parent.stat().st_uid == os.geteuid() and parent.stat().st_mode & 0o055 != 0o055:
            parent.chmod(parent.stat().st_mode | 0o055)
    before, root = folder.stat().st_mode, os.geteuid() == 0
    try:
        folder.chmod(mode)
        if root:
            os.seteuid(NOBODY)
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(before)
