"""One process on real images, whole epochs: Lockstep and Keras' fit with a per-element pipeline.

Both read the same arrays, shuffle, crop and flip at random, and train with SGD and momentum.  A turn is one epoch with
all that an epoch's end brings: on Lockstep's side also the checkpoint, which the bare fit does not write.  The time
from an epoch's last step to the next one's first is shown without the time that saving blocks.
"""

from itertools import groupby
from statistics import median

from launch.bench.cases import real_data
from launch.bench.contestants import keras_fit, lockstep
from launch.bench.limits import limit, time_update
from launch.bench.measure import Arena, speedup
from launch.bench.report import Result
from launch.job.config import ConfigError


def run(arguments, arena: Arena) -> Result:
    """Compare per model; all precisions take turns together."""
    result = Result("images_per_second")
    if (most := max(case.batch for case in arguments.cases)) > arguments.images:
        raise ConfigError(f"--images {arguments.images} is less than one batch of {most}; raise it")
    data = real_data(arguments.dataset, arguments.data_dir, arguments.images, arena.folder)
    for _, cases in groupby(arguments.cases, key=lambda case: (case.model, case.batch)):
        _compare(list(cases), data, arguments, arena, result)
        arena.leave()
    return result


def _compare(cases, data, arguments, arena: Arena, result: Result) -> None:
    timings, first = {}, cases[0]
    for case in cases:
        ours, theirs = f"lockstep {case.precision}", f"keras fit {case.precision}"
        own = lockstep(ours, case, data, arena.folder, "--augment", arguments.augment)
        timings[ours] = arena.enter(own)
        flags = [] if arguments.augment == "none" else ["--augment"]
        timings[theirs] = arena.enter(keras_fit(theirs, case, data, *flags))
    repeated = f"one batch {first.precision}"
    timings[repeated] = arena.enter(lockstep(repeated, first, data, arena.folder, "--repeat-batch"))
    steps = arguments.images // first.batch
    arena.rounds(arguments.rounds, steps=steps)
    for case in cases:
        ours, theirs = timings[f"lockstep {case.precision}"], timings[f"keras fit {case.precision}"]
        columns = ours.row() | speedup(ours, theirs) | {"ratio_to": "keras fit"}
        gaps = [notes["between_epochs"] - notes.get("saving", 0.0) for notes in ours.notes]
        columns["between_epochs_ms"] = 1000 * median(gaps)
        result.add(case.label, "", "lockstep", columns)
        result.add(case.label, "", "keras fit", theirs.row())
        if case.precision != first.precision:
            ratio = speedup(ours, timings[f"keras fit {first.precision}"])["ratio"]
            result.notes.append(f"{case.label}: lockstep is {ratio:.2f} times keras fit in {first.precision}")
    own = timings[f"lockstep {first.precision}"]
    update = time_update(arena, repeated)
    saving = median(notes.get("saving", 0.0) for notes in own.notes) / steps
    parts = limit(first.label, "", "lockstep", own, saving=saving, repeated=timings[repeated], update=update)
    result.limits.append(parts)
