"""Text that fits: names of any length in pictures of fixed measure. Matplotlib brings the font; Pillow measures it."""

import functools
from pathlib import Path


@functools.cache
def font(size: float, bold: bool = False):
    """The font of all pictures, ``size`` pixels high, as Pillow's ``ImageFont``."""
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


def fitted(text: str, width: float, font, keep: str = "start") -> str:
    """``text`` on one line of at most ``width`` pixels, with an ellipsis for what does not fit.

    Args:
        font: as ``font`` gives it.
        keep: "start" or "end": which part of a text that is too long is shown.
    """
    assert keep in ("start", "end"), keep
    text = _drawable(text)
    if font.getlength(text) <= width:
        return text

    def shortened(length: int) -> str:
        if keep == "end":
            return "…" + text[len(text) - length :].lstrip()
        return text[:length].rstrip() + "…"

    # Longer texts are wider, so the longest that fits is found by halving.
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        fits, too_long = (middle, too_long) if font.getlength(shortened(middle)) <= width else (fits, middle)
    return shortened(fits)


def heading(title: str, width: float) -> tuple[str, int]:
    """A title that fits, and the pixels of its bold letters: smaller ones before it is cut."""
    title = _drawable(title)
    letters = next((size for size in (18, 16, 14) if font(size, bold=True).getlength(title) <= width), 12)
    return fitted(title, width, font(letters, bold=True)), letters


def _drawable(text: str) -> str:
    """On one line, and without what no font can draw, such as bytes of a file's name that are no UTF-8."""
    text = " ".join(text.split())
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
