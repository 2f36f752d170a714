"""What a run was trained on, kept so that one that goes on with other data can say what differs."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from data import DatasetConfig, Splits, arrange
from data.datasets import DataError, Source, Subset
from data.files import listing
from data.files.listing import Listing
from data.messages import few
from distributed.checkpoint import disk
from distributed.checkpoint.commit import CheckpointError
from launch.job.logs.console import Console
from launch.job.run_directory import held_out

FILE = "data_files.zip"
SHOWN = 5  # files that are named of each kind of difference
SHOWN_CLASSES = 20
_WORDS = {"train": "training", "val": "validation"}


def describe(splits: Splits, fingerprints: list) -> dict:
    """What a checkpoint says of the data: by split, its fingerprint and how many pictures each class has."""
    return {
        split: source and {"sha256": fingerprint, "counts": _counts(source)}
        for split, source, fingerprint in zip(_WORDS, splits, fingerprints, strict=True)
    }


def _counts(source: Source) -> dict[str, int]:
    counts = np.bincount(source.labels, minlength=len(source.classes)).tolist()
    return dict(zip(source.classes, counts, strict=True))


def keep(found: Listing | None, directory: Path, console: Console) -> None:
    """Leave what was found of the files in the run directory, where the data consists of files; a disk that does not
    take it costs a warning."""
    if found is not None:
        try:
            with disk.whole_file(directory / FILE) as beside:
                beside.write_bytes(found.packed)
        except OSError as error:
            console.warn(f"{directory / FILE} cannot be written ({error.strerror}); training goes on")


def _files(splits: Splits, data_dir: Path | None) -> dict[tuple[str, str], int]:
    """(split, place as seen from the data) -> size in bytes; nothing for data that are no files."""
    above = f"{data_dir}/"

    def seen(place: str) -> str:
        inside = place.startswith(above)
        return place[len(above) :] if inside else os.path.relpath(place, data_dir) if data_dir else place

    return {
        (split, seen(place)): size
        for split, source in zip(_WORDS, splits, strict=True)
        if source is not None
        for place, size in source.files()
    }


def run_of(checkpoint: Path) -> Path:
    """The run directory that a checkpoint lies in, or the folder that it was copied to."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def check(
    path: Path, state: dict, facts: dict, splits: Splits, data_dir: Path | None, *, accepted: bool
) -> list[str]:
    """What of the data is not as it was, in words.

    Args:
        path: the checkpoint.
        state, facts: what it says, and what this run would write into its own.

    Raises:
        CheckpointError: something differs that was not ``accepted``, or that makes other epochs; or the classes differ,
            which no weights fit.
    """
    _refuse_other_classes(path, state, facts, accepted=accepted)
    if "data" in state:
        run = run_of(path)
        said = differences(state["data"], facts["data"], lambda: _before(run, state), lambda: _files(splits, data_dir))
        if said and state["data"].get("val") != facts["data"]["val"] and _is_drawn(splits):
            said.append("validation is drawn anew, also from what was trained on before")
    elif state["dataset"] != facts["dataset"]:
        said = [f"training: SHA-256 was {state['dataset'][:12]}, is {facts['dataset'][:12]}"]
    else:
        said = []
    if said and not accepted:
        raise CheckpointError(
            f"{path} was made with other data: {'; '.join(said)}; bring that back, go on with --data-changed accept, "
            "or begin anew in another --run-dir"
        )
    before, now = state["steps_per_epoch"], facts["steps_per_epoch"]
    if before != now:
        raise CheckpointError(
            f"{path} was made with steps per epoch {before}, this run has {now}; use --steps-per-epoch {before}, or "
            "begin anew in another --run-dir"
        )
    return said


def _is_drawn(splits: Splits) -> bool:
    """Whether validation is a part of training examples that have no names, as arrays and shards have none."""
    train, validation = splits
    both = isinstance(train, Subset) and isinstance(validation, Subset) and train.source is validation.source
    return both and next(train.files(), None) is None


