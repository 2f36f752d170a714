"""Name what a run sees on pictures.  The same rows on one process and on any number of workers:

python launch/predict.py runs/one cat.jpg                              # a line per picture
python launch/predict.py runs/one PHOTOS '*.png' --out predictions.csv # folders with all below them, patterns
find . -name '*.jpg' | python launch/predict.py runs/one - --out predictions.json
python launch/predict.py runs/one PHOTOS --sheet sheet.png             # a picture of the pictures
horovodrun -np 4 python launch/predict.py runs/one PHOTOS --out predictions.csv

A picture that cannot be read is a row with its reason, and makes the exit code 2; the rest is done.
"""

import sys
from pathlib import Path

# The repository's folders come first: `distributed` is also the name of an installed package on many machines.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from launch.job.text_files import expanded
from launch.trained import program
from launch.trained.command_line import Parser, at_least_one


def create_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_run()
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help="files, folders, patterns; - is a list on stdin")
    parser.add_argument(
        "--top", type=at_least_one, default=5, metavar="N", help="how many classes to name (default: 5)"
    )
    parser.add_argument("--out", type=expanded, metavar="FILE", help="write the rows to FILE.csv or FILE.json")
    parser.add_argument("--sheet", type=expanded, metavar="FILE.png", help="draw the pictures with their names")
    parser.add_workers()
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the program and return its exit code: 0, 2 the user can mend it, 1 anything else."""
    options = create_parser().parse_args(argv)

    def work(workers: program.Workers) -> int:
        from launch.prediction.run import predict

        return predict(options, workers)

    return program.run(options, work)


if __name__ == "__main__":
    sys.exit(main())
