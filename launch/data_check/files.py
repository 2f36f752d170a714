"""What is done about pictures that should go: listed in a file, or moved out of the data set."""

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from distributed.checkpoint import disk
from launch.trained.program import OutputError, check_writable


def write_list(path: Path, lines: Sequence[tuple[str, str]]) -> None:
    """Write (picture, problem) as lines with a tab between, whole or not at all."""
    try:
        with disk.whole_file(path) as beside:
            beside.write_bytes(b"".join(os.fsencode(f"{place}\t{problem}\n") for place, problem in lines))
    except OSError as error:
        raise OutputError(f"--list {path} cannot be written ({error.strerror}); name a file that can") from error


def check_list(path: Path) -> None:
    """Raise ``OutputError`` where a list cannot be written."""
    if os.path.isdir(path):
        raise OutputError(f"--list {path} is a folder; name a file")
    check_writable(path.absolute().parent, "--list")


def check_target(target: Path, data_dir: Path) -> None:
    """Raise ``OutputError`` where pictures in ``target`` would still be part of the data set, or it is no folder
    that can be written."""
    resolved, data = target.resolve(), data_dir.resolve()
    if resolved == data or data in resolved.parents:
        raise OutputError(f"--move-to {target} lies in {data_dir}, where it would be a class; name a folder beside it")
    check_writable(target, "--move-to")


def move(paths: Sequence[str], data_dir: Path, target: Path) -> None:
    """Move files of ``data_dir`` to the same places below ``target``.

    Raises:
        OutputError: a place is taken, before anything is moved; or a file cannot be moved.
        KeyboardInterrupt: each file is in one of its places, whole.
    """
    places = [(path, target / os.path.relpath(path, data_dir)) for path in paths]
    taken = [place for _, place in places if os.path.lexists(place)]
    if taken:
        raise OutputError(f"--move-to: {taken[0]} is there already; nothing was moved; name an empty folder")
    for path, place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, place)
        except (OSError, KeyboardInterrupt) as error:
            if os.path.lexists(path):  # on another disk it may have been copied in part
                with contextlib.suppress(OSError):
                    place.unlink()
            if isinstance(error, KeyboardInterrupt):
                raise
            raise OutputError(f"{path} cannot be moved to {place} ({error.strerror}); {moved(paths)}") from error


def moved(paths: Sequence[str]) -> str:
    """How many of the files that were to be moved are, in words, and what to do about the rest."""
    done = sum(not os.path.lexists(path) for path in paths)
    return f"{done:,} of {len(paths):,} files were moved; give the command again with another folder for the rest"