def _refuse_other_classes(path: Path, state: dict, facts: dict, *, accepted: bool) -> None:
    """Raise ``CheckpointError`` where a label does not mean what it meant: weights load by their shapes alone, and
    would name the wrong class."""
    was, now = state.get("record", {}).get("classes"), list(facts["record"]["classes"])
    if was is None or was == now:
        return  # a run of before 0.2 has no names
    gone, new = (few([repr(name) for name in some if name not in others]) for some, others in ((was, now), (now, was)))
    if gone:
        remedy = f"give {gone} back, by that name"
    else:
        by_file = len(was) > SHOWN_CLASSES or any("," in name for name in was)
        order = "FILE, which has these names in this order, one per line" if by_file else ",".join(was)
        # Also where no example is another, a data set of chosen classes is not the one they were chosen from.
        remedy = f"go on with --classes {order}" + ("" if accepted else ", and --data-changed accept")
    what = [gone and f"{gone} gone", new and f"{new} new", not gone and not new and "in another order"]
    raise CheckpointError(
        f"{path} was made with the classes {few(was, SHOWN_CLASSES)}, this run has {few(now, SHOWN_CLASSES)} "
        f"({', '.join(filter(None, what))}), and its weights would name the wrong ones; {remedy}, or begin a new run "
        f"in another --run-dir, with --weights {path} for example"
    )


def differences(was: dict, now: dict, list_before: Callable, list_now: Callable) -> list[str]:
    """What differs, in words, split by split; nothing where none does or nobody knows what was.

    Args:
        was, now: what ``describe`` gave then and now.
        list_before, list_now: give the files of then and now, as ``_files`` does; None where nobody knows them.
    """
    changed = [split for split in _WORDS if split in was and was[split] != now[split]]
    if not changed:
        return []
    before, files = list_before(), list_now()
    said = []
    for split in changed:
        parts = [] if before is None else list(_of_files(split, before, files))
        said.append(f"{_WORDS[split]}: {', '.join([*parts, *_of_counts(was[split], now[split])]) or 'other contents'}")
    if before is not None and "val" in changed:
        seen = {name for split, name in before if split == "train"}
        trained = sum(split == "val" and name in seen for split, name in files)
        if trained:
            said.append(f"{trained:,} pictures that are validated now were trained on before")
    return said


def _before(directory: Path, state: dict) -> dict[tuple[str, str], int] | None:
    """The files of the run that made a checkpoint with this state; None where it has left no listing."""
    found = listing.read(directory / FILE)
    if found is None:
        return None  # a run of before has none, and its counts say enough
    _, data_dir, *_ = found.key
    then, classes = state["configuration"], state["record"]["classes"]
    try:
        dataset = DatasetConfig(
            found.sources[0].name,
            data_dir,
            seed=then["seed"],
            validation_split=then["validation_split"],
            classes=classes if then["classes"] else None,
        )
        splits = arrange(found.sources, replace(dataset, held_out=held_out.read(directory, dataset)))
    except DataError:
        return None  # it is of other settings than the checkpoint
    return _files(splits, data_dir and Path(data_dir))


def _of_files(split: str, before: dict, files: dict) -> Iterator[str]:
    was, now = ({name: size for (of, name), size in some.items() if of == split} for some in (before, files))
    fewer, more = sorted(was.keys() - now.keys()), sorted(now.keys() - was.keys())
    other = sorted(name for name in was.keys() & now.keys() if was[name] != now[name])
    for names, words in ((fewer, "fewer"), (more, "more"), (other, "of another size")):
        if names:
            rest = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
            yield f"{len(names):,} file{'s' * (len(names) > 1)} {words}: {' '.join(names[:SHOWN])}{rest}"


def _of_counts(was: dict | None, now: dict | None) -> Iterator[str]:
    if was is None or now is None:
        yield "there was none" if was is None else "there is none any more"
        return
    before, after = Counter(was["counts"]), Counter(now["counts"])
    names = dict.fromkeys([*was["counts"], *now["counts"]])
    changed = [name for name in names if before[name] != after[name]]
    yield from (f"{name} {before[name]:,} -> {after[name]:,}" for name in changed[:SHOWN])
    if len(changed) > SHOWN:
        yield f"and {len(changed) - SHOWN:,} more classes"
