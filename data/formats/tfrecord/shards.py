"""Which TFRecord shards a folder holds, and what the manifest of launch/prepare.py says of them."""

import os
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from data.datasets import DataError
from data.files.spread import spread
from data.messages import few
from data.naming import SPLIT_WORDS, is_litter, split_of

MANIFEST, UNFINISHED = "manifest.json", "manifest.partial.json"
# train-00000-of-00016[.tfrecord], NAME-train.tfrecord-00000-of-00016 of TensorFlow Datasets, train.tfrecord alone.
_SPLIT = "|".join(word for words in SPLIT_WORDS.values() for word in words)
_ENDING = r"\.tfrec(?:ords?)?"
_SHARD = re.compile(
    rf"(?P<a>{_SPLIT})-(?P<n>\d+)-of-(?P<of>\d+)(?:{_ENDING})?"
    rf"|(?:.+-)?(?P<b>{_SPLIT}){_ENDING}-(?P<m>\d+)-of-(?P<og>\d+)|(?P<c>{_SPLIT}){_ENDING}",
    re.IGNORECASE,
)
_OTHER_NAMES = (
    "; rename these, or make links of such names to them.",
    "; decompress these, as no record of a compressed shard can be read without those before it.",
)
_RECORDS = re.compile(rf".*{_ENDING}(?:[-.].*)?|.*-\d+-of-\d+.*", re.IGNORECASE)


class Shard(BaseModel):
    """One file: name, number of records, size in bytes and SHA-256 (hex; empty while the file is not written)."""

    name: str
    examples: int
    bytes: int = 0
    sha256: str = ""


class Split(BaseModel):
    """The shards of one split in order, their records' number and the fingerprint of the source they were made from."""

    examples: int
    fingerprint: str
    shards: list[Shard]


class Manifest(BaseModel):
    """What launch/prepare.py made; `version` grows when a reader must know of a change."""

    version: Literal[1] = 1
    dataset: str
    classes: list[str]
    shorter_side: int | None = None  # in pixels, of what was made smaller
    splits: dict[Literal["train", "validation", "test"], Split]

    def every_shard(self) -> list[Shard]:
        return [shard for split in self.splits.values() for shard in split.shards]


def find_shards(folder: Path) -> dict[str, list[Path]]:
    """The shards of "train", "validation" and "test" in order, each perhaps none; DataError where one of a set is
    missing, or where two sets mean one split."""
    first: dict[str, tuple[str, str]] = {}  # split -> what its first shard is called before its number, and in whole
    sets: dict[str, dict[tuple[int, int], Path]] = {"train": {}, "validation": {}, "test": {}}
    for file in sorted(folder.iterdir()):
        match = None if is_litter(file.name) else _SHARD.fullmatch(file.name)
        if match:
            split = split_of(match["a"] or match["b"] or match["c"])
            number, count = int(match["n"] or match["m"] or 0), int(match["of"] or match["og"] or 1)
            known = sets["validation" if split == "val" else split]
            if (number, count) in known:
                raise DataError(f"{file} and {known[number, count].name} are the same shard; remove one of them.")
            stem = (file.name[: match.start("m")] if match["b"] else match["a"] or match["c"]).lower()
            if first.setdefault(split, (stem, file.name))[0] != stem:
                raise DataError(
                    f"{folder} holds both {first[split][1]} and {file.name}: expected one set of {split} shards, all "
                    "called alike; move the other away or rename it."
                )
            known[number, count] = file
    for split, shards in sets.items():
        counts = sorted({count for _, count in shards})
        if len(counts) > 1:
            raise DataError(f"{folder} mixes {split} shards 'of {counts[0]}' and 'of {counts[1]}'; remove one set.")
        missing = counts[0] - len(shards) if counts else 0
        if missing:
            # Of n numbers that differ, one below n + 1 is not among them.
            first = next(number for number in range(len(shards) + 1) if (number, counts[0]) not in shards)
            name = f"{split}-{first:05d}-of-{counts[0]:05d}"
            raise DataError(f"{folder} lacks {missing} of {counts[0]} {split} shards, the first {name}; add them.")
    return {split: [shards[key] for key in sorted(shards)] for split, shards in sets.items()}


def other_shards(folder: Path) -> list[str]:
    """Names of files that look like shards, but not of which split."""
    names = sorted(file.name for file in folder.iterdir() if _RECORDS.fullmatch(file.name) and file.is_file())
    return [name for name in names if not _SHARD.fullmatch(name) and not is_litter(name)]


def no_training_shards(folder: Path) -> DataError:
    """The error of a folder without any, which names what looks like shards of another name."""
    for below in sorted(path for path in folder.iterdir() if split_of(path.name) == "train" and path.is_dir()):
        files = sorted(path.name for path in below.iterdir() if _RECORDS.fullmatch(path.name))
        if files:
            link = f"ln -s {below.name}/{files[0]} train-00000-of-{len(files):05d}"
            return DataError(
                f"{folder} has no training shards, but {below} has {len(files)} files like them: expected the shards "
                f"of all splits in one folder; make links in {folder}, the first of them by `{link}`."
            )
    other = other_shards(folder)
    seen = f" but {few(other, 3)}" if other else ""
    return DataError(
        f"{folder} has no training shards{seen}; expected files named like train-00000-of-00016"
        + (_OTHER_NAMES[other[0].lower().endswith((".gz", ".zz", ".zlib"))] if other else ".")
    )


def read_manifest(folder: Path, name: str = MANIFEST) -> Manifest | None:
    """The folder's manifest, or None where it has none."""
    try:
        return Manifest.model_validate_json((folder / name).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"])) or "the text"
        raise DataError(
            f"{folder / name} is no manifest of launch/prepare.py ({place}: {problem['msg']}); make the shards again."
        ) from error


def check_shards(folder: Path, found: dict[str, list[Path]], manifest: Manifest) -> None:
    """Names and sizes as the manifest says; contents are left to `prepare --verify` and to the index's checksums."""
    # Test shards may have been laid beside those of launch/prepare.py by hand.
    for split in ("train", "validation", *(["test"] if "test" in manifest.splits else [])):
        files = found[split]
        expected = {shard.name: shard for shard in manifest.splits[split].shards} if split in manifest.splits else {}
        if [file.name for file in files] != list(expected):
            raise DataError(f"{folder} has other {split} shards than {MANIFEST} names; run launch/prepare.py again.")
        for file, status in zip(files, spread(os.stat, files), strict=True):
            size = status.st_size
            if size != expected[file.name].bytes:
                raise DataError(
                    f"{file} has {size} bytes, but {MANIFEST} says {expected[file.name].bytes}; copy or make it again."
                )
