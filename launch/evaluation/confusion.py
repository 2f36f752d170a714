"""The confusion matrix as a picture that can be read at 2, 10 and 1,000 classes.

Each row shows where the pictures of one class went, as shares of that class: what was right in blue on the diagonal,
mistakes in orange.  Few classes have their counts in the cells; many have a panel beside them that names the worst.
All measures are pixels, so that each class has a whole number of them and none is lost between two.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from launch.evaluation.lettering import fitted, font, heading

# Up to so many classes: counts in the cells; every class named; pixels of its own for each.
COUNTED, NAMED, SEPARATE = 25, 110, 1200
DPI = 100
INK, FAINT, EDGE, MISSING = "#222222", "#707070", "#bbbbbb", "#e2e2e2"
MARGIN, TITLE, NAME_WIDTH, LEGEND, PANEL = 24, 64, 170, 110, 640
LETTERS = 13  # pixels
ROW = 30  # pixels of one class in the panel


def draw(path: Path, confusion: np.ndarray, names: Sequence[str], title: str) -> None:
    """Write the picture as PNG.

    Args:
        confusion: int64 [c, c], examples by true class (row) and predicted class (column).
        names: of the c classes.

    Raises:
        OSError: naming the file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    c = len(names)
    assert confusion.shape == (c, c), (confusion.shape, c)
    cell = _cell(c)
    side, letters = cell * min(c, SEPARATE), max(10, min(15, cell - 2))
    shown = range(0, c, _step(c))
    words = [fitted(names[index], NAME_WIDTH, font(letters)) for index in shown]
    beside = MARGIN + 40 + round(max(font(letters).getlength(word) for word in words))
    panel = beside + side + MARGIN + LEGEND
    width, height = panel + (PANEL if c > COUNTED else 0), TITLE + side + beside
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)

    def axes(left: int, top: int, wide: int, high: int):
        return figure.add_axes((left / width, 1 - (top + high) / height, wide / width, high / height))

    room = width - 2 * MARGIN
    _write(axes(MARGIN, 0, room, TITLE), 0, TITLE / 2, *heading(title, room), room, bold=True)
    matrix = axes(beside, TITLE, side, side)
    _matrix(matrix, confusion, cell)
    _name(matrix, shown, words, letters)
    bar = min(side, 440) * 2 // 5
    for place, words in enumerate(("right", "mistakes")):
        _scale(axes(beside + side + MARGIN, TITLE + 24 + place * (bar + 44), 14, bar), words)
    if not confusion.any(axis=1).all():
        note = axes(beside + side + MARGIN, TITLE + 24 + 2 * (bar + 44) - 20, LEGEND, 2 * ROW)
        _write(note, 0, ROW / 2, "grey:", LETTERS, LEGEND)
        _write(note, 0, ROW, "no pictures", LETTERS, LEGEND, colour=FAINT)
    if c > COUNTED:
        _worst(axes(panel, TITLE, PANEL - MARGIN, side), confusion, names)
    with warnings.catch_warnings():
        # Characters that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


