"""Tables, settings and weights of classes from strangers.  REFUSED and EITHER as in ``hostile_folders.py``."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hostile_folders import SOUND, tree
from hostile_records import SECRET, written

# Tables


def table(text: str | bytes, name: str = "train.csv") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        tree(*SOUND)(folder)
        return written(text.encode() if isinstance(text, str) else text, name)(folder)

    return make


ROWS = "cat/1.jpg,a\ndog/1.jpg,b\n"
WIDE = 10**6
REFUSED_TABLES = {
    "a million columns": table(",".join(f"c{number}" for number in range(WIDE)) + "\n" + "1," * (WIDE - 1) + "1\n"),
    "a million columns in one row": table("path,label\n" + ROWS + "x," * WIDE + "\n"),
    "one column a million times": table("path," + "label," * WIDE + "\n"),
    "a field of 10 MB": table("path,label\n" + ROWS + "x" * 10**7 + ",a\n"),
    "a field of 100 KB": table("path,label\n" + ROWS + "x" * 10**5 + ",a\n"),
    "a line of 100 KB and no header": table("x" * 10**5),
    "a quote that never ends": table('path,label\n"' + ROWS * 1000),
    "zeros": table(bytes(10**5)),
    "rubbish": table(np.random.default_rng(3).bytes(5000)),
    "16 bits": table(("path,label\n" + ROWS).encode("utf-16")),
    "a formula": table('path,label\n"=cmd|\'/C touch executed\'!A0",a\n'),
    "a command": table("path,label\n$(touch executed).jpg,a\n`touch executed`.jpg,b\n|touch executed,c\n"),
    "the passwords": table(f"path,label\n{SECRET},a\n" + ROWS),
    "the passwords, from here": table(f"path,label\n{'../' * 30}..{SECRET},a\n" + ROWS),
    "a device": table("path,label\n/dev/zero,a\n/dev/stdin,b\n"),
    "a path with a zero": table("path,label\ncat/1.jpg\0.png,a\n" + ROWS),
    "a path of 5,000 letters": table("path,label\n" + "x/" * 2500 + "1.jpg,a\n" + ROWS),
    "a label of 5,000 digits": table("path,label\ncat/1.jpg,0\ndog/1.jpg," + "9" * 4000 + "\n"),
    "no rows": table("path,label\n"),
    "nothing": table(""),
    "a table that is a link to itself": lambda folder: (folder / "x.csv").symlink_to("x.csv") or folder / "x.csv",
    "a table that is a pipe": lambda folder: os.mkfifo(folder / "x.csv") or folder / "x.csv",
    "a table in a folder that is a pipe": lambda folder: os.mkfifo(folder / "train.csv"),
    "an endless device": lambda folder: Path("/dev/zero"),
}
EITHER_TABLES = {
    "the environment": table("path,label\n$HOME/../../../../cat/1.jpg,a\n" + ROWS),
    "100,000 rows of one picture": table("path,label\n" + ROWS * 50_000),
    "a class of 100 KB": table("path,label\n" + ROWS + "cat/2.jpg," + "x" * 10**5 + "\n"),
}


# Settings


def settings(text: str | bytes) -> Callable[[Path], Path]:
    return written(text.encode() if isinstance(text, str) else text, "settings.yaml")


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
REFUSED_SETTINGS = {
    "an object of Python's": settings("seed: !!python/object/apply:os.mkdir [executed]\n"),
    "a new object of Python's": settings("!!python/object/new:os.mkdir [executed]\n"),
    "a module of Python's": settings("seed: !!python/module:antigravity\n"),
    "a tag of one's own": settings("seed: !run touch executed\n"),
    "aliases that grow ninefold eleven times": settings(LAUGHS),
    "the same below a known name": settings(f"metrics: &m\n- {LAUGHS.splitlines()[0][8:]}\nclasses: [*m, *m]\n"),
    "an alias of itself": settings("metrics: &a [*a]\n"),
    "merged with itself": settings("&a\n<<: *a\nseed: 1\n"),
    "one name twice": settings("seed: 1\nepochs: 2\nseed: 3\n"),
    "lists within lists": settings("seed: " + "[" * 20_000),
    "maps within maps": settings("{a: " * 20_000),
    "a number of 5,000 digits": settings("seed: " + "9" * 5000 + "\n"),
    "a date that is none": settings("seed: 2024-99-99\n"),
    "a switch that is none": settings("deterministic: !!bool perhaps\n"),
    "a number that is none": settings("seed: !!int ''\n"),
    "a point in time that is none": settings("seed: !!timestamp x\n"),
    "a list for a name": settings("? [seed]\n: 1\n"),
    "a number for a name": settings("1: 2\n"),
    "a value of 100 KB": settings("model: " + "x" * 10**5 + "\n"),
    "a name of 100 KB": settings("x" * 10**5 + ": 1\n"),
    "two documents": settings("seed: 1\n---\nseed: 2\n"),
    "a list": settings("- 1\n- 2\n"),
    "zeros": settings(bytes(5000)),
    "rubbish": settings(np.random.default_rng(4).bytes(5000)),
    "3 MB of notes": settings("# x\n" * 750_000),
    "an endless device": lambda folder: Path("/dev/zero"),
    "a folder": lambda folder: folder,
}
EITHER_SETTINGS = {"a link to a file": lambda f: written(b"seed: 1\n", "a")(f) and (f / "b").symlink_to("a") or f / "b"}


def class_weights(text: str | bytes, name: str = "weights.yaml") -> Callable[[Path], Path]:
    return written(text.encode() if isinstance(text, str) else text, name)


REFUSED_CLASS_WEIGHTS = {
    "an object of Python's": class_weights("a: !!python/object/apply:os.mkdir [executed]\nb: 1\n"),
    "aliases that grow ninefold eleven times": class_weights(LAUGHS),
    "lists within lists": class_weights("a: " + "[" * 20_000),
    "one class twice": class_weights("a: 1\nb: 2\na: 3\n"),
    "not finite": class_weights("a: .nan\nb: .inf\n"),
    "less than nothing": class_weights("a: -1\nb: 1\n"),
    "a table with a field of 10 MB": class_weights("a," + "1" * 10**7 + "\nb,1\n", "weights.csv"),
    "a table of a million columns": class_weights("a,1\nb" + ",1" * WIDE + "\n", "weights.csv"),
    "rubbish": class_weights(np.random.default_rng(5).bytes(5000)),
    "an endless device": lambda folder: Path("/dev/zero"),
}
