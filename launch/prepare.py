"""Write a data set as TFRecord shards: few large files instead of many small ones.

    python launch/prepare.py --dataset image_folder --data-dir IN --out OUT --shards 16
    python launch/prepare.py --dataset cifar10 --data-dir IN --out OUT        (also csv, npz, hdf5, shapes)
    python launch/prepare.py --out OUT --verify                               compare all shards with the manifest
    python launch/train.py --dataset tfrecord --data-dir OUT                  train on them

Encoded images are copied byte for byte, pixels in memory are stored as PNG; the order is the source's, so that training
on the shards sees the same images in the same order. `--shorter-side 256` makes larger ones JPEG of that shorter side,
quality 95, which decode several times as fast. A test split beside train and val becomes test shards. After a kill run
the same command again: finished shards are kept.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import tyro

from launch.job.environment import leftovers, loading
from launch.job.logs.streams import outlive_readers
from launch.shards.config import PrepareConfig


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return its exit code: 0, or 2 if something is to be mended."""
    outlive_readers()
    config = tyro.cli(PrepareConfig, args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    if config.dataset is None and not config.verify:
        what = "--dataset is missing; say what to read, for example --dataset image_folder."
        print(f"prepare: {what}", file=sys.stderr)
        return 2
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    leftovers.overrule(os.environ)
    with loading(quiet=True):
        from data.datasets import DataError
        from launch.shards.files import verify
        from launch.shards.run import convert_all
    started = time.perf_counter()
    try:
        manifest = verify(Path(config.out)) if config.verify else convert_all(config)
    except (DataError, OSError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 2
    counts = " + ".join(f"{split.examples} {name}" for name, split in manifest.splits.items())
    size, seconds = sum(shard.bytes for shard in manifest.every_shard()), time.perf_counter() - started
    verb = "verified" if config.verify else "ready"
    print(f"{config.out}: {counts} images in {size / 1e6:.1f} MB {verb} after {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
