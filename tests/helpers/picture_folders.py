"""A folder of pictures to be converted, and what became of it; ``images`` and ``out`` are fixtures of test files."""

import hashlib
from pathlib import Path

import numpy as np
import tensorflow as tf

from data import DatasetConfig, Splits, load


def make_images(folder: Path, classes: int = 3, each: int = 5) -> Path:
    """An image folder with JPEG and PNG files of random pixels."""
    random = np.random.default_rng(0)
    for c in range(classes):
        (folder / f"class{c}").mkdir(parents=True)
        for k in range(each):
            pixels = random.integers(0, 256, (8 + c, 9 + k, 3), np.uint8)
            encode, suffix = (tf.io.encode_png, "png") if k == 1 else (tf.io.encode_jpeg, "jpg")
            (folder / f"class{c}" / f"{k}.{suffix}").write_bytes(encode(pixels).numpy())
    return folder


def load_folder(folder: Path) -> Splits:
    return load(DatasetConfig("image_folder", str(folder), seed=0, validation_split=0))


def read_all(source) -> list:
    return source.read(tf.range(len(source), dtype=tf.int64)).numpy().tolist()


def contents(folder: Path) -> dict[str, str]:
    """Name -> hash of every file, hidden ones too, but for the index, which knows the times of the shards."""
    files = (file for file in folder.iterdir() if file.name != "index.npz")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def images(tmp_path):
    return make_images(tmp_path / "images")


def out(tmp_path):
    return tmp_path / "out"
