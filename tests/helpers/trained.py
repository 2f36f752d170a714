"""Small runs, trained once for a test file, and the programs that use them.

``photos``: files of three classes, with train, val and 1,003 test pictures; the network came as a Python object.
``two``: two classes, one logit, arrays, bfloat16.  ``half``: five classes, arrays, float16.  ``own``: network and data
of a file of the user's.  ``table``: csv.  Each is a run directory of that name.
"""

import hashlib
import json
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
from conftest import HELPERS, run_command, run_jobs
from PIL import Image

NAMES = ("cat", "dog", "owl")
COUNTS = {"train": 60, "val": 31, "test": 1003}
MINE = """
    import keras
    import numpy as np

    def network(classes, image_size):
        layers, start = keras.layers, keras.initializers.HeNormal
        return keras.Sequential([
            keras.Input((image_size, image_size, 3), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, activation="relu", kernel_initializer=start(1)),
            layers.MaxPooling2D(3),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(8, activation="relu", kernel_initializer=start(2)),
            layers.Dense(1 if classes == 2 else classes, kernel_initializer=start(3)),
        ])

    def part(count, seed, names="abcde"):
        y = np.arange(count) % 5
        x = np.random.default_rng(seed).integers(0, 120, (count, 12, 12, 3))
        x[np.arange(count), y * 2] += 120
        labels = np.array([names.index("abcde"[label]) for label in y])
        return x.astype(np.uint8), labels, list(names)

    def examples():
        return part(40, 0), part(23, 1)

    def single():
        return part(5, 2), None

    def turned():
        return part(40, 0, "edcba"), part(23, 1, "edcba")
"""
LINE = "--epochs 2 --global-batch-size 12 --micro-batch-size 6 --deterministic --learning-rate 0.01"


def write_photos(folder: Path) -> Path:
    """Pictures of several sizes as JPEG and PNG, in class folders; a class is a bright stripe."""
    random, place = np.random.default_rng(5), folder / "pictures"
    for split, count in COUNTS.items():
        for index in range(count):
            label = index % 3
            pixels = random.integers(0, 150, (16 + index % 5, 16 + index % 3, 3))
            pixels[4 * label : 4 * label + 4] += 100
            path = place / split / NAMES[label] / f"{index:04}.{'jpg' if index % 2 else 'png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    # Two that are in the training, too: the same file, and the same pixels in another file.
    shutil.copy(place / "train/cat/0003.jpg", place / "test/cat/0003.jpg")
    Image.open(place / "train/dog/0004.png").save(place / "test/dog/0004.png", compress_level=0)
    return place


def write_arrays(path: Path, classes: int) -> Path:
    random, arrays = np.random.default_rng(classes), {}
    for split, count in (("train", 36), ("val", 23), ("test", 47)):
        labels = np.arange(count) % classes
        pixels = random.integers(0, 120, (count, 12, 12, 3))
        pixels[np.arange(count), labels * 2] += 120
        arrays |= {f"x_{split}": pixels.astype(np.uint8), f"y_{split}": labels}
    np.savez(path, **arrays)
    return path


def write_tables(photos: Path, folder: Path) -> Path:
    folder.mkdir()
    for split in ("train", "val", "test"):
        rows = [f"{path},{path.parent.name}" for path in sorted((photos / split).rglob("*.*"))[-40:]]
        rows += [f"{photos / split / name / file},{name}" for name, file in (("cat", "0003.jpg"), ("dog", "0004.png"))]
        (folder / f"{split}.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return folder


def train(folder: Path, *names: str) -> Path:
    """Train the runs of these names; the folder also holds ``mine.py``, ``pictures``, ``two.npz`` and ``half.npz``."""
    mine = folder / "mine.py"
    mine.write_text(textwrap.dedent(MINE))
    photos = write_photos(folder)
    own = ["--model", f"{mine}:network"]
    arrays = {"two": (2, "bfloat16"), "half": (5, "float16")}
    lines = {
        "photos": ["--dataset", "image_folder", "--data-dir", photos, "--image-size", 16],
        "table": [*own, "--dataset", "csv", "--data-dir", folder / "tables", "--image-size", 16],
        "own": [*own, "--dataset", f"{mine}:examples"],
    }
    for name, (classes, precision) in arrays.items():
        path = write_arrays(folder / f"{name}.npz", classes)
        lines[name] = [*own, "--dataset", "npz", "--data-dir", path, "--precision", precision]
    if "table" in names:
        write_tables(photos, folder / "tables")
    jobs = {name: [*LINE.split(), *lines[name]] for name in names}
    assert run_jobs(folder, jobs) == dict.fromkeys(jobs, 0), (folder / "output.txt").read_text()
    return folder


def change_state(checkpoint: Path, change: Callable[[dict], object]) -> None:
    """Write another state.json into a checkpoint, as if it had been saved so."""
    state, manifest = (json.loads((checkpoint / f"{name}.json").read_text()) for name in ("state", "manifest"))
    change(state)
    content = json.dumps(state).encode()
    manifest["files"]["state.json"] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (checkpoint / "state.json").write_bytes(content)
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


class Programs:
    """What programs have printed and how they ended: exit codes, and lines of both streams, by name."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.codes = json.loads((folder / "codes.json").read_text())

    def out(self, name: str) -> str:
        return (self.folder / f"{name}.out").read_text()

    def err(self, name: str) -> str:
        return (self.folder / f"{name}.err").read_text()


def run_programs(folder: Path, lines: dict[str, list], *launcher: str, stdin: dict[str, str] | None = None) -> Programs:
    """Run command lines, each [program, words ...], in one set of processes.

    Args:
        stdin: name -> standard input; bytes that are not UTF-8 as `os.fsdecode` gives them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listed = {
        name: [program, [str(word) for word in words], (stdin or {}).get(name, "")]
        for name, (program, *words) in lines.items()
    }
    (folder / "programs.json").write_text(json.dumps(listed))
    done = run_command(*launcher, sys.executable, HELPERS / "programs.py", folder, timeout=560)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return Programs(folder)
