"""What is evaluated: a split of the run's own data, or other data."""

import argparse
from dataclasses import dataclass

from data import hold_out, load
from data.datasets import Source
from data.splits import Part, choose, open_part
from launch.job.config import ConfigError, choices
from launch.job.user import code as user_code
from launch.job.user.data import open_data
from launch.trained.load import Found


@dataclass(frozen=True)
class Data:
    """What is evaluated.

    Attributes:
        part: the split, with the run's labels.
        dataset: its kind, a key of ``data.SOURCES`` or FILE.py:FUNCTION.
        data_dir: where it lies, or None.
        own: whether it is the data that the run was trained on.
    """

    part: Part
    dataset: str
    data_dir: str | None
    own: bool


def open_evaluated(options: argparse.Namespace, found: Found) -> Data:
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
        splits = open_data(user_code.load_function(dataset, "--dataset"))
        splits = hold_out(splits, config.seed, config.validation_split) if own else splits
        part = choose(splits, options.split, record.classes, dataset, own=own)
        return Data(part, dataset, None, own)
    part = open_part(
        dataset,
        data_dir,
        options.split,
        seed=config.seed,
        validation_split=config.validation_split,
        classes=record.classes,
        own=own,
    )
    return Data(part, dataset, data_dir, own)


def open_training(found: Found) -> Source:
    """The pictures that the run was trained on.

    Raises:
        ConfigError, DataError, UserCodeError: they are no longer there.
    """
    config = found.config
    if user_code.is_reference(config.dataset):
        splits = open_data(user_code.load_function(config.dataset, "--dataset"))
        return hold_out(splits, config.seed, config.validation_split).train
    if found.record.dataset != config.dataset:
        raise ConfigError(f"the run was trained on Python objects ({found.record.dataset})")
    data_dir = config.data_dir and str(config.data_dir)
    return load(config.dataset, data_dir, seed=config.seed, validation_split=config.validation_split).train
