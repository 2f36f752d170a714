"""The curves of runs over their epochs: which there are, and as one picture; ``svg.py`` draws them for the page."""

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from launch.comparison.differences import printable
from launch.comparison.runs import NOT_METRICS, Run

# Okabe and Ito (2008), Color universal design, without the yellow and the sky blue, which are too pale for lines on
# white; each has a contrast of 3 and more with its page.  A seventh run has the first one's colour, and dashes.
COLOURS = ("#0072B2", "#D55E00", "#008A64", "#B8558F", "#A87000", "#1B1F24")
DARK_COLOURS = ("#5AA9E6", "#F28C38", "#2FBF95", "#E08FC0", "#E6B32E", "#E7E9EC")
DASHES = ("-", "--", ":", "-.")
MARKERS = "os^Dv<>P"


@dataclass(frozen=True)
class Curve:
    """One line: its name, the index of its run, whether it is dashed beside another of the same run, its points
    (epoch, value), all finite."""

    name: str
    run: int
    dashed: bool
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    title: str
    curves: list[Curve]


def panels(runs: Sequence[Run]) -> list[Panel]:
    """What there is to draw; of one run training and validation share a panel, of several each has its own."""
    columns = list(dict.fromkeys(name for run in runs for row in run.epochs for name in row))
    metrics = dict.fromkeys(name.removeprefix("val_") for name in columns if name not in NOT_METRICS)
    found = []
    for metric in metrics:
        both = (("validation", f"val_{metric}"), ("training", metric))
        if len(runs) == 1:
            curves = [_curve(kind, runs, 0, column, kind == "training") for kind, column in both]
            found.append(Panel(printable(metric), curves))
        else:
            found += [Panel(f"{kind} {printable(metric)}", _curves(runs, column)) for kind, column in both]
    found += [
        Panel(title, _curves(runs, column))
        for title, column in (("learning rate", "learning_rate"), ("images/s", "images_per_second"))
    ]
    kept = [Panel(panel.title, [curve for curve in panel.curves if curve.points]) for panel in found]
    return [panel for panel in kept if panel.curves]


def _curves(runs: Sequence[Run], column: str) -> list[Curve]:
    return [_curve(f"{run.label} {printable(run.name)}", runs, i, column, False) for i, run in enumerate(runs)]


def _curve(name: str, runs: Sequence[Run], index: int, column: str, dashed: bool) -> Curve:
    points = [(row["epoch"], row.get(column)) for row in runs[index].epochs]
    return Curve(name, index, dashed, [(x, y) for x, y in points if y is not None and math.isfinite(y)])


def draw(runs: Sequence[Run]) -> bytes:
    """All panels as one PNG picture; each run has one colour and marker in all of them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    shown = panels(runs)
    lines = max(1, math.ceil(len(shown) / 2))
    figure = Figure(figsize=(10, 3 * lines + 0.25 * len(runs) + 0.3), layout="constrained")
    handles = {}
    for place, panel in enumerate(shown):
        axes = figure.add_subplot(lines, 2, place + 1)
        # With many epochs markers would hide the lines.
        size = 2.5 if max(len(curve.points) for curve in panel.curves) <= 60 else 0
        for curve in panel.curves:
            (line,) = axes.plot(
                *zip(*curve.points, strict=True),
                color=COLOURS[curve.run % len(COLOURS)],
                linestyle=_dash(curve),
                linewidth=width(curve.run, len(runs)),
                marker=MARKERS[curve.run % len(MARKERS)],
                markersize=size and size + width(curve.run, len(runs)),
            )
            handles.setdefault(curve.name, line)
        axes.set_title(_literal(panel.title), fontsize=10)
        axes.set_xlabel("epoch", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    if handles:
        names = [_literal(name) for name in handles]
        figure.legend(handles.values(), names, loc="outside lower left", frameon=False, fontsize=9)
    else:
        figure.text(0.5, 0.5, "no epoch is over yet", ha="center")
    picture = io.BytesIO()
    with warnings.catch_warnings():
        # A name in letters that the font lacks is drawn as boxes; the letter before it still tells the run.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(picture, dpi=110, format="png", metadata={"Software": None})
    return picture.getvalue()


def width(run: int, runs: int) -> float:
    """Of a run's lines: earlier ones are wider, so that equal curves show as a line with a rim."""
    return 1.6 + 2.4 * (runs - 1 - run) / max(runs - 1, 1)


def _dash(curve: Curve) -> str:
    return "--" if curve.dashed else DASHES[curve.run // len(COLOURS) % len(DASHES)]


def _literal(text: str) -> str:
    """Text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")
