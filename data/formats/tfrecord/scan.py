"""Where each image lies in TFRecord shards: found by one pass over all records.

Record layout (TensorFlow's "TFRecords format"): 8 bytes length, 4 bytes CRC of it, the payload, 4 bytes CRC of that.
"""

import errno
import inspect
import os
import stat
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from data.datasets import DataError, Progress
from data.pictures.headers import larger_than_pictures_are
from data.pictures.orientation import HEAD, may_be_turned

INDEXING = "indexing MB of shards"  # what `Progress` is told
FEATURES = ("image/encoded", "image/class/label")  # of ImageNet's shards and of launch/prepare.py
HEADER, FOOTER = 12, 4  # bytes around each payload
RECORD = np.dtype(
    [
        ("shard", "<i4"),  # index into the list of files
        ("label", "<i8"),  # as stored
        ("offset", "<i8"),  # first byte of the record in its file
        ("image_offset", "<i8"),  # first byte of the encoded image in its file
        ("image_length", "<i8"),
    ]
)
UNPACK = {
    "gzip": "gunzip -c FILE > NEW",
    "zlib": "python -c 'import sys, zlib; sys.stdout.buffer.write(zlib.decompress(sys.stdin.buffer.read()))' "
    "< FILE > NEW",
}

# The function under its deprecation notice. Its successor, TFRecordDataset, takes 34 us a record instead of 1 and
# starts TensorFlow's devices, which is too early here: a worker chooses its GPU later.
_iterate_records = inspect.unwrap(tf.compat.v1.io.tf_record_iterator)


class Index(NamedTuple):
    """`records`: RECORD [n], by file and then by offset; `texts`: label -> class name, where the records give one;
    `turned`: how many images have an orientation tag that turns or mirrors them; `checksums`: uint32 [n], what stands
    behind each record."""

    records: np.ndarray
    texts: dict[int, str]
    turned: int
    checksums: np.ndarray


