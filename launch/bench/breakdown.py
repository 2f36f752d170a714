"""What a step's time consists of, and what limits it, by leaving parts out.

A step of real training is timed beside the same step on one repeated batch (nothing to read), and beside the same
number of processes that do not exchange (same cores, same memory traffic); the optimizer's step is timed by itself on
given gradients.  The differences are the parts; what is left is compute.  So the exchange's part holds what it makes
the ranks multiply beyond their share and what waiting costs, and the input's what an epoch's end takes besides saving.
A part so small that noise made it negative is shown as 0.
"""

from launch.bench.runner import Running, Timing

WORDS = {"update": "the optimizer", "exchange": "the network"}  # others are called as they are
UPDATES = 5  # timed optimizer steps


def time_update(running: Running) -> float:
    """Seconds of an optimizer step in a contestant whose processes exchange nothing; the slowest one's median."""
    return max(sorted(answer["update"])[UPDATES // 2] for answer in running.ask("update", UPDATES))


def parts(
    total: float, *, update: float, saving: float = 0.0, repeated: float | None = None, alone: float | None = None
) -> dict:
    """Cut a step's time in parts; all times are seconds.

    Args:
        total: a full step.
        update: an optimizer step.
        saving: saving, per step.
        repeated: a step on one repeated batch; None where ``total`` is one.
        alone: a step on one repeated batch without exchange; None where there is no exchange.

    Returns:
        ``seconds`` and ``share`` of each part, and ``limit``, the largest part in words.
    """
    differences = {"saving": saving} if saving else {}
    if repeated is not None:
        differences["input"] = total - saving - repeated
    if alone is not None:
        differences["exchange"] = (total if repeated is None else repeated) - alone
    seconds, left = {}, total
    for name, part in (differences | {"update": update}).items():
        seconds[name] = min(max(0.0, part), left)
        left -= seconds[name]
    seconds["compute"] = left
    largest = max(seconds, key=seconds.get)
    share = {name: part / total for name, part in seconds.items()}
    return {"seconds": seconds, "share": share, "limit": WORDS.get(largest, largest)}


def parts_of_ranks(ranks: Timing, alone: Timing, update: float) -> dict:
    """``parts`` of ranks that exchange, beside as many that do not.

    Where layers are split each rank updates its part of them alone, so that without exchange a step would take less
    than ``alone`` by the rest of its update.
    """
    spared = update * (1 - ranks.facts["updated_share"])
    return parts(ranks.median, alone=alone.median - spared, update=update - spared)
