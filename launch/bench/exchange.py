"""Two ranks over links of several rates: time and bytes of a step, by Lockstep's exchange and by hand-written Horovod.

The bytes are those that the link's ends counted, headers included, per rank and step; beside them stands a model of the
payload: what all-reducing every gradient moves, and what that is with each dense layer's way as the planner chose it.
Horovod's ranks also ask each other about a thousand times a second whether there is something to do: that is measured
on idle ranks and shown apart, since it grows with time and not with steps.
"""

from launch.bench.cases import Case, made_up_data
from launch.bench.contestants import all_cores, alone, horovod_manual, lockstep
from launch.bench.limits import limit_of_ranks, time_update
from launch.bench.links import Link
from launch.bench.measure import Arena, Timing, speedup
from launch.bench.report import Result
from launch.job.config import ConfigError

RANKS = 2
IDLE = 1.0  # seconds
REPEAT = "--repeat-batch"
OWN = "lockstep auto"
SUMMED = "lockstep allreduce"
ALONE, BY_HAND = "without exchange", "horovod by hand"
BITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}


def run(arguments, arena: Arena) -> Result:
    """Compare per model and rate; the contestants live on while the link changes."""
    rates = {rate.strip(): bits_per_second(rate.strip()) for rate in arguments.rates.split(",")}
    result = Result("ms_per_step")
    with Link(arena.folder, all_cores()) as link:
        try:
            for case in arguments.cases:
                _compare(case, rates, arguments, arena, link, result)
                arena.leave()
        finally:
            arena.leave()  # before the link goes
    return result


def bits_per_second(rate: str) -> float:
    """``1gbit`` -> 1e9; ``none`` -> infinite.

    Raises:
        ConfigError: anything else.
    """
    number, unit = rate[:-4], rate[-4:]
    if rate == "none":
        return float("inf")
    if unit not in BITS or not number.isdecimal() or int(number) < 1:
        raise ConfigError(f"--rates has {rate!r}; expected rates such as 100mbit or 1gbit, or none")
    return int(number) * BITS[unit]


def all_reduce_bytes(parameters: int) -> float:
    """What a rank sends per step if every gradient is all-reduced: a ring sends 2 (N - 1) / N n bytes for n."""
    return 2 * (RANKS - 1) / RANKS * 4 * parameters


def _compare(case: Case, rates: dict, arguments, arena: Arena, link: Link, result: Result) -> None:
    data, place = made_up_data(case.classes, arena.folder), {"ranks": RANKS, "launcher": link.launcher}
    beside, timings = arguments.beside, {}
    link.shape("none")
    for scheme in ("auto", "factors", "allreduce"):
        if (name := f"lockstep {scheme}") == OWN or scheme in beside:
            flags = (REPEAT, "--exchange", scheme)
            timings[name] = arena.enter(lockstep(name, case, data, arena.folder, *flags, **place))
    for key, name, flags in (("grouped", BY_HAND, ["--grouped"]), ("per-tensor", f"{BY_HAND}, per tensor", [])):
        if key in beside:
            timings[name] = arena.enter(horovod_manual(name, case, data, REPEAT, *flags, **place))
    if "alone" in beside:
        cores = [[core] for core in (all_cores() * RANKS)[:RANKS]]
        timings[ALONE] = arena.enter(alone(ALONE, case, data, arena.folder, REPEAT, cores=cores))
    update = time_update(arena, ALONE) if ALONE in timings else None
    plain = all_reduce_bytes(timings[OWN].facts["parameters"])
    for rate, bits in rates.items():
        link.shape(rate)
        slow = 8 * plain / bits > arguments.longest_step
        names = [name for name in timings if not slow or name in (OWN, "lockstep factors", ALONE)]
        if slow:
            result.notes.append(
                f"{case.label}, {rate}: a plain all-reduce would take {8 * plain / bits:.0f} s a step at "
                "least and was left out (--longest-step)"
            )
        chatter = arena.idle(OWN, IDLE, link.sent) / RANKS
        arena.rounds(arguments.rounds, names=names, seconds=arguments.turn_seconds, meter=link.sent)
        for name in names:
            result.add(case.label, rate, name, _columns(name, timings, names, plain, chatter))
        if rate == "none" and SUMMED in names and timings[OWN].facts["predicted_saving"] is not None:
            # What the planner has measured, at the start, was the link without a limit.
            seen = timings[SUMMED].median - timings[OWN].median
            result.notes.append(
                f"{case.label}: the planner expected to save {1000 * timings[OWN].facts['predicted_saving']:.1f} ms a "
                f"step against a plain all-reduce; it saved {1000 * seen:.1f} ms"
            )
        if update is not None:
            result.limits.append(limit_of_ranks(case.label, rate, OWN, timings[OWN], timings[ALONE], update))


def _columns(name: str, timings: dict, names: list[str], plain: float, chatter: float) -> dict:
    timing = timings[name]
    columns = timing.row()
    if name == ALONE:
        return columns
    metered, awake = _middle(timing)
    columns["mb_per_step"], columns["mb_control"] = metered / RANKS / 1e6, chatter * awake / 1e6
    columns["mb_model"] = (plain - timing.facts.get("saved_bytes", 0)) / 1e6
    if name != BY_HAND and BY_HAND in names:
        by_hand = timings[BY_HAND]
        columns |= speedup(timing, by_hand) | {"ratio_to": BY_HAND}
        columns["fewer_bytes"] = _middle(by_hand)[0] / metered
    return columns


def _middle(timing: Timing) -> tuple[float, float]:
    """Bytes of all ranks and seconds awake, per step, of one turn: they belong together, medians of both do not."""
    return sorted(zip(timing.metered, timing.awake, strict=True))[len(timing.metered) // 2]
