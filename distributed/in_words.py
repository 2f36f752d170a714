"""Many ranks in few words: however many there are, a sentence about them stays within five lines of 120 letters."""

import json
from collections.abc import Sequence

VALUES, RUNS, LETTERS = 4, 4, 64  # that are shown: of a sentence's values, of a value's ranks, of a value


def by_value(values: Sequence, one: str = "rank") -> str:
    """Who has which value, ``ranks 0-255, 257-511: a, rank 256: b``.

    Args:
        values: JSON values by rank.
        one: what they are the values of.
    """
    groups = list(ranks_by_value(values).values())
    shown = [f"{ranks_in_words(ranks, one)}: {_shortened(str(values[ranks[0]]))}" for ranks in groups[:VALUES]]
    if more := len(groups) - len(shown):
        shown.append(f"and {more} further value{'s' * (more > 1)}")
    return ", ".join(shown)


def ranks_by_value(values: Sequence) -> dict[str, list[int]]:
    """The ranks that have each value, which stands as JSON; in order of their first ranks."""
    ranks: dict[str, list[int]] = {}
    for rank, value in enumerate(values):
        ranks.setdefault(json.dumps(value), []).append(rank)
    return ranks


def ranks_in_words(ranks: Sequence[int], one: str = "rank") -> str:
    """``rank 3``, or ``ranks 0-2, 5``, of ranks in ascending order; ``one`` is what a single one is called."""
    return f"{one}{'s' * (len(ranks) > 1)} {in_runs(ranks, RUNS)}"


def in_runs(numbers: Sequence[int], most: int | None = None) -> str:
    """``0-2, 5`` of numbers in ascending order; those that are not in the first ``most`` runs are only counted."""
    runs = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs[:most])
    more = sum(last - first + 1 for first, last in runs[len(runs) if most is None else most :])
    return f"{shown} and {more} more" if more else shown


def _shortened(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 3]}..."
