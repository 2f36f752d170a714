"""One repeated batch: what Lockstep's step costs beside that of a bare fit, in one process and mirrored on devices."""

from launch.bench.cases import made_up_data
from launch.bench.contestants import keras_fit, lockstep, mirrored_fit
from launch.bench.limits import limit, time_update
from launch.bench.measure import Arena, speedup
from launch.bench.report import Result

REPEAT = "--repeat-batch"


def run(arguments, arena: Arena) -> Result:
    """Compare per model."""
    result = Result("images_per_second")
    for case in arguments.cases:
        data = made_up_data(case.classes, arena.folder)
        pairs = {"one process": ("lockstep", "keras fit")}
        own = arena.enter(lockstep("lockstep", case, data, arena.folder, REPEAT))
        timings = {"lockstep": own, "keras fit": arena.enter(keras_fit("keras fit", case, data, REPEAT))}
        if (devices := arguments.cpu_devices) > 1:
            pairs[f"{devices} devices"] = ours, theirs = "lockstep mirrored", "mirrored fit"
            timings[ours] = arena.enter(lockstep(ours, case, data, arena.folder, REPEAT, devices=devices))
            timings[theirs] = arena.enter(mirrored_fit(theirs, case, data, REPEAT, devices=devices))
        arena.rounds(arguments.rounds, seconds=arguments.turn_seconds)
        for setting, (ours, theirs) in pairs.items():
            columns = timings[ours].row() | speedup(timings[ours], timings[theirs]) | {"ratio_to": theirs}
            result.add(case.label, setting, ours, columns)
            result.add(case.label, setting, theirs, timings[theirs].row())
        result.limits.append(limit(case.label, "", "lockstep", own, update=time_update(arena, "lockstep")))
        arena.leave()
    return result
