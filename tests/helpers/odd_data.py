"""Random data sets made of what people's disks hold: folder trees, tables and archives, sound and broken.

``make(number, root)`` is the same for the same number; some can be trained on, most are refused.
"""

import io
import os
import random
from pathlib import Path

import numpy as np
from PIL import Image

SPLITS = {
    "train": ("train", "training", "Train", "TRAINING", "train_set", "Training Set"),
    "val": ("val", "valid", "validation", "dev", "VAL", "Validation", "val2"),
    "test": ("test", "testing", "TEST", "test1"),
}
CLASSES = ("cat", "dog", "a b", " x", "0", "1", "2", "10", "03", "ünï", "日本", "one,two", "[red]", "%s", "{0}", "-rf",
           "a\nb", "n" * 200, "train", "images", "x.jpg", ".hidden", "__MACOSX", os.fsdecode(b"caf\xe9"),
           "🦊")  # fmt: skip
LITTER = (
    "Thumbs.db",
    ".DS_Store",
    "desktop.ini",
    "readme.txt",
    "labels.csv",
    "x.xml",
    "movie.mp4",
    "._cat.jpg",
    "x.zip",
)
HEADERS = ("path,label", "filename,class", "id,label", "Image,Target", ",path,label", "label,path", "name", "a,b", "")
LABELS = {
    "words": lambda r, i: r.choice(("cat", "dog", "Ünï", "a b")),
    "numbers": lambda r, i: i % 3,
    "from one": lambda r, i: 1 + i % 3,
    "gaps": lambda r, i: (0, 5, 17)[i % 3],
    "zeros": lambda r, i: f"0{i % 2}",
    "negative": lambda r, i: i % 3 - 1,
    "floats": lambda r, i: float(i % 2),
    "huge": lambda r, i: 10**30 + i % 2,
    "empty": lambda r, i: r.choice(("", "cat")),
    "mixed": lambda r, i: r.choice(("1", "cat")),
    "digits of elsewhere": lambda r, i: r.choice(("²", "١", "1")),
}


def picture(r: random.Random, kind: str = "JPEG") -> bytes:
    """A sound file, of 4 to 9 pixels a side."""
    pixels = np.frombuffer(r.randbytes(9 * 9 * 3), np.uint8).reshape(9, 9, 3)[: r.randint(4, 9), : r.randint(4, 9)]
    content = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    exif = Image.Exif()
    exif[0x0112] = r.randint(0, 9)  # orientation, 0 and 9 of which are none
    image.save(content, kind, **({"exif": exif} if kind == "JPEG" and r.random() < 0.3 else {}))
    return content.getvalue()


BAD = {
    "empty": lambda r: b"",
    "cut": lambda r: picture(r)[: r.randint(1, 500)],
    "page": lambda r: b"<html>404</html>",
    "webp": lambda r: picture(r, "WEBP"),
    "tiff": lambda r: picture(r, "TIFF"),
    "noise": lambda r: r.randbytes(r.randint(1, 5000)),
    "zeros": lambda r: bytes(r.randint(1, 5000)),
    "start alone": lambda r: r.choice((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"RIFF")) + bytes(60),
    "palette": lambda r: bitmap(),
}


def bitmap() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (4, 4), (1, 2, 3)).convert("P").save(content, "BMP")
    return content.getvalue()


