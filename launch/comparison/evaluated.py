"""What evaluations of a run found, as parts of the page."""

from launch.comparison.differences import is_number, number, printable
from launch.comparison.files import Evaluation
from launch.comparison.markup import details, heading, picture, table, text
from launch.comparison.runs import Run

SHOWN_CLASSES = 20  # more of them are shown on request


def evaluation(run: Run, found: Evaluation, name: str) -> str:
    """Numbers, classes, confusion and worst mistakes of one evaluation, under the given name."""
    parts = [_numbers(found), _confused(found), _pictures(run, found), _classes(found)]
    return f'<article aria-label="{text(name)}">{heading(name)}\n{"".join(parts)}</article>'


def _numbers(found: Evaluation) -> str:
    metrics = found.metrics
    rows = [
        [name.replace("_", " "), number(value, ",.0f" if isinstance(value, int) else ".4f")]
        for name, value in metrics.items()
        if is_number(value)
    ]
    interval = metrics.get("accuracy_95_interval")
    if isinstance(interval, list) and len(interval) == 2 and all(map(is_number, interval)):
        rows.append(["accuracy, 95 % interval", f"{interval[0]:.4f} to {interval[1]:.4f}"])
    return table("Numbers", ("metric", "value"), rows) if rows else ""


def _confused(found: Evaluation) -> str:
    pairs = found.metrics.get("most_confused")
    if not isinstance(pairs, list) or not pairs or not all(isinstance(pair, dict) for pair in pairs):
        return ""
    forms = {"true": "", "predicted": "", "count": ",", "share": ".1%"}
    rows = [[number(pair.get(name), form) for name, form in forms.items()] for pair in pairs]
    return table("Most often confused", ("class", "taken for", "count", "share of the class"), rows)


def _pictures(run: Run, found: Evaluation) -> str:
    examples, accuracy = number(found.metrics.get("examples"), ","), number(found.metrics.get("accuracy"), ".4f")
    texts = {
        "confusion.png": (
            f"Confusion matrix of {run.name} on {found.name}: {examples} examples, accuracy {accuracy}; the pairs most "
            "often confused are in the table above",
            "Confusion: a row for each true class, a column for each predicted one",
        ),
        "worst.png": (
            f"Pictures of {found.name} that {run.name} was surest of and wrong about, with both names under each",
            "The mistakes it was surest of",
        ),
    }
    return "".join(picture(content, *texts[name]) for name, content in found.pictures.items())


def _classes(found: Evaluation) -> str:
    if not found.per_class:
        return ""
    names = list(found.per_class[0])
    rows = [[_shortened(cell) for cell in row.values()] for row in found.per_class]
    shown = table("Each class", names, rows)
    return shown if len(rows) <= SHOWN_CLASSES else details(f"Each of the {len(rows):,} classes", shown)


def _shortened(cell: str) -> str:
    """Shares with four digits; counts and names as they are."""
    try:
        return f"{float(cell):.4f}" if "." in cell else printable(cell)
    except ValueError:
        return printable(cell)
