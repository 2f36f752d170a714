"""Set finished, interrupted and running runs side by side.

python launch/compare.py runs/one runs/two          # tables; comparison/comparison.png, comparison/report.html
python launch/compare.py runs/*  --out lr-search    # into lr-search/
python launch/compare.py runs/one                   # one run alone: runs/one/report.html

report.html is one file that needs no network; open it in a browser, send it, print it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from launch.comparison import console, curves, output
from launch.comparison.files import ComparisonError
from launch.comparison.page import page
from launch.comparison.runs import read_runs
from launch.trained.command_line import Parser, expanded_path


def create_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument(
        "--out",
        type=expanded_path,
        metavar="DIR",
        help="folder to write into, made where it is missing (default: comparison; of a single run its own)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Compare the runs and return the exit code: 0 done, 2 the user can mend it."""
    options = create_parser().parse_args(argv)
    try:
        runs = read_runs(options.runs)
        single = len(runs) == 1
        folder = options.out or (runs[0].path if single else Path("comparison"))
        files = {folder / "report.html": page(runs).encode()}
        if not single:
            files = {folder / "comparison.png": curves.draw(runs)} | files
        # First, as it needs no folder that can be written.
        console.show(runs, Console(highlight=False))
        output.write(files)
    except ComparisonError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    print("written:", *files)
    return 0


if __name__ == "__main__":
    sys.exit(main())
