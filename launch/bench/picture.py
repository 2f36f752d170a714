"""A result as a picture: bars, or curves over the ranks, and beside them the parts of a step where these are known."""

from pathlib import Path

# Column -> its smallest and largest.
SPREAD = {"ms_per_step": "ms_spread", "images_per_second": "images_spread", "start_seconds": "start_spread"}


def draw(result, label: str, title: str, path: Path) -> None:
    """Write ``result``, a ``report.Result`` whose shown column is called ``label``, to a PNG file."""
    from matplotlib.figure import Figure

    panels = 2 if result.limits else 1
    figure = Figure(figsize=(7 * panels, 4.5), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    figure.suptitle(title, fontsize=10)
    if all("ranks" in row for row in result.rows):
        _curves(axes[0], result.rows)
    else:
        _bars(axes[0], [row for row in result.rows if row.get(result.value) is not None], result.value)
        axes[0].set_ylabel(label)
    if result.limits:
        _parts(axes[1], result.limits)
    for panel in axes:
        panel.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def _bars(axes, rows: list[dict], column: str) -> None:
    groups = list(dict.fromkeys((row["case"], row["setting"]) for row in rows))
    names = list(dict.fromkeys(row["contestant"] for row in rows))
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        own = [row for row in rows if row["contestant"] == name]
        places = [groups.index((row["case"], row["setting"])) + (index - (len(names) - 1) / 2) * width for row in own]
        reach = None
        if spread := SPREAD.get(column):
            reach = [[abs(row[spread][end] - row[column]) for row in own] for end in (0, 1)]
        axes.bar(places, [row[column] for row in own], width, yerr=reach, label=name, ecolor="grey", capsize=2)
    heights = [row[column] for row in rows]
    if 0 < 30 * min(heights) < max(heights):
        axes.set_yscale("log")
    axes.set_xticks(range(len(groups)), ["\n".join(filter(None, group)) for group in groups], fontsize=8)
    axes.margins(y=0.3)  # room for the legend


def _curves(axes, rows: list[dict]) -> None:
    """Images per second over the ranks, as multiples of what one rank does; the ideal is a straight line."""
    most, series = max(row["ranks"] for row in rows), {}
    for row in rows:
        # All are compared with the same single rank.
        series.setdefault(f"{row['case']}, {row['contestant']}", {1: 1.0})[row["ranks"]] = row["ratio"]
    axes.plot([1, most], [1, most], "--", color="grey", label="ideal")
    for name, points in series.items():
        axes.plot(*zip(*sorted(points.items()), strict=True), "o-", label=name)
    axes.set_xticks(range(1, most + 1))
    axes.set_xlabel("ranks, one core each")
    axes.set_ylabel("times the images/s of one rank")


def _parts(axes, limits: list[dict]) -> None:
    labels = ["\n".join(filter(None, (part["case"], part["setting"], part["contestant"]))) for part in limits]
    floor = [0.0] * len(limits)
    for name in ("compute", "update", "exchange", "input", "saving"):
        heights = [100 * part["share"].get(name, 0.0) for part in limits]
        if any(heights):
            axes.bar(labels, heights, 0.6, bottom=floor, label=name)
        floor = [low + height for low, height in zip(floor, heights, strict=True)]
    axes.tick_params(axis="x", labelsize=7)
    axes.set_ylabel("% of a step")
