"""Who of a host's ranks failed first: it alone says why, the others only end.

The first one to fail links a file to a name that all of a host's ranks know, and holds it, so that the others can wait
for its end whether or not they see its process.
"""

import contextlib
import os
import tempfile
from pathlib import Path

from distributed.health import records

NAME = "failed"
_mine: set[Path] = set()  # folders in which this process was the first


def claim(folder: Path) -> bool:
    """Claim, for this process or the one it monitors, to be the first that failed; False if another one was.

    A process that trains once more after a run that failed was the first that time, too.
    """
    temporary = None
    try:
        # Held before it has its name, so that nobody finds a claim whose owner seems gone.
        descriptor, name = tempfile.mkstemp(prefix="claim-", dir=folder)
        os.close(descriptor)
        temporary = Path(name)
        records.hold(temporary)
        os.link(temporary, folder / NAME)
    except FileExistsError:
        return folder in _mine
    except OSError:
        pass
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)
    _mine.add(folder)
    return True


def claimed(folder: Path) -> bool:
    """Whether a rank of this host has failed."""
    return (folder / NAME).exists()


def claimant_lives(folder: Path) -> bool:
    """Whether the process that was the first to fail, or its monitor if that said so, is still there."""
    return records.is_held(folder / NAME)


def forget(folder: Path) -> None:
    """Take the claim away, once nobody is left whom it could interest."""
    with contextlib.suppress(OSError):
        (folder / NAME).unlink(missing_ok=True)