def _cell(c: int) -> int:
    """Pixels of one class."""
    if c <= COUNTED:
        return min(1000, 400 + 50 * c) // c
    return max(14, 1000 // c) if c <= NAMED else max(1, SEPARATE // c)


def row_shares(confusion: np.ndarray) -> np.ndarray:
    """Each cell's share of its row, float64 [c, c]; NaN in the rows of classes without examples."""
    totals = confusion.sum(axis=1, keepdims=True)
    return np.divide(confusion, totals, out=np.full(confusion.shape, np.nan), where=totals > 0)


def _colours():
    """Of what was right, and of mistakes, where small shares are lifted so that rare ones are seen; none is white."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize, PowerNorm

    def from_white(name: str) -> ListedColormap:
        return ListedColormap([(1, 1, 1, 1), *colormaps[name](np.linspace(0.15, 1, 255))])

    return (
        ScalarMappable(Normalize(0, 1), from_white("Blues")),
        ScalarMappable(PowerNorm(0.5, 0, 1), from_white("Oranges")),
    )


def _pixels(confusion: np.ndarray) -> np.ndarray:
    """The cells' colours, float64 [m, m, 4]; m is c, and at most ``SEPARATE``: neighbours become one, in the darkest of
    their colours, which is that of the largest share."""
    from matplotlib.colors import to_rgba

    c = len(confusion)
    starts = np.unique(np.arange(min(c, SEPARATE)) * c // min(c, SEPARATE))
    mistakes, hits, missing = np.empty((len(starts), len(starts))), np.empty(len(starts)), np.empty(len(starts), bool)
    # A few rows at a time: colours of all cells of 21,841 classes would take 15 GB.
    for place, (start, stop) in enumerate(zip(starts, [*starts[1:], c], strict=True)):
        shares = row_shares(confusion[start:stop])
        missing[place] = np.isnan(shares).any()
        shares, row = np.nan_to_num(shares), np.arange(stop - start)
        hits[place] = shares[row, start + row].max()
        shares[row, start + row] = 0
        mistakes[place] = np.maximum.reduceat(shares.max(axis=0), starts)
    right, wrong = _colours()
    pixels, diagonal = wrong.to_rgba(mistakes), np.arange(len(starts))
    pixels[diagonal, diagonal] = np.minimum(pixels[diagonal, diagonal], right.to_rgba(hits))
    pixels[missing] = np.minimum(pixels[missing], to_rgba(MISSING))
    return pixels


def _matrix(axes, confusion: np.ndarray, cell: int) -> None:
    c = len(confusion)
    axes.imshow(_pixels(confusion), interpolation="nearest", extent=(-0.5, c - 0.5, c - 0.5, -0.5))
    for edge in axes.spines.values():
        edge.set_color(EDGE)
    if c <= COUNTED:
        _counts(axes, confusion, row_shares(confusion), min(15, cell * 0.3))


def _step(c: int) -> int:
    """Every how many classes one is named."""
    return 1 if c <= NAMED else next(step for step in (5, 10, 20, 25, 50, 100, 250, 500, c) if c / step <= 50)


def _name(axes, shown: range, words: Sequence[str], letters: int) -> None:
    how = {"fontsize": _points(letters), "color": INK, "parse_math": False}
    axes.set_xticks(shown, words, rotation=90, **how)
    axes.set_yticks(shown, words, **how)
    axes.tick_params(length=0 if shown.step == 1 else 4, color=EDGE)
    axes.set_xlabel("predicted", fontsize=_points(15), color=FAINT)
    axes.set_ylabel("true", fontsize=_points(15), color=FAINT)


def _counts(axes, confusion: np.ndarray, shares: np.ndarray, letters: float) -> None:
    for row, column in np.argwhere(confusion):
        share = shares[row, column]
        dark = share > (0.55 if row == column else 0.4)
        axes.text(
            column,
            row,
            f"{confusion[row, column]:,}\n{'<1%' if share < 0.01 else f'{share:.0%}'}",
            ha="center",
            va="center",
            fontsize=_points(letters),
            color="white" if dark else INK,
        )


def _scale(axes, words: str) -> None:
    """A bar of colours with its shares."""
    right, wrong = _colours()
    colours = right if words == "right" else wrong
    shares = np.linspace(1, 0, 256)
    axes.imshow(colours.to_rgba(shares)[:, None], aspect="auto", extent=(0, 1, 0, 1))
    axes.set_xticks([])
    ticks = (0, 0.5, 1) if words == "right" else (0, 0.1, 0.5, 1)
    axes.set_yticks(ticks, [f"{tick:.0%}" for tick in ticks], fontsize=_points(LETTERS), color=FAINT)
    axes.yaxis.tick_right()
    axes.tick_params(length=3, color=EDGE)
    axes.set_title(words, fontsize=_points(LETTERS), color=INK, loc="left")
    for edge in axes.spines.values():
        edge.set_color(EDGE)


def _worst(axes, confusion: np.ndarray, names: Sequence[str]) -> None:
    """The classes that were recognised least: a bar for the share that was, and what they were taken for most."""
    counts, right = confusion.sum(axis=1), np.diag(confusion)
    seen = np.flatnonzero(counts)
    recall = right[seen] / counts[seen]
    box = axes.get_window_extent()
    shown = seen[np.argsort(recall, kind="stable")[: min(40, int(box.height) // ROW - 2)]]
    title = f"the {len(shown)} classes recognised least, and what they were taken for most"
    _write(axes, 0, ROW / 2, title, LETTERS, box.width, bold=True)
    mistakes = confusion[shown].copy()
    mistakes[np.arange(len(shown)), shown] = 0
    for place, (index, taken) in enumerate(zip(shown, mistakes.argmax(axis=1), strict=True), start=1):
        middle, share = (place + 0.5) * ROW, right[index] / counts[index]
        _write(axes, 0, middle, names[index], LETTERS, 190)
        axes.barh(middle, 120, 14, left=200, color="#eeeeee")
        axes.barh(middle, 120 * share, 14, left=200, color="#2f7ab9")
        _write(axes, 330, middle, f"{share:.0%} of {counts[index]:,}", LETTERS, 90, colour=FAINT)
        most = mistakes[place - 1, taken]
        if most:
            _write(axes, 430, middle, f"{most:,} × {names[taken]}", LETTERS, box.width - 430)
    unseen = len(counts) - len(seen)
    if unseen:
        note = f"{unseen:,} of {len(names):,} classes without pictures here"
        _write(axes, 0, (len(shown) + 1.5) * ROW, note, LETTERS, box.width, colour=FAINT)


def _write(axes, x: float, y: float, text: str, letters: int, width: float, *, bold=False, colour=INK) -> None:
    """Text at most ``width`` pixels wide in axes that are measured in pixels from their upper left corner."""
    box = axes.get_window_extent()
    axes.set(xlim=(0, box.width), ylim=(box.height, 0))
    axes.axis("off")
    axes.text(
        x, y, fitted(text, width, font(letters, bold)), va="center", fontsize=_points(letters), color=colour,
        weight="bold" if bold else "normal", parse_math=False,
    )  # fmt: skip


def _points(pixels: float) -> float:
    return pixels * 72 / DPI
