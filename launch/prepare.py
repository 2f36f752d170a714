"""Write a data set as TFRecord shards: few large files instead of many small ones.

    python launch/prepare.py --dataset image_folder --data-dir IN --out OUT --shards 16
    python launch/prepare.py --dataset cifar10 --data-dir IN --out OUT        (also csv, npz, shapes)
    python launch/prepare.py --out OUT --verify                               compare all shards with the manifest
    python launch/train.py --dataset tfrecord --data-dir OUT                  train on them

Encoded images are copied byte for byte, pixels in memory are stored as PNG; the order is the source's, so that training
on the shards sees the same images in the same order. `--shorter-side 256` makes larger ones JPEG of that shorter side,
quality 95, which decode several times as fast. A test split beside train and val becomes test shards. After a kill run
the same command again: finished shards are kept.
"""

import hashlib
import math
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from launch.job.environment import leftovers, silence
from launch.job.logs.streams import outlive_readers

leftovers.overrule(os.environ)
with silence(True):
    import tensorflow as tf
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data import NEEDS_NO_DATA_DIR, Splits, load
from data.classes import read_classes
from data.datasets import DataError, Source
from data.diagnose import scan
from data.encode import encoded_images
from data.formats.headers import check_pictures
from data.formats.tfrecord import load_tfrecord
from data.formats.tfrecord_index import load_index
from data.formats.tfrecord_shards import MANIFEST, UNFINISHED, Manifest, Shard, Split, find_shards, read_manifest
from data.splits import open_test
from distributed.checkpoint import disk


@dataclass(frozen=True)
class PrepareConfig:
    """Write a data set as TFRecord shards, or verify shards that were written."""

    out: str
    """Folder for the shards and their manifest; empty, or begun by the same command."""
    dataset: Literal["shapes", "cifar10", "image_folder", "csv", "npz", "hdf5"] | None = None
    """What to read; needed unless --verify is given."""
    data_dir: str | None = None
    """Where it lies, as for launch/train.py."""
    shards: int = 16
    """Number of training shards; validation shards are of about the same size."""
    seed: int = 0
    """Seed of the generated data set (shapes)."""
    classes: str | None = None
    """Only these classes, in this order, as for launch/train.py."""
    skip_unreadable: int = 0
    """Leave out up to so many files that cannot be pictures by their size and first bytes; they are named."""
    shorter_side: int | None = None
    """Make pictures whose shorter side is longer JPEG files of that side; the others stay as they are."""
    verify: bool = False
    """Only compare size and SHA-256 of all shards in OUT with its manifest."""


class Report:
    """What people see: a bar on a terminal, else one line per shard. A context manager around the work."""

    def __init__(self, images: int, shards: int):
        self.console, self.shards, self.done = Console(), shards, 0
        columns = TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self.bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("images", total=images)

    def __enter__(self) -> "Report":
        self.bar.start()
        return self

    def __exit__(self, *_) -> None:
        self.bar.stop()

    def advance(self, images: int = 1) -> None:
        self.bar.advance(self.task, images)

    def shard(self, shard: Shard, verb: str) -> None:
        self.done += 1
        if self.bar.disable:
            print(f"{self.done}/{self.shards}  {shard.name}: {shard.examples} images {verb}", flush=True)


def plan(sources: dict[str, Source], dataset: str, shards: int, shorter_side: int | None) -> Manifest:
    """The manifest to be, without sizes and hashes: names of the shards and how many examples stand in each."""
    train = sources["train"]
    if not 1 <= shards <= len(train):
        raise DataError(f"--shards is {shards}, expected 1 to {len(train)}, the number of training images.")
    planned = {}
    for name, source in sources.items():
        count = min(len(source), max(1, round(shards * len(source) / len(train))))
        parts = [
            Shard(name=f"{name}-{k:05d}-of-{count:05d}.tfrecord", examples=stop - start)
            for k, (start, stop) in enumerate(blocks(len(source), count))
        ]
        planned[name] = Split(examples=len(source), fingerprint=source.fingerprint(), shards=parts)
    return Manifest(dataset=dataset, classes=list(train.classes), shorter_side=shorter_side, splits=planned)


