"""What limits a run: the parts of a step's time, by leaving parts out.

A step of real training is timed beside the same step on one repeated batch (nothing to read), and beside the same
number of processes that do not exchange (same cores, same memory traffic); the optimizer's step is timed by itself on
given gradients.  The differences are the parts; what is left is compute.  A part so small that noise made it
negative is shown as 0.
"""

from launch.bench.measure import Arena, Timing

NAMES = {"compute": "compute", "exchange": "the network", "input": "input", "update": "the optimizer"}
UPDATES = 5  # timed optimizer steps


def time_update(arena: Arena, name: str) -> float:
    """Seconds of an optimizer step in a contestant whose processes exchange nothing; the slowest one's median."""
    answers = arena.ask(name, "update", UPDATES)
    return max(sorted(answer["update"])[UPDATES // 2] for answer in answers)


def parts(total: float, *, update: float, repeated: float | None = None, alone: float | None = None) -> dict:
    """Cut a step's time in parts.

    Args:
        total: seconds of a full step.
        update: seconds of an optimizer step.
        repeated: seconds of a step on one repeated batch; None where ``total`` is one.
        alone: seconds of a step on one repeated batch without exchange; None where there is no exchange.

    Returns:
        ``seconds`` and ``share`` of each part, and ``limit``, the largest part in words.
    """
    seconds = {}
    if repeated is not None:
        seconds["input"] = max(0.0, total - repeated)
    without_input = total - seconds.get("input", 0.0)
    if alone is not None:
        seconds["exchange"] = max(0.0, without_input - alone)
    seconds["update"] = min(update, without_input - seconds.get("exchange", 0.0))
    seconds["compute"] = total - sum(seconds.values())
    share = {name: part / total for name, part in seconds.items()}
    return {"seconds": seconds, "share": share, "limit": NAMES[max(share, key=share.get)]}


def limit(case: str, setting: str, contestant: str, total: Timing, **others) -> dict:
    """``parts`` for a table: the others are timings, or the seconds of an update."""
    values = {name: value.median if isinstance(value, Timing) else value for name, value in others.items()}
    return {"case": case, "setting": setting, "contestant": contestant, **parts(total.median, **values)}
