"""Write a data set as TFRecord shards: few large files instead of many small ones.

python launch/prepare.py --dataset image_folder --data-dir IN --out OUT --shards 16
python launch/prepare.py --dataset cifar10 --data-dir IN --out OUT      # also csv, npz, hdf5, shapes
python launch/prepare.py --out OUT --verify                             # compare all shards with the manifest
python launch/train.py --dataset tfrecord --data-dir OUT                # train on them

Encoded images are copied byte for byte, pixels in memory are stored as PNG; the order is the source's, so that training
on the shards sees the same images in the same order. A test split beside train and val becomes test shards. After a
kill or Ctrl-C run the same command again: finished shards are kept.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from launch.job.config import choices
from launch.job.environment import leftovers, loading
from launch.trained.command_line import Parser, at_least_one, expanded, expanded_path, none_or_more
from launch.trained.interrupts import Interrupts


def create_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    kinds = [kind for kind in choices("dataset") if kind != "tfrecord"]
    parser.add_argument("--dataset", choices=kinds, help="what to read; needed unless --verify is given")
    parser.add_argument("--data-dir", type=expanded, metavar="PATH", help="where it lies, as for launch/train.py")
    parser.add_argument(
        "--out",
        type=expanded_path,
        metavar="DIR",
        required=True,
        help="for the shards and their manifest; empty, or begun by the same command",
    )
    parser.add_argument(
        "--shards",
        type=at_least_one,
        metavar="N",
        default=16,
        help="of training (default: 16); those of validation and test are of about the same size",
    )
    parser.add_argument("--seed", type=none_or_more, metavar="N", default=0, help="of generated pictures (shapes)")
    parser.add_argument("--classes", metavar="NAME,...|FILE", help="write these classes alone, as launch/train.py")
    parser.add_argument("--image-feature", metavar="NAME", help="of npz and hdf5, as for launch/train.py")
    parser.add_argument("--label-feature", metavar="NAME", help="of npz and hdf5, as for launch/train.py")
    parser.add_argument(
        "--skip-unreadable",
        type=none_or_more,
        metavar="N",
        default=0,
        help="image_folder and csv: leave out up to so many files that cannot be pictures; they are named",
    )
    parser.add_argument(
        "--shorter-side",
        type=at_least_one,
        metavar="PIXELS",
        help="make pictures whose shorter side is longer JPEG files of that side, quality 95, which decode several "
        "times as fast; the others stay as they are",
    )
    parser.add_argument("--verify", action="store_true", help="only compare all shards in --out with its manifest")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return its exit code: 0, 2 if something is to be mended, 130 if it was interrupted."""
    parser = create_parser()
    options = parser.parse_args(arguments)
    if options.dataset is None and not options.verify:
        parser.error("--dataset is missing; say what to read, for example --dataset image_folder")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    leftovers.overrule(os.environ)
    try:
        with loading(quiet=True):
            from data.datasets import DataError
            from launch.shards.files import verify
            from launch.shards.run import convert_all
        started = time.perf_counter()
        try:
            with Interrupts().heard():
                manifest = verify(options.out) if options.verify else convert_all(options)
        except (DataError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    except KeyboardInterrupt:
        print("interrupted; finished shards are kept, give the same command again", file=sys.stderr)
        return 130
    counts = " + ".join(f"{split.examples} {name}" for name, split in manifest.splits.items())
    size, seconds = sum(shard.bytes for shard in manifest.every_shard()), time.perf_counter() - started
    verb = "verified" if options.verify else "ready"
    print(f"{options.out}: {counts} images in {size / 1e6:.1f} MB {verb} after {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