def put_pictures(r: random.Random, folder: Path, count: int, *, bad: float) -> None:
    """Pictures, of which a part is broken, some below other folders, and litter beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        below = folder / r.choice(("in", "in/deep", "x.png")) if r.random() < 0.2 else folder
        below.mkdir(parents=True, exist_ok=True)
        kind = r.choice(("JPEG", "PNG", "GIF", "BMP"))
        suffix = r.choice((f".{kind.lower()}", ".JPG", ".jpeg", ".png", ".PNG", ".webp"))
        content = picture(r, kind) if r.random() >= bad else BAD[r.choice(list(BAD))](r)
        name = os.fsdecode(b"\xff") if r.random() < 0.02 else f"{number}"
        (below / f"{name}{suffix}").write_bytes(content)
    for name in LITTER:
        if r.random() < 0.1:
            (folder / name).write_bytes(b"x")
    if r.random() < 0.02:
        (folder / "link.jpg").symlink_to(r.choice(("nowhere", "..", "0.jpg", "link.jpg")))
    if r.random() < 0.01:
        os.mkfifo(folder / "pipe.jpg")


def make_folder(r: random.Random, root: Path) -> tuple[str, Path]:
    names = r.sample(CLASSES[:6] if r.random() < 0.6 else CLASSES, r.choice((0, 1, 2, 2, 3, 3, 4, 4, 5, 6)))
    if r.random() < 0.2:
        names = [str(number) for number in range(r.choice((0, 1)), r.choice((3, 12)))]
    bad = r.choice((0, 0, 0, 0, 0.1, 0.5))
    places = [root / r.choice(("", "", "", "", "", "", "set", "set/archive"))]
    if r.random() < 0.6:
        top = places[0]
        kinds = ["train", *(kind for kind in ("val", "test") if r.random() < 0.6)]
        if r.random() < 0.1:
            kinds.append(r.choice(kinds))
        odd = r.random() < 0.2
        places = [top / (r.choice(SPLITS[kind]) if odd else r.choice(SPLITS[kind][:3])) for kind in kinds]
    for at, place in enumerate(places):
        chosen = names if at == 0 or r.random() < 0.7 else r.sample([*CLASSES, *names, *names], 2)
        for name in chosen:
            put_pictures(r, place / name, r.choice((0, 1, 2, 5)) if r.random() < 0.1 else 3, bad=bad)
        if r.random() < 0.04:
            put_pictures(r, place, 2, bad=0)
        place.mkdir(parents=True, exist_ok=True)
    below = [root, *(path for path in root.rglob("*") if path.is_dir())]
    return "image_folder", r.choice(below) if r.random() < 0.15 else root


def make_table(r: random.Random, root: Path) -> tuple[str, Path]:
    put_pictures(r, root / r.choice(("", "images")), 6, bad=r.choice((0, 0, 0.2)))
    files = sorted(str(path.relative_to(root)) for path in root.rglob("[0-9]*.*") if not path.is_dir())
    mark, header = r.choice((",", ",", ";", "\t")), r.choice(HEADERS)
    kind = r.choice(list(LABELS))
    for split in dict.fromkeys(r.choices(("train", "val", "test", "labels"), (6, 2, 2, 1), k=r.randint(1, 3))):
        label = LABELS[kind if r.random() < 0.9 else r.choice(list(LABELS))]
        lines = [mark.join(header.split(","))]
        one_hot = r.random() < 0.15
        if one_hot:
            lines = [mark.join(("image", "a", "b"))]
        for number, file in enumerate(r.choices(files, k=r.choice((0, 1, 9, 9, 9, 9, 9, 9))) if files else []):
            name = r.choice((file, Path(file).name, Path(file).stem, "gone.jpg") if r.random() < 0.03 else (file,))
            fields = {"path": name, "label": str(label(r, number)), "": str(number)}
            row = [fields.get(word.lower(), "") for word in header.split(",")]
            if header not in ("path,label", ",path,label", "label,path"):
                row = [name, fields["label"]][: max(1, len(row))]
            if one_hot:
                row = [name, *r.choice((("1", "0"), ("0.0", "1.0"), ("0", "0"), ("1", "1")))]
            if r.random() < 0.03:
                row.append('"two\nlines"')
            lines.append(mark.join(f'"{field}"' if r.random() < 0.1 and '"' not in field else field for field in row))
        text = r.choice(("\n", "\r\n")).join(lines) + r.choice(("", "\n", "\n", "\n", "\n", "\n", "\0", '"'))
        encoding = r.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"))
        table = root / f"{split}{r.choice(('.csv', '.csv', '.tsv', '.CSV'))}"
        table.write_bytes(text.encode(encoding, "replace"))
    return "csv", r.choice((root, root, table))


def make_archive(r: random.Random, root: Path) -> tuple[str, Path]:
    usual = ("x_{}", "y_{}"), ("{}_images", "{}_labels"), ("X_{}", "Y_{}")
    names = r.choice((*usual, *usual, *usual, ("data", "labels"), ("{}", "{}_y")))
    shape = r.choice(((4, 4), (4, 4), (4, 4, 1), *[(4, 4, 3)] * 6, (4, 4, 4), (3, 4, 4), (), (0, 4)))
    dtype = r.choice((*["u1"] * 14, "i8", "f4", "f8", "f2", "?", "O", "U3", "c8"))
    top = r.choice((1, 1, 255, 255, 256, float("nan"), -1))
    kind, arrays = r.randint(0, 8), {}
    for split in ("train", *(split for split in ("val", "test") if r.random() < 0.5)):
        n = r.choice((0, 1, 12, 12, 12))
        pixels = np.random.default_rng(r.randint(0, 99)).random((n, *shape)) * (255 if dtype == "u1" else top)
        with np.errstate(invalid="ignore"):
            pixels = pixels.astype(dtype)
        ways = (np.arange(n) % 3, 1 + np.arange(n) % 3, np.arange(n)[:, None] % 2, np.eye(3)[np.arange(n) % 3],
                np.arange(n) % 3 * 5, np.arange(n) % 3 - 1, (np.arange(n) % 2).astype(float),
                np.array([f"c{i % 2}" for i in range(n)]), np.arange(n + 1) % 3)  # fmt: skip
        arrays |= {names[0].format(split): pixels}
        if r.random() < 0.95:
            arrays |= {names[1].format(split): ways[kind]}
    file = root / r.choice(("set.npz", "set.NPZ", "set.npz.npz"))
    content = io.BytesIO()
    np.savez(content, **arrays)
    cut = len(content.getvalue()) if r.random() < 0.9 else r.randint(0, 500)
    file.write_bytes(content.getvalue()[:cut])
    if r.random() < 0.05:
        np.save(file.open("wb"), np.arange(3))
    return "npz", r.choice((file, root))


def make(number: int, root: Path) -> tuple[str, Path, dict]:
    """Fill an empty folder; (name of the data set's kind, place, further arguments of ``data.DatasetConfig``)."""
    r = random.Random(number)
    root.mkdir()
    dataset, place = r.choice((make_folder, make_folder, make_table, make_archive))(r, root)
    how = {"seed": 0, "validation_split": r.choice((0, 0.1, 0.1, 0.1, 0.9))}
    if r.random() < 0.15:
        how["classes"] = tuple(r.sample(("cat", "dog", "0", "1", "2", "a b"), 2))
    return dataset, place, how
