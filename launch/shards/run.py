"""One conversion, from a data set to shards with their manifest and index."""

import argparse
import math
import os
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data import NEEDS_NO_DATA_DIR, DatasetConfig, Splits, arrange, open_sources
from data.classes import read_classes
from data.datasets import DataError, Source, Subset, UnlabelledError
from data.diagnose import reason, scan
from data.formats.tfrecord.index import load_index
from data.formats.tfrecord.shards import MANIFEST, UNFINISHED, Manifest, Shard, find_shards
from data.formats.tfrecord.source import load_tfrecord
from data.pictures.check import check_pictures
from data.pictures.encode import encoded_images
from data.splits import adopt, open_test_source
from launch.shards.files import is_whole, save, write_shard
from launch.shards.plan import blocks, plan, resume


def convert_all(options: argparse.Namespace) -> Manifest:
    """Open what the flags of launch/prepare.py name and convert it."""
    if options.skip_unreadable and options.dataset not in ("image_folder", "csv"):
        raise DataError(f"--skip-unreadable is of image_folder and csv, not of {options.dataset}: leave it out.")
    tf.config.set_visible_devices([], "GPU")  # nothing here needs one
    dataset = DatasetConfig(
        options.dataset,
        options.data_dir,
        seed=options.seed,
        validation_split=0,
        classes=read_classes(options.classes) if options.classes else None,
        features=(options.image_feature, options.label_feature),
        skip_unreadable=options.skip_unreadable,
    )
    splits, test = _open(dataset)
    if note := splits.train.note:
        print(f"note: {note}")
    return convert(
        splits, options.dataset, options.out, options.shards, test=test, shorter_side=options.shorter_side
    )


def _open(config: DatasetConfig) -> tuple[Splits, Source | None]:
    """Training and validation, and the test split if there is one; --skip-unreadable counts the files of all three."""
    train, validation = open_sources(config)
    classes, test = config.classes or train.classes, None
    if config.kind not in NEEDS_NO_DATA_DIR:
        try:
            test = open_test_source(config, classes)
        except UnlabelledError as error:
            print(f"note: the test split is left out: {error}")
    train, validation, test = check_pictures([train, validation, test], config.skip_unreadable)
    if test is not None:
        test = adopt(test, classes, f"the test split of {config.data_dir}") if len(test) else None
    return arrange((train, validation), config), test


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
                        shard.bytes, shard.sha256 = write_shard(out / shard.name, source, start, images, report.advance)
                    except tf.errors.OpError as error:
                        raise damaged(sources, Subset(source, np.arange(start, stop)), error) from error
                    save(out / UNFINISHED, manifest)
                report.shard(shard, "kept" if whole else "written")
    save(out / MANIFEST, manifest)
    (out / UNFINISHED).unlink()
    load_tfrecord(str(out))  # which leaves an index beside the shards
    if test is not None:
        load_index(out, find_shards(out)["test"], name="index-test")
    return manifest


def damaged(sources: dict[str, Source], shard: Source, error: tf.errors.OpError) -> DataError:
    """The error that names all pictures that cannot be decoded, where one of the shard's is the reason."""
    threads = len(os.sched_getaffinity(0))
    if not scan(shard, threads, math.inf).problems:  # too little memory, a disk that comes and goes
        return DataError(f"pictures cannot be read ({reason(error)}); mend that and give the same command again.")
    total = sum(map(len, sources.values()))
    print(f"a picture cannot be decoded; looking at all {total:,} for others, which Ctrl-C ends", flush=True)
    places = [place for source in sources.values() for place in scan(source, threads, math.inf).problems]
    if len(places) < 2:
        return DataError(f"{places[0] if places else reason(error)}; mend or remove it.")
    return DataError("\n  ".join([f"{len(places):,} pictures cannot be decoded; mend or remove them:", *places]))


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
