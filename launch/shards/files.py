"""Shards and their manifest as files: each appears whole or not at all."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import tensorflow as tf

from data.datasets import DataError, Source
from data.formats.tfrecord.shards import MANIFEST, Manifest, Shard, read_manifest
from distributed.checkpoint import disk


def is_whole(file: Path, shard: Shard) -> bool:
    """Does the file exist with the recorded size and SHA-256?"""
    if not shard.sha256 or not file.is_file() or file.stat().st_size != shard.bytes:
        return False
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == shard.sha256


def write_shard(
    file: Path, source: Source, start: int, images: Iterable[bytes], passed: Callable[[], None]
) -> tuple[int, str]:
    """The images, which are those of `source` from `start` on, as one file, which appears whole or not at all.

    Args:
        passed: called after each image.

    Returns:
        Its size and SHA-256.

    Raises:
        OSError: it cannot be written; what the images raise comes as it is.
    """
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with _named(file):
            writer = tf.io.TFRecordWriter(str(temporary))
        try:
            for index, image in enumerate(images, start):
                record = example(image, int(source.labels[index]), source.classes)
                with _named(file):
                    writer.write(record)
                passed()
        finally:
            with _named(file):
                writer.close()
        with _named(file):
            return commit(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    """What writing a file raises, TensorFlow's errors too, as an OSError of one sentence that names it."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        why = error.message.rpartition("; ")[2] if isinstance(error, tf.errors.OpError) else error.strerror
        raise OSError(f"{file} cannot be written ({why}); mend that and give the same command again.") from error


def example(image: bytes, label: int, classes: tuple[str, ...]) -> bytes:
    """A serialized tf.train.Example; the same bytes for the same image."""
    feature = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "image/class/text": tf.train.Feature(bytes_list=tf.train.BytesList(value=[classes[label].encode()])),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)


def save(file: Path, manifest: Manifest) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with _named(file):
            temporary.write_text(manifest.model_dump_json(indent=1) + "\n")
            commit(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def commit(temporary: Path, file: Path) -> tuple[int, str]:
    """Rename a file once its contents are on the disk; its size in bytes and SHA-256 (hex)."""
    with open(temporary, "rb") as opened:
        os.fsync(opened.fileno())
        size, digest = os.fstat(opened.fileno()).st_size, hashlib.file_digest(opened, "sha256").hexdigest()
    os.replace(temporary, file)
    disk.flush(file.parent)
    return size, digest


def verify(out: Path) -> Manifest:
    """The manifest of `out`, once all shards were compared with it; DataError naming those that differ."""
    manifest = read_manifest(out)
    if manifest is None:
        raise DataError(f"--out {out} has no {MANIFEST}; give the folder of a finished conversion.")
    broken = [shard.name for shard in manifest.every_shard() if not is_whole(out / shard.name, shard)]
    if broken:
        raise DataError(f"{out} differs from its {MANIFEST} in {', '.join(broken)}; convert again to redo them.")
    return manifest
