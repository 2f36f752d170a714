"""The table of networks that ``launch/train.py --list-models`` prints."""

from collections.abc import Iterator

from models import MODELS, applications


def lines() -> Iterator[str]:
    """A line for each value of ``--model``: its name, the pixels it was made for, and what it is."""
    width = max(map(len, [*MODELS, *(applications.PREFIX + name for name in applications.names())]))
    yield f"{'--model':{width}}  pixels  at least"
    for name, architecture in MODELS.items():
        sizes = f"{architecture.default_size:>6}  {architecture.min_size:>8}"
        yield f"{name:{width}}  {sizes}  {architecture.summary}"
    for name in applications.names():
        yield f"{applications.PREFIX + name:{width}}  {'of the data':>16}"
    yield f"{'FILE.py:FUNCTION':{width}}  {'of the data':>16}  your own, in plain Keras"
