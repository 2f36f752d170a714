"""Names: of splits in folders, tables, archives and shards, of pictures, of litter; and which can be no names."""

import os
import re
from collections.abc import Iterable

from data.datasets import DataError
from data.messages import few, printable

SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_LIKE_SPLIT = re.compile(rf"({'|'.join(_SPLIT_OF)})[-_ ]?(\d+|set|data|images|imgs|pics)?", re.IGNORECASE)
# What the decoder reads, and what people take for pictures too: `data/pictures/headers.py` looks into all of these.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp")
OTHER_IMAGE_SUFFIXES = (".jpe", ".jfif", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl")
# Of Windows, macOS archives, Synology and QNAP, disks' recovery and notebooks. Hidden names are known by their dot.
LITTER = {
    "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found",
    "system volume information", "__pycache__", "icon\r", ".@__thumb", "@recycle", "#snapshot", "@recently-snapshot",
    "@tmp", "@sharebin", "network trash folder", "temporary items", "recycler",
}  # fmt: skip
_RECOVERED = re.compile(r"found\.\d{3}", re.IGNORECASE)  # of disks that Windows has checked


def split_of(name: str) -> str | None:
    """ "train", "val" or "test" where a name, in any case, means that split; else None."""
    return _SPLIT_OF.get(name.lower())


def sounds_like(name: str) -> str | None:
    """ "train", "val" or "test" where a name sounds like that split's, as "test1" and "training_set" do, too."""
    found = _LIKE_SPLIT.fullmatch(name)
    return found and split_of(found[1])


def is_litter(name: str) -> bool:
    """Whether systems and programs leave files or folders of that name."""
    return name.startswith(".") or name.lower() in LITTER or _RECOVERED.fullmatch(name) is not None


def is_picture(name: str) -> bool:
    """Whether a file of that name is meant to be a picture, be it one that can be read or not."""
    return name.lower().endswith(IMAGE_SUFFIXES + OTHER_IMAGE_SUFFIXES)


def by_split(named: Iterable[tuple[str, str]], place: str) -> dict[str, str]:
    """Split -> name, of (name, its part that may name a split).

    Raises:
        DataError: two names mean the same split.
    """
    found: dict[str, str] = {}
    for name, word in named:
        split = split_of(word)
        if split in found:
            raise DataError(
                f"{place} holds both {found[split]} and {name}: expected one of them for the {split} split; remove or "
                "rename the other."
            )
        if split is not None:
            found[split] = name
    return found


def expand(path: str) -> str:
    """The path with `~`, `~user` and `$VAR` replaced."""
    return os.path.expandvars(os.path.expanduser(path))


def refuse_odd_names(names: Iterable[str], what: str) -> None:
    """Raise DataError if a name is not UTF-8: the files of a run could not hold it."""
    if odd := [name for name in names if printable(name) != name]:
        raise DataError(f"{what} {few(odd)} has bytes that are not UTF-8: expected a name in UTF-8; rename it.")
