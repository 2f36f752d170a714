"""Folder trees from strangers: links in a circle, devices, names that are commands.

REFUSED must be refused; of EITHER a sound reader may also make something.  Each maker fills the empty folder that it is
given, and may give the place to read instead of that folder.
"""

import os
from collections.abc import Callable
from pathlib import Path

from hostile_pictures import jpeg


def tree(*names: str, content: bytes | None = None) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(jpeg() if content is None else content)

    return make


SOUND = ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg")


def beside(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """Two sound classes, in which ``change`` has been at work."""

    def make(folder: Path) -> None:
        tree(*SOUND)(folder)
        change(folder)

    return make


def with_picture(name: str, content: bytes) -> Callable[[Path], None]:
    return beside(lambda folder: (folder / "cat" / f"3{name[-4:]}").write_bytes(content))


def link(name: str, target: str) -> Callable[[Path], None]:
    return beside(lambda folder: (folder / name).symlink_to(target))


def deep(folder: Path) -> None:
    place = os.open(folder / "cat", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("a", dir_fd=place)
        place, last = os.open("a", os.O_RDONLY, dir_fd=place), place
        os.close(last)
    os.close(place)


def doubling(folder: Path) -> None:
    """Forty folders, each of which the one before holds twice: a million million paths."""
    for number in range(40):
        (folder / f"cat/x/{number}").mkdir(parents=True)
        for side in "ab":
            (folder / f"cat/x/{number}/{side}").symlink_to(f"../{number + 1}")
    (folder / "cat/x/40").mkdir()


def sparse(folder: Path) -> None:
    with open(folder / "cat" / "3.jpg", "wb") as file:
        file.write(jpeg())
        file.truncate(1 << 42)


def special(kind: int, name: str = "cat/3.jpg", device: tuple[int, int] = (0, 0)) -> Callable[[Path], None]:
    return beside(lambda folder: os.mknod(folder / name, kind | 0o666, os.makedev(*device)))


def unreadable(folder: Path) -> None:
    (folder / "cat" / "3.jpg").symlink_to("/proc/self/mem")


REFUSED_TREES = {
    "a link to the folder above": link("cat/up", ".."),
    "a link to itself": link("cat/3.jpg", "3.jpg"),
    "links in a circle": beside(lambda f: [(f / "cat/a").symlink_to("b"), (f / "cat/b").symlink_to("a")]) ,
    "a class that is a link to all": link("all", "."),
    "links that double forty times": beside(doubling),
    "folders within folders 1,500 times": beside(deep),
    "a link to nowhere": link("cat/3.jpg", "gone.jpg"),
    "a link to the passwords": link("cat/3.jpg", "/etc/passwd"),
    "a link to an endless device": link("cat/3.jpg", "/dev/zero"),
    "a link to a process's memory": beside(unreadable),
    "a pipe": special(0o010000),
    "a socket": special(0o140000),
    "a picture of 4 TB, most of it a hole": beside(sparse),
    "pictures of no class": tree("1.jpg", "2.jpg"),
    "a class named by bytes": tree(os.fsdecode(b"\xff/1.jpg"), "dog/1.jpg"),
    "nothing": lambda folder: None,
    "an empty class": beside(lambda folder: (folder / "owl").mkdir()),
    "a pipe for a folder": lambda folder: os.mkfifo(folder / "data") or folder / "data",
    "an archive": lambda folder: (folder / "x.zip").write_bytes(b"PK\3\4") and folder / "x.zip",
    "an endless device for a folder": lambda folder: Path("/dev/zero"),
}
EITHER_TREES = {
    "a class named like a flag": tree("-rf/1.jpg", "dog/1.jpg"),
    "a class named like a command": tree("$(touch executed)/1.jpg", "`touch executed`/1.jpg"),
    "a class of two lines": tree("a\nb/1.jpg", "dog/1.jpg"),
    "a class of 255 letters": tree("x" * 255 + "/1.jpg", "dog/1.jpg"),
    "a class that moves the cursor": tree("\x1b[2J/1.jpg", "dog/1.jpg"),
    "1,000 classes": tree(*(f"{number}/1.jpg" for number in range(1000))),
    "2,000 hidden files": beside(lambda folder: [(folder / f"cat/.{n}").touch() for n in range(2000)]),
    "a folder named like a picture": beside(lambda folder: (folder / "cat/3.jpg").mkdir()),
}
