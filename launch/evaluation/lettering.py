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
    # Line ends become spaces; bytes of a file's name that are no UTF-8 cannot be drawn.
    text = " ".join(text.split())
    text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
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
