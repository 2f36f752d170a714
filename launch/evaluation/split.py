"""What is evaluated: a split of the run's own data, or other data."""

import argparse
import os
from dataclasses import dataclass

from data import DatasetConfig, hold_out, load
from data.datasets import DataError, Progress, Source
from data.files import listing
from data.splits import Part, as_files, choose, open_part
from launch.job.config import ConfigError, choices
from launch.job.preparation import same_data
from launch.job.user import code as user_code
from launch.job.user.data import open_data
from launch.trained.load import Found
from launch.trained.program import Workers


@dataclass(frozen=True)
class Data:
    """What is evaluated.

    Attributes:
        part: the split, with the run's labels.
        dataset: its kind, a key of ``data.KINDS`` or FILE.py:FUNCTION.
        data_dir: where it lies, or None.
        own: whether it is the data that the run was trained on, be it in another place than then.
    """

    part: Part
    dataset: str
    data_dir: str | None
    own: bool


def open_together(options: argparse.Namespace, found: Found, workers: Workers) -> Data:
    """`open_evaluated` on all workers: the chief alone lists and looks at files, the others get what it has found and
    see by a few that their host has the same."""
    strategy, control = workers.strategy, workers.strategy.control

    def look():
        if not strategy.is_chief:
            return None, b""
        data = open_evaluated(options, found, workers.opening)
        files = as_files(data.part.source)
        return data, listing.pack([files], []).packed if files else b""

    data, packed = workers.together(look)
    workers.console.stop()
    packed = control.share(packed)
    split, *about = control.agree(data and [data.part.split, data.dataset, data.data_dir, data.own])
    if packed and data is None:
        data = Data(Part(listing.unpack(packed).sources[0], split), *about)
    data = workers.together(lambda: data or open_evaluated(options, found))
    same_data.check(strategy, [data.part.source], workers.together)
    return data


def open_evaluated(options: argparse.Namespace, found: Found, progress: Progress | None = None) -> Data:
    """Open the split that is asked for.

    Raises:
        ConfigError, DataError, UserCodeError: it is not there, or does not fit the run.
    """
    config, record = found.config, found.record
    own = options.dataset is None and options.data_dir is None
    # Data that came as a Python object is named in the record, but not in the settings.
    if own and record.dataset != config.dataset and not user_code.is_reference(config.dataset):
        raise ConfigError(
            f"{found.path} was trained on Python objects ({record.dataset}), which nobody can open again; give "
            "--data-dir and --dataset"
        )
    dataset = options.dataset or (config.dataset if own or config.data_dir else "image_folder")
    if not user_code.is_reference(dataset) and dataset not in choices("dataset"):
        raise ConfigError(
            f"--dataset {dataset} is unknown; choose one of {', '.join(choices('dataset'))}, or give FILE.py:FUNCTION"
        )
    data_dir = options.data_dir or (str(config.data_dir) if own and config.data_dir else None)
    if user_code.is_reference(dataset):
        given = open_data(user_code.load_function(dataset, "--dataset"))
        try:
            held_out = hold_out(given, config.seed, config.validation_split)
            own = own or held_out.train.fingerprint() == record.data_sha256
        except DataError:
            if own:
                raise
        part = choose(held_out if own else given, options.split, record.classes, dataset, own=own)
        return Data(part, dataset, None, own)
    if own and data_dir and not os.path.exists(data_dir):
        seen = "" if os.path.isabs(data_dir) else f" (seen from {os.getcwd()})"
        raise ConfigError(f"the data of {found.path} is not in {data_dir}{seen}; say with --data-dir where it lies now")
    own = own or dataset == record.dataset and _holds_the_training_data(data_dir, found, progress)
    if own:
        opened = found.dataset(data_dir)
    else:
        features = (config.image_feature, config.label_feature) if dataset == config.dataset else (None, None)
        opened = DatasetConfig(dataset, data_dir, seed=config.seed, validation_split=0, features=features)
    part = open_part(opened, options.split, classes=record.classes, own=own, progress=progress)
    return Data(part, dataset, data_dir, own)


def _holds_the_training_data(data_dir: str | None, found: Found, progress: Progress | None) -> bool:
    try:
        return load(found.dataset(data_dir), progress).train.fingerprint() == found.record.data_sha256
    except DataError:
        return False


def open_training(found: Found, data: Data, progress: Progress | None = None) -> Source:
    """The pictures that the run was trained on; where they lie is known from ``data`` if that is the run's own.

    Raises:
        ConfigError, DataError, UserCodeError: they are no longer there.
    """
    config = found.config
    if user_code.is_reference(config.dataset):
        splits = open_data(user_code.load_function(config.dataset, "--dataset"))
        return hold_out(splits, config.seed, config.validation_split).train
    if found.record.dataset != config.dataset:
        raise ConfigError(f"the run was trained on Python objects ({found.record.dataset})")
    place = data.data_dir if data.own else config.data_dir and str(config.data_dir)
    return load(found.dataset(place), progress).train
