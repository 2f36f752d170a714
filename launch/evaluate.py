"""Evaluate a run on pictures that it was not trained on.  The same command on one device, one node or many, and the
same files, to the last byte:

python launch/evaluate.py runs/one                                # its test split, or else its validation split
python launch/evaluate.py runs/one --split val --checkpoint last
python launch/evaluate.py runs/one --dataset image_folder --data-dir PHOTOS     # other pictures, a folder per class
horovodrun -np 4 python launch/evaluate.py runs/one
python launch/evaluate.py runs/one --strategy mirrored            # all GPUs of this machine

Prints loss and metrics, accuracy with its 95 % interval, precision and recall of each class and what was confused;
leaves metrics.json, per_class.csv, predictions.csv, confusion.png and worst.png in RUN/evaluation-<split>, of
other data in RUN/evaluation-<its name>-<split>.
"""

import sys
from pathlib import Path

# The repository's folders come first: `distributed` is also the name of an installed package on many machines.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from launch.job.config import choices
from launch.trained import program
from launch.trained.command_line import Parser, expanded


def create_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_run()
    parser.add_argument("--split", choices=("test", "val", "train"), help="default: test if there is one, else val")
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help=f"kind of data, {', '.join(choices('dataset'))} or FILE.py:FUNCTION (default: the run's)",
    )
    parser.add_argument("--data-dir", type=expanded, metavar="D", help="where the data lies (default: as in the run)")
    parser.add_argument(
        "--out", type=expanded, metavar="DIR", help="folder for the files (default: RUN/evaluation-..., see above)"
    )
    parser.add_argument(
        "--check-leakage",
        choices=("auto", "on", "off"),
        default="auto",
        help="look for evaluated pictures among the training pictures; auto: where it costs little",
    )
    parser.add_argument(
        "--projector", action="store_true", help="also leave the last hidden layer's outputs in TensorBoard's projector"
    )
    parser.add_workers()
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the program and return its exit code: 0, 2 the user can mend it, 1 anything else."""
    options = create_parser().parse_args(argv)

    def work(workers: program.Workers) -> int:
        from launch.evaluation.run import evaluate

        return evaluate(options, workers)

    return program.run(options, work)


if __name__ == "__main__":
    sys.exit(main())
