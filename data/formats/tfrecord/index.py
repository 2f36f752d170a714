"""The offset index of TFRecord shards, found by one pass (scan.py) and kept beside them.

It is mapped into memory, so that all processes of a host have one.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.datasets import Progress
from data.files.spread import spread
from data.formats.arrays.mapped import map_array
from data.formats.tfrecord.scan import FEATURES, RECORD, Index, build_index, stored_checksums

VERSION = 2  # of what is kept


def load_index(
    folder: Path,
    files: Sequence[Path],
    progress: Progress | None = None,
    name: str = "index",
    features: tuple[str, str] = FEATURES,
    anew: bool = False,
) -> Index:
    """The index of `files`, all in `folder`: the stored one if names and sizes still agree, else a new one.

    Of files with other times, such as copies, the checksums of all records must agree, too. Stored as `NAME.npz` beside
    the shards, or in ~/.cache/lockstep where that folder cannot be written, or nowhere. Several processes may build it
    at once: each writes a file of its own and the last rename wins. `anew` builds a new one in any case.

    Raises:
        DataError: a corrupt or truncated shard, or a record without image or label; it names file and byte.
    """
    status = list(spread(os.stat, files))
    sizes, times = [one.st_size for one in status], [one.st_mtime_ns for one in status]
    state = json.dumps([VERSION, [[file.name, size] for file, size in zip(files, sizes, strict=True)], features])
    homes = _homes(folder, name)
    for home in homes:
        stored = None if anew else _read(home, state)
        if stored is None:
            continue
        index, before = stored
        touched = [shard for shard, time in enumerate(times) if before[shard] != time]
        if all(spread(lambda shard, index=index: _is_unchanged(index, shard, files[shard], sizes[shard]), touched)):
            if touched:
                _keep(homes, index, state, times)
            return index
    index = build_index(files, sizes, progress, features)
    _keep(homes, index, state, times)
    return index


def _is_unchanged(index: Index, shard: int, file: Path, size: int) -> bool:
    """Whether the checksums behind all records of a shard are those of the index."""
    first, end = np.searchsorted(index.records["shard"], [shard, shard + 1])
    found = stored_checksums(file, index.records["offset"][first:end], size)
    return np.array_equal(found, index.checksums[first:end])


def _keep(homes: Sequence[Path], index: Index, state: str, times: Sequence[int]) -> None:
    for home in homes:
        try:
            _write(home, index, state, times)
            return
        except OSError:
            continue  # a read-only or full disk costs only time: the next run builds the index again


def _homes(folder: Path, name: str) -> list[Path]:
    homes = [folder / f"{name}.npz"]
    try:
        key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
        homes.append(Path.home() / ".cache" / "lockstep" / f"{name}-{key}.npz")
    except RuntimeError:  # this user has no home
        pass
    return homes


def _read(home: Path, state: str) -> tuple[Index, list[int]] | None:
    """The stored index, and the times of its files in nanoseconds."""
    try:
        if not home.is_file():
            return None
        with np.load(home, allow_pickle=False) as stored:
            if stored["state"].item() != state:
                return None
            texts = {int(label): str(text) for label, text in json.loads(stored["texts"].item()).items()}
            times, turned, checksums = stored["times"].tolist(), int(stored["turned"]), stored["checksums"]
        records, files = map_array(str(home), "records"), json.loads(state)[1]
        if records is None or not _fits(records, files) or (len(checksums), len(times)) != (len(records), len(files)):
            return None
        return Index(records, texts, turned, checksums), times
    except Exception:  # what is damaged can raise almost anything
        return None  # missing or damaged: it can be built again


def _fits(records: np.ndarray, files: list) -> bool:
    """Whether records lie in their shards, of which (name, size, ...) are known: anybody may have written an index."""
    if records.dtype != RECORD or records.ndim != 1:
        return False
    shard, offset, begin, length = (records[name] for name in ("shard", "offset", "image_offset", "image_length"))
    if not len(records) or shard[0] < 0 or shard[-1] >= len(files) or (np.diff(shard) < 0).any():
        return False
    sizes = np.array([size for _, size, *_ in files])[shard]
    within = (offset >= 0) & (offset < begin) & (length > 0) & (length <= sizes) & (begin <= sizes - length)
    return bool(within.all())


def _write(home: Path, index: Index, state: str, times: Sequence[int]) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    temporary = home.with_name(f".{home.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "wb") as file:
            arrays = {"records": index.records, "checksums": index.checksums, "times": np.array(times)}
            np.savez(file, **arrays, texts=json.dumps(index.texts), turned=index.turned, state=state)
        os.replace(temporary, home)
    finally:
        temporary.unlink(missing_ok=True)
