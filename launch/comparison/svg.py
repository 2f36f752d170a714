"""A panel of curves as inline SVG: values on hover, colours from the page's style sheet."""

import math

from launch.comparison.curves import COLOURS, Curve, Panel, width
from launch.comparison.markup import text

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 26, 12, 34
LETTER = 12  # height of a label
MOST_POINTS = 200  # of a curve; a page of 8 runs with a thousand epochs each stays below 2 MB
DASHES = ("", "6 3", "2 3", "8 3 2 3")


def chart(panel: Panel, labels: list[str]) -> str:
    """An ``<svg>``; ``labels`` of the runs stand at the curves' ends, so that nobody depends on the colours."""
    curves = [_thin(curve.points) for curve in panel.curves]
    xs, ys = ([point[axis] for points in curves for point in points] for axis in (0, 1))
    x_ticks, y_ticks = _ticks(xs, integer=True), _ticks(ys, integer=False)
    x, y = _scale(xs, LEFT, WIDTH - RIGHT), _scale([*ys, *y_ticks], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(_described(panel))}">',
        *(f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}"/>' for tick in y_ticks),
        *(
            f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" class="end">{shown}</text>'
            for tick, shown in zip(y_ticks, _short(y_ticks), strict=True)
        ),
        *(
            f'<text x="{x(tick):.1f}" y="{HEIGHT - 16}" class="middle">{shown}</text>'
            for tick, shown in zip(x_ticks, _short(x_ticks), strict=True)
        ),
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 2}" class="middle">epoch</text>',
    ]
    for curve, points in zip(panel.curves, curves, strict=True):
        parts.append(_line(curve, [(x(a), y(b)) for a, b in points], width(curve.run, len(labels))))
        radius = 3 if len(points) < 60 else 1.5
        parts += [
            f'<circle class="run{curve.run % len(COLOURS)}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="{radius}">'
            f"<title>{text(curve.name)}, epoch {a:g}: {b:.6g}</title></circle>"
            for a, b in points
        ]
    for name, (a, b) in _apart(panel, labels, x, y):
        parts.append(f'<text x="{a:.1f}" y="{b:.1f}" class="label">{name}</text>')
    return "".join([*parts, "</svg>"])


def _described(panel: Panel) -> str:
    last = (f"{curve.name} {curve.points[-1][1]:.6g}" for curve in panel.curves)
    return f"{panel.title} over the epochs; at the end: {', '.join(last)}"


def _line(curve: Curve, points: list[tuple[float, float]], thick: float) -> str:
    dash = "5 4" if curve.dashed else DASHES[curve.run // len(COLOURS) % len(DASHES)]
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    return f'<polyline class="run{curve.run % len(COLOURS)}" stroke-width="{thick:.2g}"{dashes} points="{path}"/>'


def _thin(points: list) -> list:
    """Every n-th point and the last one."""
    step = math.ceil(len(points) / MOST_POINTS)
    return [point for i, point in enumerate(points) if i % step == 0 or i == len(points) - 1]


def _ticks(values: list[float], *, integer: bool) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    low, high = min(values), max(values)
    ticks = MaxNLocator(nbins=5, integer=integer).tick_values(low, high if high > low else low + 1).tolist()
    return [tick for tick in ticks if low <= tick <= high] if integer else ticks


def _scale(values: list[float], first: float, last: float):
    low, high = min(values), max(values)
    span = high - low or 1.0
    return lambda value: first + (value - low) / span * (last - first)


def _short(ticks: list[float]) -> list[str]:
    if max(map(abs, ticks)) >= 10_000:
        return [f"{tick / 1000:g}k" for tick in ticks]
    return [f"{tick:.4g}" for tick in ticks]


def _initial(panel: Panel, curve: Curve) -> str:
    """Of a single run's curves: v for validation, t for training, where both are there."""
    return curve.name[0] if len(panel.curves) > 1 else ""


def _apart(panel: Panel, labels: list[str], x, y):
    """Names and places of the labels at the curves' ends, moved so that none covers another."""
    ends = {}
    for curve in panel.curves:
        epoch, value = curve.points[-1]
        ends.setdefault(epoch, []).append((y(value), curve))
    for epoch, curves in ends.items():
        heights = []
        for height, _ in sorted(curves, key=lambda end: end[0]):
            heights.append(max(height, heights[-1] + LETTER) if heights else height)
        over = max(0.0, heights[-1] - (HEIGHT - BOTTOM))
        for height, (_, curve) in zip(heights, sorted(curves, key=lambda end: end[0]), strict=True):
            name = labels[curve.run] if len(labels) > 1 else _initial(panel, curve)
            yield name, (x(epoch) + 6, height - over + 4)
