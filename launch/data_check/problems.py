"""What is wrong with a data set, from what its pictures are: one table of it, and which files are to go."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from launch.data_check.examine import Seen

SHOWN = 100  # lines of the table
# In the order of the table: what cannot be trained on, what should not be.
KINDS = ("unreadable", "empty", "no picture", "cut", "too large", "one pixel", "two classes", "two splits", "twice")


class Picture(NamedTuple):
    """One picture of the data set: its split, the name of its class and its place in words."""

    split: str
    label: str
    place: str


class Problem(NamedTuple):
    """What is wrong with a picture.

    Attributes:
        picture: its index.
        kind: one of KINDS.
        reason: the same in words.
    """

    picture: int
    kind: str
    reason: str


def find_problems(pictures: Sequence[Picture], seen: Sequence[Seen]) -> list[Problem]:
    """All pictures that should go, by kind, and within a kind in order.

    Of files of the same bytes one stays, in the split that is evaluated where they stand in several, so that results
    stay comparable; none where they stand in several classes, as nobody knows which is right.
    """
    problems = [Problem(index, one.kind, one.reason) for index, one in enumerate(seen) if one.kind]
    groups = defaultdict(list)
    for index, one in enumerate(seen):
        if one.kind is None:
            groups[one.sha256].append(index)
    for indices in groups.values():
        if len(indices) > 1:
            problems += _of_the_same_bytes(pictures, indices)
    return sorted(problems, key=lambda problem: (KINDS.index(problem.kind), problem.picture))


def _of_the_same_bytes(pictures: Sequence[Picture], indices: list[int]) -> list[Problem]:
    if len({pictures[index].label for index in indices}) > 1:
        return [Problem(index, "two classes", f"equals {_other(pictures, indices, index)}") for index in indices]
    if len(splits := {pictures[index].split for index in indices}) > 1:
        kept = next(split for split in ("test", "val", "train") if split in splits)
        stays = next(index for index in indices if pictures[index].split == kept)
        rest = [index for index in indices if index != stays]
        return [
            Problem(index, "twice" if pictures[index].split == kept else "two splits", _equals(pictures, stays))
            for index in rest
        ]
    return [Problem(index, "twice", _equals(pictures, indices[0])) for index in indices[1:]]


def _other(pictures: Sequence[Picture], indices: list[int], index: int) -> str:
    return next(pictures[other].place for other in indices if pictures[other].label != pictures[index].label)


def _equals(pictures: Sequence[Picture], index: int) -> str:
    return f"equals {pictures[index].place}"


def table(pictures: Sequence[Picture], problems: Sequence[Problem]) -> list[str]:
    """The lines of the table, of which the first 100 problems are shown."""
    lines = [f"{'problem':12}{'split':7}{'class':16}picture"]
    for problem in problems[:SHOWN]:
        split, label, place = pictures[problem.picture]
        lines.append(f"{problem.kind:12}{split:7}{label:16}{place}: {problem.reason}")
    if len(problems) > SHOWN:
        lines.append(f"... and {len(problems) - SHOWN:,} more; --list FILE names all")
    return lines


def counts(problems: Sequence[Problem]) -> str:
    """How many problems there are of each kind, in words."""
    found = Counter(problem.kind for problem in problems)
    return ", ".join(f"{found[kind]:,} {kind}" for kind in KINDS if found[kind])


def emptied(pictures: Sequence[Picture], problems: Sequence[Problem]) -> list[tuple[str, str]]:
    """(split, class) of which no picture is left without these."""
    gone = Counter(pictures[problem.picture][:2] for problem in problems)
    return [place for place, count in Counter(picture[:2] for picture in pictures).items() if gone[place] == count]