def blocks(n: int, count: int) -> list[tuple[int, int]]:
    """`count` contiguous ranges (start, stop) that cover 0..n-1 in order and differ by at most one in length."""
    return [(n * k // count, n * (k + 1) // count) for k in range(count)]


def resume(out: Path, planned: Manifest) -> Manifest:
    """The plan, with size and hash filled in for each shard that an earlier run finished.

    Raises:
        DataError: `out` holds something else than the beginning of this very conversion.
    """
    recorded = read_manifest(out, UNFINISHED) or read_manifest(out)
    if recorded is None:
        if out.exists() and any(out.iterdir()):
            raise DataError(f"--out {out} is not empty and holds no shards of this command; give an empty folder.")
        return planned
    blank = recorded.model_copy(deep=True)
    for shard in blank.every_shard():
        shard.bytes, shard.sha256 = 0, ""
    if blank != planned:
        raise DataError(
            f"--out {out} was begun with other images, labels, --shards or --shorter-side ({recorded.dataset}, "
            f"{recorded.splits['train'].examples} training images); empty it or give another folder."
        )
    return recorded


def is_whole(file: Path, shard: Shard) -> bool:
    """Does the file exist with the recorded size and SHA-256?"""
    if not shard.sha256 or not file.is_file() or file.stat().st_size != shard.bytes:
        return False
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == shard.sha256


def convert(
    splits: Splits,
    dataset: str,
    out: Path,
    shards: int,
    *,
    test: Source | None = None,
    shorter_side: int | None = None,
) -> Manifest:
    """Write what is missing of the shards to `out`, then the manifest and the index; return the manifest."""
    sources = {"train": splits.train, "validation": splits.validation, "test": test}
    sources = {name: source for name, source in sources.items() if source is not None}
    manifest = resume(out, plan(sources, dataset, shards, shorter_side))
    out.mkdir(parents=True, exist_ok=True)
    save(out / UNFINISHED, manifest)
    with Report(sum(split.examples for split in manifest.splits.values()), len(manifest.every_shard())) as report:
        for name, split in manifest.splits.items():
            source = sources[name]
            for shard, (start, stop) in zip(split.shards, blocks(len(source), len(split.shards)), strict=True):
                whole = is_whole(out / shard.name, shard)
                if whole:
                    report.advance(shard.examples)
                else:
                    try:
                        images = encoded_images(source, start, stop, shorter_side)
                        shard.bytes, shard.sha256 = write_shard(out / shard.name, source, start, images, report)
                    except tf.errors.OpError as error:
                        raise damaged(sources) from error
                    save(out / UNFINISHED, manifest)
                report.shard(shard, "kept" if whole else "written")
    save(out / MANIFEST, manifest)
    (out / UNFINISHED).unlink()
    load_tfrecord(str(out))  # which leaves an index beside the shards
    if test is not None:
        load_index(out, find_shards(out)["test"], name="index-test")
    return manifest


def write_shard(
    file: Path, source: Source, start: int, images: Iterable[bytes], report: Report
) -> tuple[int, str]:
    """The images, which are those of `source` from `start` on, as one file, which appears whole or not at all.

    Returns:
        Its size and SHA-256.
    """
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for index, image in enumerate(images, start):
                writer.write(example(image, int(source.labels[index]), source.classes))
                report.advance()
        return commit(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def damaged(sources: dict[str, Source]) -> DataError:
    """The error that names all pictures that cannot be decoded."""
    threads = len(os.sched_getaffinity(0))
    places = [place for source in sources.values() for place in scan(source, threads, math.inf).problems]
    if len(places) < 2:
        return DataError(f"{places[0] if places else 'a picture cannot be read'}; mend or remove it.")
    return DataError("\n  ".join([f"{len(places):,} pictures cannot be decoded; mend or remove them:", *places]))


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
    temporary.write_text(manifest.model_dump_json(indent=1) + "\n")
    commit(temporary, file)


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


def convert_all(config: PrepareConfig) -> Manifest:
    """Open what the settings name and convert it."""
    if config.shorter_side is not None and config.shorter_side < 1:
        raise DataError(f"--shorter-side is {config.shorter_side}, expected 1 or more pixels.")
    classes = read_classes(config.classes) if config.classes else None
    how = {"seed": config.seed, "classes": classes, "skip_unreadable": config.skip_unreadable}
    splits, test = load(config.dataset, config.data_dir, validation_split=0, **how), None
    if note := splits.train.note:
        print(f"note: {note}")
    if config.dataset not in NEEDS_NO_DATA_DIR:
        names, chosen = splits.train.classes, classes is not None
        test = open_test(config.dataset, config.data_dir, config.seed, names, chosen=chosen)
        if test is not None:
            (test,) = check_pictures([test], config.skip_unreadable)
    out, shorter_side = Path(config.out), config.shorter_side
    return convert(splits, config.dataset, out, config.shards, test=test, shorter_side=shorter_side)


def main(arguments: list[str] | None = None) -> int:
    outlive_readers()
    config = tyro.cli(PrepareConfig, args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    started = time.perf_counter()
    try:
        if config.verify:
            manifest = verify(Path(config.out))
        elif config.dataset is None:
            raise DataError("--dataset is missing; say what to read, for example --dataset image_folder.")
        else:
            manifest = convert_all(config)
    except (DataError, OSError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 2
    counts = " + ".join(f"{split.examples} {name}" for name, split in manifest.splits.items())
    size, seconds = sum(shard.bytes for shard in manifest.every_shard()), time.perf_counter() - started
    verb = "verified" if config.verify else "ready"
    print(f"{config.out}: {counts} images in {size / 1e6:.1f} MB {verb} after {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    tf.config.set_visible_devices([], "GPU")  # nothing here needs one
    sys.exit(main())
