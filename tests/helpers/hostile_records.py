"""TFRecord shards from strangers, with their indexes and manifests: lengths and checksums that lie, nested messages.
REFUSED and EITHER as in ``hostile_folders.py``."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from hostile_pictures import jpeg, png, sized, zeros
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

SECRET = "/etc/passwd"


class Runs:
    """A pickle of it leaves a file when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def written(content: bytes, name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


# TFRecords: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details


def framed(payload: bytes, length: int | None = None, head: int | None = None, tail: int = 0) -> bytes:
    """A record of a length and checksums that are not its own."""
    start = struct.pack("<Q", len(payload) if length is None else length)
    head = masked_crc32c(start) if head is None else head
    return start + struct.pack("<I", head) + payload + struct.pack("<I", tail)


def example(image: object = None, label: object = 1, **more: bytes) -> bytes:
    """A record; a list stands for many values, a float for one of the wrong kind."""

    def feature(value):
        values = value if isinstance(value, list) else [value]
        if isinstance(values[0], bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        if isinstance(values[0], float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    named = {"image/encoded": jpeg() if image is None else image, "image/class/label": label}
    named |= {f"image/class/{name}": value for name, value in more.items()}
    features = tf.train.Features(feature={name: feature(value) for name, value in named.items()})
    return tf.train.Example(features=features).SerializeToString()


def shard(
    *records: bytes, tail: bytes = b"", name: str = "train-00000-of-00001", change=lambda folder: None
) -> Callable[[Path], None]:
    """Two sound records and those that are given, in one file; then bytes that are none."""

    def make(folder: Path) -> None:
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for record in (example(label=0), example(label=1), *records):
                writer.write(record)
        with open(folder / name, "ab") as file:
            file.write(tail)
        change(folder)

    return make


def index(**changed) -> Callable[[Path], None]:
    """An index beside the shard, as Lockstep writes it, but for a field of its last record."""

    def change(folder: Path) -> None:
        from data.formats.tfrecord import index as tfrecord_index

        tfrecord_index.load_index(folder, [folder / "train-00000-of-00001"])
        with np.load(folder / "index.npz") as file:
            arrays = dict(file)
        for field, value in changed.items():
            arrays["records"][field][-1] = value
        np.savez(folder / "index.npz", **arrays)

    return shard(change=change)


def manifest(**changed) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        size = (folder / "train-00000-of-00001").stat().st_size
        one = {"name": "train-00000-of-00001", "examples": 2, "bytes": size, "sha256": ""}
        split = {"examples": 2, "fingerprint": "", "shards": [one | changed.pop("shard", {})]}
        whole = {"version": 1, "dataset": "x", "classes": ["a", "b"], "splits": {"train": split}} | changed
        (folder / "manifest.json").write_text(json.dumps(whole))

    return shard(change=change)


def nested(depth: int) -> bytes:
    """Groups of an unknown field within each other."""
    return b"\x7b" * depth + b"\x7c" * depth


REFUSED_RECORDS = {
    **{
        f"a record of {length:,} bytes": shard(tail=framed(b"x", length))
        for length in (2**63, 2**64 - 1, 2**62, 2**40, 2**32, 300)
    },
    "a length of another checksum": shard(tail=framed(example(), head=1)),
    "a record of another checksum": shard(tail=framed(example(), tail=1)),
    "cut in a length": shard(tail=framed(example())[:5]),
    "cut in a record": shard(tail=framed(example())[:-9]),
    "no record": written(b"", "train-00000-of-00001"),
    "zeros": shard(tail=bytes(4096)),
    "rubbish behind the records": shard(tail=np.random.default_rng(2).bytes(4000)),
    "a record of rubbish": shard(b"\xff" * 100),
    "an empty record": shard(b""),
    "groups within groups 100,000 times": shard(nested(100_000)),
    "no label": shard(example(label=0.5)),
    "two labels": shard(example(label=[0, 1])),
    "a label of -1": shard(example(label=-1)),
    "a label of 2^63 - 1": shard(example(label=2**63 - 1)),
    "a label of -2^63": shard(example(label=-(2**63))),
    "no image": shard(example(b"")),
    "a million images": shard(example([b""] * 10**6)),
    "an image of 30,000 x 30,000": shard(example(sized(jpeg(), 30000, 30000))),
    "an image of 400 million pixels": shard(example(png(20000, 20000, 1, 0, body=zeros(20000 * 2501)))),
    "an image of rubbish": shard(example(b"rubbish" * 99)),
    "an image that begins 30,000 times": shard(example(jpeg()[:32] * 30_000 + b"x", note=jpeg()[:32] * 30_001)),
    "a manifest of rubbish": shard(change=lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe{")),
    "a manifest without end": shard(change=lambda folder: (folder / "manifest.json").write_text("[" * 10**5)),
    "a manifest of other folders": manifest(shard={"name": f"../..{SECRET}"}),
    "a manifest of shards of -1 byte": manifest(shard={"bytes": -1}),
    "a manifest of one class": manifest(classes=["a"]),
    "a manifest of 10^5000 examples": shard(
        change=lambda folder: (folder / "manifest.json").write_text('{"version": 1' + "0" * 5000 + "}")
    ),
    "one of 999,999,999,999 shards": shard(name="train-000000000000-of-999999999999"),
    "one of two shards": shard(name="train-00000-of-00002"),
    "one shard twice": shard(change=lambda folder: os.link(folder / "train-00000-of-00001", folder / "train-0-of-1")),
    "a pipe for a shard": lambda folder: os.mkfifo(folder / "train-00000-of-00001"),
    "a folder for a shard": lambda folder: (folder / "train-00000-of-00001").mkdir(),
    "a link to itself for a shard": lambda folder: (folder / "train-00000-of-00001").symlink_to("train-00000-of-00001"),
    "an endless device for a shard": lambda folder: (folder / "train-00000-of-00001").symlink_to("/dev/zero"),
    "the passwords for a shard": lambda folder: (folder / "train-00000-of-00001").symlink_to(SECRET),
}
EITHER_RECORDS = {
    "an index that points before its shard": index(image_offset=-5),
    "an index that points beyond its shard": index(image_offset=10**9),
    "an index of images of 2^60 bytes": index(image_length=2**60),
    "an index of images of -1 byte": index(image_length=-1),
    "an index that names another shard": index(shard=7),
    "an index that names the shard before": index(shard=-2),
    "an index of rubbish": shard(change=lambda folder: (folder / "index.npz").write_bytes(b"PK\3\4" + bytes(99))),
    "an index that is a pickle": shard(change=lambda folder: (folder / "index.npz").write_bytes(pickle.dumps(Runs()))),
    "an index that is a pipe": shard(change=lambda folder: os.mkfifo(folder / "index.npz")),
    "a class of a megabyte": shard(example(text=b"x" * 10**6)),
    "a class of bytes": shard(example(text=b"\xff\x00\x1b[2J")),
}
