"""TrainConfig: the one description of a run.  Its settings and their defaults stand in ``launch/job/settings/``.

``launch/job/arguments.py`` fills it from the command line and a file.
"""

import os
from pathlib import Path
from typing import get_args

import pydantic
import pydantic_core
import yaml

from distributed.checkpoint import disk
from launch.job.settings import batches, data, decisions, files, network, optimization, transfer, workers


class ConfigError(ValueError):
    """A setting the user can mend; its message is one sentence. It ends the run with exit code 2."""


# pydantic lists the fields of the last base first.
class TrainConfig(
    files.FileSettings,
    workers.WorkerSettings,
    decisions.DecisionSettings,
    optimization.OptimizationSettings,
    batches.BatchSettings,
    transfer.TransferSettings,
    network.NetworkSettings,
    data.DataSettings,
):
    """Train an image classifier on one or many workers, with the same result."""

    @pydantic.field_validator("profile_steps", "metrics", "head_units", mode="before")
    @classmethod
    def _split_list(cls, value):
        # A number of a file's, as in head_units: 256, is a list of one; none is a word for the next validator.
        value = str(value) if type(value) is int else value
        if not isinstance(value, str) or value.lower() in ("none", "null"):
            return value
        return tuple(word.strip() for word in value.split(","))

    @pydantic.field_validator("data_dir", "run_dir", "weights", "features_dir", "resume", mode="before")
    @classmethod
    def _expand(cls, value):
        # A shell leaves --data-dir=~/photos as it is, and nothing expands what stands in a file.
        return os.path.expandvars(os.path.expanduser(value)) if isinstance(value, str) else value

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _refuse_odd_names(cls, value):
        if isinstance(value, str | Path) and not str(value).isascii():
            try:
                str(value).encode()
            except UnicodeEncodeError:
                raise pydantic_core.PydanticCustomError("name", "a name in UTF-8; rename it") from None
        return value

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _none_in_words(cls, value, info):
        annotation = cls.model_fields[info.field_name].annotation
        if isinstance(value, bool) and "on" in get_args(annotation):
            return "on" if value else "off"  # which are YAML's words for true and false
        if isinstance(value, bool) and annotation is not bool:
            # pydantic would take true for 1.
            raise pydantic_core.PydanticCustomError("switch", "a number or a word")
        optional = type(None) in get_args(annotation)
        return None if optional and isinstance(value, str) and value.lower() in ("none", "null") else value

    @pydantic.model_validator(mode="before")
    @classmethod
    def _default_decay(cls, values):
        if isinstance(values, dict) and values.get("optimizer") == "adamw":
            return {"weight_decay": optimization.ADAMW_DECAY} | values
        return values

    @pydantic.model_validator(mode="after")
    def _check_combinations(self):
        groups = (data, network, transfer, batches, optimization, decisions, workers, files)
        if problems := [problem for group in groups for problem in group.problems(self)]:
            raise ValueError("\n  ".join(problems))
        return self

    @property
    def allows_tf32(self) -> bool:
        """Whether GPUs may round the factors of float32 products to 10 bits."""
        return self.tf32 == "on" or (self.tf32 == "auto" and not self.deterministic)

    @property
    def exact(self) -> bool:
        """Whether the result must not depend on the number of workers, to the last bit."""
        return self.deterministic and self.micro_batch_size is not None


def choices(name: str) -> tuple[str, ...]:
    """The words among which a setting chooses, such as the names of the models; empty where it takes none."""

    def words(annotation):
        for part in get_args(annotation):
            yield from [part] if isinstance(part, str) else words(part)

    return tuple(words(TrainConfig.model_fields[name].annotation))


def save(config: TrainConfig, path: Path) -> None:
    """Write the complete configuration as a file for ``--config``, whole or not at all.

    Raises:
        OSError: what was there before is as it was.
    """
    with disk.whole_file(path) as beside:
        beside.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
