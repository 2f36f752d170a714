"""Run directories are made and named, and removed where nothing came of them.  No TensorFlow in here."""

import contextlib
import time
from pathlib import Path

from launch.job.config import ConfigError

ATTEMPTS = 100  # to make what looks free; each fails only if another run came first and left at once

# Directories that this process has made.
_made: list[Path] = []


def create(root: Path, name: str, now: float) -> Path:
    """Make a new directory ``root/name-YYYYmmdd-HHMMSS``, with ``-2``, ``-3`` ... behind it where that exists.

    Args:
        name: one part of a path.
        now: seconds since the epoch, named in local time.

    Raises:
        ConfigError: if it cannot be made.
    """
    assert Path(name).name == name, f"{name} is not one part of a path"
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}"
    count, attempts = 1, 0
    while True:
        directory = root / (stem if count == 1 else f"{stem}-{count}")
        try:
            if make(directory):
                return directory
            count += 1
        except FileNotFoundError as error:
            # Another run that was refused has just removed what it had made above this one.
            attempts += 1
            if attempts == ATTEMPTS:
                unmake(directory)
                raise cannot_be_written(directory, error) from None
        except OSError as error:
            unmake(directory)
            raise cannot_be_written(directory, error) from None


def make(directory: Path) -> bool:
    """Make a directory and those above it, and remember what was made; False if it exists."""
    directory = directory.absolute()
    for path in (*reversed(directory.parents), directory):
        if path != directory and path.is_dir():
            continue
        try:
            path.mkdir()
            _made.append(path)
        except FileExistsError:
            if not path.is_dir():
                raise
            if path == directory:
                return False
    return True


def unmake(directory: Path) -> None:
    """Remove a directory, and those above it, as far as this process made them and they are empty."""
    directory = directory.absolute()
    for path in reversed(_made.copy()):
        if path == directory or path in directory.parents:
            with contextlib.suppress(OSError):
                path.rmdir()
                _made.remove(path)


def cannot_be_written(directory: Path, error: OSError) -> ConfigError:
    return ConfigError(f"--run-dir {directory} cannot be written ({error.strerror}); name a folder you may write to")
