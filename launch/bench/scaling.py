"""One rank on one core, N ranks on N cores, one repeated batch per rank: how much N ranks do of N times one.

``without exchange`` are N processes of Lockstep that know nothing of each other on the same cores: what they lose
against N times one is lost to shared memory, not to the exchange.
"""

from launch.bench.cases import Case, made_up_data
from launch.bench.contestants import all_cores, alone, horovod_manual, lockstep
from launch.bench.limits import limit_of_ranks, time_update
from launch.bench.measure import Arena, speedup
from launch.bench.report import Result
from launch.job.config import ConfigError

REPEAT = "--repeat-batch"
ALONE, BY_HAND = "without exchange", "horovod by hand"


def run(arguments, arena: Arena) -> Result:
    """Compare per model; the numbers of ranks are 2, 4, 8 ... and the most that were asked for."""
    most, cores = arguments.ranks, all_cores()
    if most > len(cores) or most < 2:
        raise ConfigError(f"--ranks {most} does not fit: each rank takes one of {len(cores)} cores, and 2 are needed")
    numbers = sorted({most, *(2**power for power in range(1, most.bit_length()) if 2**power <= most)})
    result = Result("images_per_second", curve=True)
    for case in arguments.cases:
        _compare(case, numbers, cores, arguments, arena, result)
        arena.leave()
    return result


def _compare(case: Case, numbers: list[int], cores: list[int], arguments, arena: Arena, result: Result) -> None:
    data = made_up_data(case.classes, arena.folder)
    one = arena.enter(lockstep("lockstep 1", case, data, arena.folder, REPEAT, cores=cores[:1]))
    timings = {}
    for ranks in numbers:
        mine, place = cores[:ranks], {"ranks": ranks, "cores": cores[:ranks]}
        separate = [[core] for core in mine]
        for key, name, contestant in (
            ("", "lockstep", lockstep(f"lockstep {ranks}", case, data, arena.folder, REPEAT, **place)),
            ("grouped", BY_HAND, horovod_manual(f"horovod {ranks}", case, data, REPEAT, "--grouped", **place)),
            ("alone", ALONE, alone(f"alone {ranks}", case, data, arena.folder, REPEAT, cores=separate)),
        ):
            if not key or key in arguments.beside:
                timings[name, ranks] = arena.enter(contestant)
    arena.rounds(arguments.rounds, seconds=arguments.turn_seconds)
    columns = {"ranks": 1, "ratio": 1.0, "ratio_to": "one rank"}
    result.add(case.label, "1 rank", "lockstep", one.row() | columns)
    for (name, ranks), timing in timings.items():
        times = speedup(timing, one)
        columns = {"ranks": ranks, "ratio_to": "one rank", "efficiency": times["ratio"] / ranks} | times
        result.add(case.label, f"{ranks} ranks", name, timing.row() | columns)
    for ranks in numbers:
        own, hand, free = (timings.get((name, ranks)) for name in ("lockstep", BY_HAND, ALONE))
        if hand:
            times = speedup(own, hand)
            low, high = times["ratio_spread"]
            beside = f"{times['ratio']:.2f} ({low:.2f}-{high:.2f}) times {BY_HAND}"
            result.notes.append(f"{case.label}, {ranks} ranks: lockstep is {beside}")
        update = time_update(arena, f"alone {ranks}") if free else None
        if free:
            result.limits.append(limit_of_ranks(case.label, f"{ranks} ranks", "lockstep", own, free, update))
