"""A contact sheet: many small pictures with what they are called, in one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from launch.evaluation.lettering import fitted, font, heading

if TYPE_CHECKING:
    from PIL import Image

PICTURE, GAP, MARGIN, TITLE = 160, 12, 24, 64  # pixels
COLUMNS, MOST = 8, 400
LARGE, SMALL = 14, 11  # pixels of letters
LINE = 20
INK, FAINT, WRONG, FRAME = "#222222", "#707070", "#c04a00", "#f2f2f2"


@dataclass(frozen=True)
class Tile:
    """One picture and what is written below it.

    Attributes:
        index: which picture.
        name: its class, true or predicted.
        taken_for: what it was mistaken for, or None.
        probability: of ``taken_for`` where given, else of ``name``.
        place: its file, or where else it stands.
    """

    index: int
    name: str
    taken_for: str | None
    probability: float
    place: str


def draw(path: Path, tiles: Sequence[Tile], picture: Callable[[int], np.ndarray], title: str) -> None:
    """Write the sheet as PNG: the first ``MOST`` tiles, row by row, or the title alone where there are none.

    Args:
        picture: index -> uint8 [h, w, 3] of any size.

    Raises:
        OSError: naming the file.
    """
    from PIL import Image, ImageDraw

    if len(tiles) > MOST:
        title = f"{title} (the first {MOST:,} of {len(tiles):,})"
        tiles = tiles[:MOST]
    columns = min(COLUMNS, max(4, len(tiles)))
    lines = 3 if any(tile.taken_for for tile in tiles) else 2
    step_x, step_y = PICTURE + GAP, PICTURE + lines * LINE + 2 * GAP
    rows = -(-len(tiles) // columns)
    size = (2 * MARGIN + columns * step_x - GAP, TITLE + rows * step_y + (MARGIN - GAP if rows else 0))
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    _write_title(pen, title, size[0] - 2 * MARGIN)
    for number, tile in enumerate(tiles):
        left, top = MARGIN + number % columns * step_x, TITLE + number // columns * step_y
        sheet.paste(letterboxed(picture(tile.index), PICTURE), (left, top))
        _caption(pen, left, top + PICTURE + 4, tile)
    sheet.save(path, format="PNG")


def letterboxed(pixels: np.ndarray, size: int) -> "Image.Image":
    """A picture, uint8 [h, w, 3], in the middle of a square: whole, in its proportions, and grey where it ends.

    One of at most half the size is enlarged a whole number of times, so that its pixels stay sharp.
    """
    from PIL import Image

    height, width = pixels.shape[:2]
    image, longer = Image.fromarray(np.ascontiguousarray(pixels)), max(height, width)
    times = size // longer
    if times >= 2:
        image = image.resize((width * times, height * times), Image.Resampling.NEAREST)
    elif longer != size:
        scaled = (max(1, round(width * size / longer)), max(1, round(height * size / longer)))
        image = image.resize(scaled, Image.Resampling.LANCZOS)
    square = Image.new("RGB", (size, size), FRAME)
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return square


def _write_title(pen, title: str, room: int) -> None:
    words, letters = heading(title, room)
    pen.text((MARGIN, TITLE / 2), words, INK, font(letters, bold=True), anchor="lm")


def _caption(pen, left: int, top: int, tile: Tile) -> None:
    """The name, what it was taken for, how sure the network was, and the end of the file's name."""
    bold, plain, small = font(LARGE, bold=True), font(LARGE), font(SMALL)
    sure = percent(tile.probability)
    beside = PICTURE - plain.getlength(sure) - 8
    if tile.taken_for is None:
        pen.text((left, top), fitted(tile.name, beside, bold), INK, bold)
    else:
        pen.text((left, top), fitted(tile.name, PICTURE, bold), INK, bold)
        top += LINE
        pen.text((left, top), fitted(f"→ {tile.taken_for}", beside, plain), WRONG, plain)
    pen.text((left + PICTURE, top), sure, FAINT if tile.taken_for is None else WRONG, plain, anchor="ra")
    pen.text((left, top + LINE), fitted(Path(tile.place).name, PICTURE, small, keep="end"), FAINT, small)


def percent(probability: float) -> str:
    """A probability in per cent; none but 1 itself is rounded to 100."""
    if probability < 1 and round(100 * probability, 1) >= 100:
        return ">99.9%"
    return f"{probability:.1%}"
