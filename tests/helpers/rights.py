"""Folders that this process may not enter, or not write to, also where the tests are root's."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

NOBODY = 65534


@contextlib.contextmanager
def rights(folder: Path, mode: int) -> Iterator[None]:
    """The folder with these rights, for a process that is not root; both as before when the block ends."""
    changed = {folder: mode}
    for parent in folder.parents:  # those of pytest are root's alone
        if parent.stat().st_uid == os.geteuid() and parent.stat().st_mode & 0o055 != 0o055:
            changed[parent] = parent.stat().st_mode | 0o055
    before = {place: place.stat().st_mode for place in changed}
    root = os.geteuid() == 0
    try:
        for place, bits in changed.items():
            place.chmod(bits)
        if root:
            os.seteuid(NOBODY)
        yield
    finally:
        if root:
            os.seteuid(0)
        for place, bits in before.items():
            place.chmod(bits)
