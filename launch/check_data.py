"""Read and decode all pictures of a data set, and say what is wrong with which.

python launch/check_data.py --dataset image_folder --data-dir photos
python launch/check_data.py --dataset image_folder --data-dir photos --move-to bad      # train on the rest
python launch/check_data.py --dataset csv --data-dir table.csv --list bad.txt           # a line per picture
python launch/check_data.py --dataset tfrecord --data-dir shards --workers 8

Found are files that cannot be read, are empty, cut or no pictures, have one pixel or too many, and pictures of the same
bytes, in one class, in two splits or in two classes. Ends with 0 where there are none, and with 2 where there are some,
also where these were moved or listed.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from launch.job.config import choices
from launch.trained.command_line import Parser, at_least_one, expanded, expanded_path
from launch.trained.interrupts import Interrupts
from launch.trained.program import OutputError


def create_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--dataset", choices=choices("dataset"), required=True, help="as for launch/train.py")
    parser.add_argument("--data-dir", type=expanded, metavar="PATH", help="as for launch/train.py")
    parser.add_argument("--classes", metavar="NAME,...|FILE", help="look at these classes alone, as launch/train.py")
    parser.add_argument("--image-feature", metavar="NAME", help="as for launch/train.py")
    parser.add_argument("--label-feature", metavar="NAME", help="as for launch/train.py")
    parser.add_argument(
        "--workers", type=at_least_one, metavar="N", help="processes that decode (default: one per core)"
    )
    parser.add_argument(
        "--list", type=expanded_path, metavar="FILE", help="write each picture that should go, with its problem"
    )
    parser.add_argument(
        "--move-to",
        type=expanded_path,
        metavar="DIR",
        help="image_folder: move these files there, with their folders' names",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the program and return its exit code: 0 clean, 2 something is to be mended."""
    options = create_parser().parse_args(argv)
    # Of each file that it cannot decode TensorFlow would tell as well, in a line of its own.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from launch.job.environment import loading

    with loading(quiet=True):
        from data.datasets import DataError
        from launch.data_check.run import check
    try:
        with Interrupts().heard():
            return check(options)
    except (DataError, OutputError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"interrupted; {str(interrupt) or 'give the same command again'}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
