"""The data, opened once for all workers.

The chief alone lists folders, looks at files, reads labels and takes fingerprints.  Where the data consists of files,
the others get what it has found; what lies in arrays or shards they open for themselves.  All see by a few examples
that their host has the same.  What was found is kept in the run directory, for a run that goes on.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from data import BUILT_ONCE, DatasetConfig, Sources, Splits, arrange, hold_out, open_checked
from data.classes import choose_classes, read_classes
from data.files import listing
from data.files.listing import Listing
from data.files.source import FileSource
from distributed import control
from distributed.health import heartbeat
from distributed.strategies import Strategy
from distributed.world import WorldError
from launch.job.config import TrainConfig
from launch.job.logs.console import Console
from launch.job.preparation import same_data
from launch.job.preparation.stages import USER_ERRORS, together
from launch.job.run_directory import data_changes, resume
from launch.job.run_directory import held_out as held_out_files
from launch.job.user.data import open_data as open_user_data
from launch.job.user.given import UserCode


@dataclass(frozen=True)
class Opened:
    """The data of a run.

    Attributes:
        splits: what is trained and validated on.
        fingerprints: of each split, None for one that is missing.
        listing: on the chief, the files that were found, where the data consists of files.
        before: of ``create_batch_plan``.
        held_out: of ``DatasetConfig``.
    """

    splits: Splits
    fingerprints: list[str | None]
    listing: Listing | None = None
    before: tuple[int, int] | None = None
    held_out: frozenset[str] | None = None


def open_data(config: TrainConfig, strategy: Strategy, console: Console, code: UserCode) -> Opened:
    """Open the data, and see that all workers have the same.

    Raises:
        DataError, UserCodeError, WorldError: on all workers.
    """
    classes = together(strategy, lambda: read_classes(config.classes) if config.classes else None)
    found = held_out = None
    earlier = _on_chief(strategy, lambda: resume.peek(config.resume, config.run_dir))
    before = strategy.control.agree(earlier and _steps(earlier.state))
    if code.data is not None:
        splits = together(strategy, lambda: _open_users(config, code, classes))
    else:
        dataset = _dataset(config, classes)
        found = _on_chief(strategy, lambda: _find(dataset, config.run_dir, console))
        names = _on_chief(strategy, lambda: earlier and _held_out(earlier.run, dataset, found))
        names = strategy.control.agree(names and sorted(names))
        held_out = None if names is None else frozenset(names)
        sources = _share(dataset, strategy, console, found)
        splits = together(strategy, lambda: arrange(sources, replace(dataset, held_out=held_out)))
    fingerprints = together(strategy, lambda: _fingerprints(splits))
    names = ("training data", "validation data")
    control.check_agreement(strategy.control, dict(zip(names, fingerprints, strict=True)))
    found = found if isinstance(found, Listing) else None
    return Opened(splits, fingerprints, found, before and tuple(before), held_out)


def _steps(state: dict) -> list[int] | None:
    """Global batch and steps per epoch by a checkpoint's state; where it says none, whoever loads it says so."""
    found = [state.get("global_batch"), state.get("steps_per_epoch")]
    return found if all(isinstance(number, int) and number > 0 for number in found) else None


def _held_out(run: Path, dataset: DatasetConfig, found: Listing | Sources) -> frozenset[str] | None:
    """The names of the files that a run which is gone on with has held out: by its own record, else, where other files
    are there ``found`` now, by its listing. None where they are drawn as ever."""
    names = held_out_files.read(run, dataset)
    if names is None and dataset.validation_split and isinstance(found, Listing):
        before = listing.read(run / data_changes.FILE)
        if before is not None and _fingerprints(before.sources) != _fingerprints(found.sources):
            names = held_out_files.draw(before, dataset)
    return names


def _fingerprints(splits: Splits | Sources) -> list[str | None]:
    return [source and source.fingerprint() for source in splits]


def _on_chief(strategy: Strategy, function: Callable):
    """Call ``function`` on the chief, None elsewhere; its error is that of all, who would have had the same."""
    found = problem = None
    if strategy.is_chief:
        try:
            found = function()
        except USER_ERRORS as error:
            problem = error
    strategy.control.wait()
    said = strategy.control.agree(problem and str(problem))
    if said is not None:
        raise problem if strategy.world.size == 1 else WorldError(said)
    return found


def _open_users(config: TrainConfig, code: UserCode, classes: tuple[str, ...] | None) -> Splits:
    splits = open_user_data(code.data)
    splits = splits if classes is None else Splits(*choose_classes(*splits, classes))
    return hold_out(splits, config.seed, config.validation_split)


def _dataset(config: TrainConfig, classes: tuple[str, ...] | None) -> DatasetConfig:
    return DatasetConfig(
        config.dataset,
        config.data_dir and str(config.data_dir),
        seed=config.seed,
        validation_split=config.validation_split,
        classes=classes,
        features=(config.image_feature, config.label_feature),
        skip_unreadable=config.skip_unreadable,
        reindex=config.reindex,
    )


def _open(dataset: DatasetConfig, console: Console) -> Sources:
    def progress(what: str, done: int, total: int) -> None:
        heartbeat.beat()
        console.opening(what, done, total)

    return open_checked(dataset, progress)


def _find(dataset: DatasetConfig, run_dir: Path | None, console: Console) -> Listing | Sources:
    """What the chief finds, or has found when the run was started before."""
    place, classes = dataset.data_dir, dataset.classes
    key = [dataset.kind, place, place and os.path.abspath(place), classes and list(classes), dataset.skip_unreadable]
    kept = listing.read(run_dir / data_changes.FILE) if run_dir and not dataset.reindex else None
    if kept is not None and listing.is_current(kept, key) and all(map(_has_sizes, filter(None, kept.sources))):
        return kept
    sources = _open(dataset, console)
    console.stop()
    if isinstance(sources[0], FileSource):
        heartbeat.beat()
        return listing.pack(sources, key)
    return sources


def _has_sizes(source: FileSource) -> bool:
    """Whether a few files have the sizes that they had: one that was written over leaves its folder as it was."""
    indices = same_data.sample(source.fingerprint(), len(source))
    return source.glance(indices) == source.sizes[indices].tolist()


def _share(dataset: DatasetConfig, strategy: Strategy, console: Console, found: Listing | Sources | None) -> Sources:
    """The sources, on every worker; ``found`` is what the chief has found, None on the others."""
    packed = strategy.control.share(found.packed if isinstance(found, Listing) else b"")
    sources = found.sources if isinstance(found, Listing) else found
    if packed and sources is None:
        sources = listing.unpack(packed).sources
    # What opening builds is built by the chief, or where others do not see it by one process of each host.
    first = strategy.world.local_rank == 0 or dataset.kind not in BUILT_ONCE
    sources = together(strategy, lambda: sources or (_open(dataset, console) if first else None))
    sources = together(strategy, lambda: sources or _open(dataset, console))
    same_data.check(strategy, sources, lambda function: together(strategy, function))
    return sources
