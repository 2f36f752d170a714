"""Words for people: of many names a few, of long texts the beginning, of several notes one."""

from collections.abc import Iterable


def printable(text: str) -> str:
    """The text, with bytes of file names that are not UTF-8 as Python escapes them."""
    return text.encode("utf-8", "backslashreplace").decode()


def few(names: Iterable[str], shown: int = 5) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest:,} more" if rest > 0 else "")


def shortened(text: str, most: int = 200) -> str:
    """The text, or its beginning and how long it is."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def joined(*notes: str | None) -> str | None:
    """Several notes as one, or None."""
    return printable("; ".join(note for note in notes if note)) or None
