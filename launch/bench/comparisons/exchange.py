"""Two ranks over links of several rates: time and bytes of a step, by Lockstep's exchange and by hand-written Horovod.

The bytes are those that the link's ends counted, headers included, per rank and step; beside them stands a model of the
payload: what all-reducing every gradient moves, and what that is with each dense layer's way as the cost model chose.
Horovod's ranks also ask each other about a thousand times a second whether there is something to do: that is measured
on idle ranks and shown apart, since it grows with time and not with steps.
"""

from launch.bench.comparisons.one_host import ALONE, BY_HAND
from launch.bench.contestants import Case, Job, Place, all_cores
from launch.bench.links import Link, bits_per_second
from launch.bench.report import Result
from launch.bench.runner import Runner
from launch.bench.timing import Timing, parts_of_ranks

RANKS = 2
IDLE = 1.0  # seconds
OURS, FACTORS, SUMMED = "lockstep auto", "lockstep factors", "lockstep allreduce"


def exchange(arguments, runner: Runner) -> Result:
    """Two ranks over slow links: Lockstep and hand-written Horovod; time and bytes (Linux, root).

    The contestants live on while the link changes.
    """
    rates = {rate.strip(): bits_per_second(rate.strip()) for rate in arguments.rates.split(",")}
    result = Result("ms_per_step")
    with Link(runner.folder, all_cores()) as link:
        try:
            for case in arguments.cases:
                _compare(case, rates, arguments, runner, link, result)
                runner.end_all()
        finally:
            runner.end_all()  # before the link goes
    return result


def all_reduce_bytes(parameters: int) -> float:
    """What a rank sends per step if every gradient is all-reduced: a ring sends 2 (N - 1) / N n bytes for n."""
    return 2 * (RANKS - 1) / RANKS * 4 * parameters


def _compare(case: Case, rates: dict, arguments, runner: Runner, link: Link, result: Result) -> None:
    job, place = Job(case, runner.folder), Place(RANKS, launcher=link.launcher)
    those = {
        "factors": job.lockstep(FACTORS, "--exchange", "factors", place=place),
        "allreduce": job.lockstep(SUMMED, "--exchange", "allreduce", place=place),
        "grouped": job.by_hand(BY_HAND, "--grouped", place=place),
        "per-tensor": job.by_hand(f"{BY_HAND}, per tensor", place=place),
        "alone": job.alone(ALONE, (all_cores() * RANKS)[:RANKS]),
    }
    chosen = [job.lockstep(OURS, "--exchange", "auto", place=place)]
    chosen += [contestant for word, contestant in those.items() if word in arguments.beside]
    link.shape("none")
    timings = {contestant.name: runner.start(contestant) for contestant in chosen}
    ours, alone = timings[OURS], timings.get(ALONE)
    update, plain = alone and alone.time_update(), all_reduce_bytes(ours.facts["parameters"])
    for rate, bits in rates.items():
        link.shape(rate)
        among = timings
        if (least := 8 * plain / bits) > arguments.longest_step:
            among = {name: timing for name, timing in timings.items() if name in (OURS, FACTORS, ALONE)}
            words = f"a plain all-reduce would take {least:.0f} s a step at least and was left out (--longest-step)"
            result.notes.append(f"{case.label}, {rate}: {words}")
        idle_talk = ours.idle(IDLE, link.sent) / RANKS
        turns = {"seconds": arguments.turn_seconds, "among": list(among.values()), "meter": link.sent}
        runner.rounds(arguments.rounds, **turns)
        for name, timing in among.items():
            columns = {} if timing is alone else _columns(timing, among.get(BY_HAND), plain, idle_talk)
            if alone and timing is not alone:
                columns["of_alone"] = alone.median / timing.median
            result.add(case.label, rate, name, timing.row() | columns)
        if rate == "none" and SUMMED in among and ours.facts["predicted_saving"] is not None:
            # What the cost model goes by was measured at the start, on the link without a limit.
            expected, saved = ours.facts["predicted_saving"], among[SUMMED].median - ours.median
            words = f"the planner expected to save {1000 * expected:.1f} ms a step against a plain all-reduce"
            result.notes.append(f"{case.label}: {words}; it saved {1000 * saved:.1f} ms")
        if alone:
            result.add_limit(case.label, rate, OURS, parts_of_ranks(ours, alone, update))


def _columns(timing: Timing, by_hand: Timing | None, plain: float, idle_talk: float) -> dict:
    metered, awake = _middle(timing)
    columns = {"mb_per_step": metered / RANKS / 1e6, "mb_control": idle_talk * awake / 1e6}
    columns["mb_model"] = (plain - timing.facts.get("saved_bytes", 0)) / 1e6
    if by_hand and timing is not by_hand:
        columns |= timing.speedup(by_hand) | {"ratio_to": BY_HAND, "fewer_bytes": _middle(by_hand)[0] / metered}
    return columns


def _middle(timing: Timing) -> tuple[float, float]:
    """Bytes of all ranks and the seconds in which they were awake, per step, of one turn: they belong together, medians
    of both do not."""
    return sorted((sample.metered, sample.awake) for sample in timing.samples)[len(timing.samples) // 2]