def build_index(
    files: Sequence[Path], sizes: Sequence[int], progress: Progress | None, features: tuple[str, str]
) -> Index:
    """The index of files of so many bytes, whose images and labels are the features of these names.

    Raises:
        DataError: a corrupt or truncated shard, or a record without image or label; it names file and byte.
    """
    total, done, parts, checksums, texts, turned = sum(sizes), 0, [], [], {}, 0
    # Threads, because most of the time goes into reading and checksums, both done without the interpreter lock.
    with ThreadPoolExecutor(max_workers=4) as pool:
        indexed = pool.map(lambda file: _index_shard(file, features), files)
        for shard, (rows, shard_texts, shard_turned) in enumerate(indexed):
            part = np.zeros(len(rows), RECORD)
            for column, name in enumerate(("label", "offset", "image_offset", "image_length")):
                part[name] = rows[:, column]
            part["shard"] = shard
            parts.append(part)
            checksums.append(stored_checksums(files[shard], part["offset"], sizes[shard]))
            texts, turned = shard_texts | texts, turned + shard_turned
            done += sizes[shard]
            if progress is not None:
                progress(INDEXING, done // 10**6, total // 10**6)
    return Index(np.concatenate(parts), texts, turned, np.concatenate(checksums))


def stored_checksums(file: Path, offsets: np.ndarray, size: int) -> np.ndarray:
    """The last four bytes of each record of a file of `size` bytes, uint32 [n]; `offsets` are where these begin."""
    ends = [*offsets[1:].tolist(), size]
    with open(file, "rb", buffering=0) as opened:
        return np.frombuffer(b"".join(os.pread(opened.fileno(), FOOTER, end - FOOTER) for end in ends), "<u4")


def _index_shard(file: Path, features: tuple[str, str]) -> tuple[np.ndarray, dict[int, str], int]:
    """Rows (label, offset, image offset, image length) as int64 [n, 4], label -> class name, and how many have an
    orientation tag."""
    rows, texts, offset, turned = [], {}, 0, 0
    try:
        beyond, records = _leads_beyond(file), iter(_iterate_records(str(file)))
        while offset != beyond and (record := next(records, None)) is not None:
            label, text, start, length = _locate(record, features)
            _refuse_bombs(record, start, length)
            rows.append((label, offset, offset + HEADER + start, length))
            turned += may_be_turned(record[start : start + HEAD])
            if text:
                texts.setdefault(label, text.decode(errors="replace"))
            offset += HEADER + len(record) + FOOTER
        if offset == beyond:
            raise tf.errors.DataLossError(None, None, "a record that ends beyond the file")
    except tf.errors.DataLossError as error:
        if offset == 0 and (kind := _compression(file)):
            raise DataError(
                f"{file} is compressed with {kind}, in which no record can be read without those before it; decompress "
                f"the shards, for example with {UNPACK[kind]}."
            ) from error
        raise DataError(f"{file} at byte {offset} is corrupt or cut short; copy or make this shard again.") from error
    except (tf.errors.OpError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.message
        raise DataError(f"{file} cannot be read ({reason}); restore it or make it readable.") from error
    except ValueError as error:
        raise DataError(f"{file} at byte {offset} {error}.") from error
    # TensorFlow takes a file that ends within a record's header for one that ends before it.
    if offset != file.stat().st_size or offset == 0:
        raise DataError(f"{file} at byte {offset} is cut short; copy or make this shard again.")
    return np.array(rows, np.int64), texts, turned


def _leads_beyond(file: Path) -> int | None:
    """The first byte of a record that by its length ends beyond the file: TensorFlow would take memory for it first."""
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:  # a pipe would be waited for
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(file))
        place = 0
        while place + HEADER <= status.st_size:
            end = place + HEADER + int.from_bytes(os.pread(stream.fileno(), 8, place), "little") + FOOTER
            if end > status.st_size:
                return place
            place = end
    return None


def _refuse_bombs(record: bytes, start: int, length: int) -> None:
    """Raise ValueError for an image that takes too much memory when it is decoded."""
    if problem := larger_than_pictures_are(lambda place, count: record[start : start + length][place : place + count]):
        raise ValueError(f"has an image that {problem}")


def _compression(file: Path) -> str | None:
    """gzip or zlib where a file whose first record is none decompresses as such."""
    with open(file, "rb") as stream:
        head = stream.read(4096)
    for kind, bits in (("gzip", 31), ("zlib", 15)):
        try:
            if zlib.decompressobj(bits).decompress(head, 64):
                return kind
        except zlib.error:
            continue
    return None


def _locate(record: bytes, features: tuple[str, str]) -> tuple[int, bytes, int, int]:
    """(label, class name or b"", position and length of the encoded image) of a serialized tf.train.Example."""
    try:
        feature = tf.train.Example.FromString(record).features.feature
    except DecodeError as error:
        raise ValueError("holds no tf.train.Example; make this shard again") from error
    image_name, label_name = features
    images, labels = feature[image_name].bytes_list.value, feature[label_name].int64_list.value
    if len(images) != 1 or not images[0] or len(labels) != 1:
        # Looking a name up has added it, empty.
        present = sorted(name for name in feature if feature[name].WhichOneof("kind"))
        has = ", ".join(f"{name} ({_kind(feature[name])})" for name in present) or "nothing"
        raise ValueError(
            f"does not hold one {image_name} (bytes) and one {label_name} (int64) but {has}; name the features with "
            "--image-feature and --label-feature, or make this shard again"
        )
    texts = feature["image/class/text"].bytes_list.value
    image = images[0]
    # The first bytes are looked for alone: finding all of a 100 KB image takes 100 us, most of them preparation.
    start = record.find(image[:32])
    if not record.startswith(image, start):
        start = record.find(image)
    return labels[0], texts[0] if texts else b"", start, len(image)


def _kind(feature: tf.train.Feature) -> str:
    """The type of a feature, and how many values where that is not one."""
    kind = feature.WhichOneof("kind")
    count = len(getattr(feature, kind).value) if kind else 0
    name = kind.removesuffix("_list") if kind else "empty"
    return name if count == 1 else f"{count} x {name}"
