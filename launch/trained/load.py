"""The network of a run, with its trained weights, as plain Keras."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from data import DatasetConfig
from distributed.checkpoint import commit, manager
from distributed.checkpoint.commit import CheckpointError
from launch.job.config import ConfigError, TrainConfig
from launch.job.identity import model_sha256
from launch.job.logs.report import MODEL
from launch.job.preparation.build import create_network
from launch.job.run_directory import held_out
from launch.job.user import code as user_code
from launch.job.user.call import UserCodeError
from launch.trained import record as records
from launch.trained.record import Record


class TrainedRun(NamedTuple):
    """What a run has learnt, and how to use it.

    Attributes:
        network: plain Keras, uint8 pixels [b, s, s, 3] -> float32 probabilities [b, classes] (or logits).
        record: the class names, and what ``network`` takes.
    """

    network: keras.Model
    record: Record


class Found(NamedTuple):
    """A checkpoint and what it says of itself.

    Attributes:
        path: its folder.
        run: the run directory, or None where the folder stands alone.
        state: ``state.json``.
        record: the class names, and what the network takes.
        weights_sha256: of the file with the weights.
    """

    path: Path
    run: Path | None
    state: dict
    record: Record
    weights_sha256: str

    @property
    def config(self) -> TrainConfig:
        """The settings of the run that made it, as far as they say what its network and data are."""
        return TrainConfig.model_construct(
            **{name: field.default for name, field in TrainConfig.model_fields.items()} | self.state["configuration"]
        )

    @property
    def training_examples(self) -> int:
        """How many the run was trained on; 0 where its version did not say."""
        split = (self.state.get("data") or {}).get("train") or {}
        return sum(split.get("counts", {}).values())

    def dataset(self, data_dir: str | None) -> DatasetConfig:
        """The data that the run was trained on, as it opened them; they lie in ``data_dir`` now."""
        config = self.config
        dataset = DatasetConfig(
            config.dataset,
            data_dir,
            seed=config.seed,
            validation_split=config.validation_split,
            classes=self.record.classes if config.classes else None,
            features=(config.image_feature, config.label_feature),
            skip_unreadable=config.skip_unreadable,
        )
        return dataset if self.run is None else replace(dataset, held_out=held_out.read(self.run, dataset))


def load_run(
    path: str | Path, *, checkpoint: str = "best", precision: str | None = None, logits: bool = False
) -> TrainedRun:
    """Load what a run has learnt; see ``launch.trained.load_run``.

    Raises:
        RecordError, ConfigError, CheckpointError, UserCodeError: one sentence: what is missing or does not fit.
    """
    found = find(path, checkpoint)
    network = load_network(found, precision)
    return TrainedRun(network if logits else with_probabilities(network), found.record)


def find(path: str | Path, checkpoint: str = "best") -> Found:
    """Find a checkpoint and read what it says, without loading it; arguments and errors as for ``load_run``."""
    try:
        folder = _folder(Path(path), checkpoint)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or path} cannot be read ({error.strerror}); mend its rights or give another run"
        ) from error
    manifest, state = commit.verify(folder), _read_state(folder)
    run = folder.parent.parent if folder.parent.name == "checkpoints" else None
    own = records.parse(state["record"], folder) if "record" in state else records.read(run or folder)
    return Found(folder, run, state, own, manifest["files"]["weights.safetensors"]["sha256"])


def _folder(place: Path, checkpoint: str) -> Path:
    """The folder of the checkpoint."""
    if not place.is_dir():
        raise ConfigError(f"{place} is no folder; give a run directory or a checkpoint")
    if checkpoint not in ("best", "last"):
        places = (Path(checkpoint), place / "checkpoints" / checkpoint)
        folder = next((place.resolve() for place in places if (place / "manifest.json").exists()), None)
        if folder is None:
            raise ConfigError(f"--checkpoint {checkpoint} is no checkpoint; give best, last or a folder step-XXXXXXXX")
        return folder
    return place.resolve() if (place / "manifest.json").exists() else _choose(place, checkpoint)


def _choose(run: Path, checkpoint: str) -> Path:
    folder = run / "checkpoints"
    committed = manager.committed(folder)
    if not committed:
        unfinished = (run / "config.yaml").exists()
        why = "has no checkpoint yet; let it train to the end of an epoch" if unfinished else "is no run directory"
        raise ConfigError(f"{run} {why}" + ("" if unfinished else "; give the folder that a run was told to write to"))
    path = manager.find_best(folder) if checkpoint == "best" else None
    return path or committed[-1]


def _read_state(folder: Path) -> dict:
    try:
        state = commit.read_json(folder / "state.json")
        if not isinstance(state["configuration"], dict) or not isinstance(state["files"], dict):
            raise ValueError("its configuration is no table of settings")
        for name in ("model", "dataset", "precision", "augment"):
            if not isinstance(state["configuration"].get(name, ""), str):
                raise ValueError(f"its {name} is no word")
        return state
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{folder}/state.json cannot be used ({error}); take another checkpoint") from error


def load_network(found: Found, precision: str | None = None) -> keras.Model:
    """The network of a checkpoint, uint8 pixels -> logits, with its weights; errors as for ``load_run``."""
    network, paths = _build(found, precision or found.state["configuration"]["precision"])
    if (digest := model_sha256(network, paths)) != found.record.model_sha256:
        raise CheckpointError(
            f"{found.path} was made by another {found.record.model} than the one here (SHA-256 of its architecture "
            f"{found.record.model_sha256[:12]}, here {digest[:12]}); use the Lockstep {found.record.lockstep} of then"
        )
    variables = dict(zip(paths, network.weights, strict=True))
    layout = {path: (tuple(weight.shape), np.dtype(weight.dtype)) for path, weight in variables.items()}
    for path, value in commit.load(found.path, layout).weights.items():
        variables[path].assign(value)
    return network


def _build(found: Found, precision: str) -> tuple[keras.Model, list[str]]:
    """The network, and the names under which a checkpoint has its weights, in their order."""
    config, record = found.config.model_copy(update={"precision": precision}), found.record
    name, own_file = config.model, user_code.is_reference(config.model)
    saved = found.run / MODEL if found.run else None
    own_model = None
    if own_file:
        try:
            # Nothing is run but the very code that the run was trained with.
            if user_code.find_file(name, "--model").sha256 == found.state["files"].get("model"):
                own_model = user_code.load_function(name, "--model")
        except (ConfigError, UserCodeError):
            if not (saved and saved.exists()):
                raise
    same = own_model is not None if own_file else record.model == name
    if same:
        network = create_network(config, classes=len(record.classes), image_size=record.image_size, own_model=own_model)
        return network, [weight.path for weight in network.weights]
    if not (saved and saved.exists()):
        what = f"{name} has changed since" if own_file else f"its network, {record.model}, came as a Python object"
        raise ConfigError(f"{found.path}: {what}, and there is no {MODEL} in its run directory; bring that back")
    return _from_json(saved, precision)


def _from_json(path: Path, precision: str) -> tuple[keras.Model, list[str]]:
    """The architecture that a run has left, in another precision if need be, and its weights' names; nothing of it is
    run as code."""
    policy = "float32" if precision == "float32" else f"mixed_{precision}"
    try:
        text = re.sub(r'"mixed_(b?float16)"', f'"{policy}"', path.read_text())
        paths = json.loads(text)["weight_paths"]
        network = keras.models.model_from_json(text)
        if len(paths) != len(network.weights):
            raise ValueError(f"{len(paths)} names for {len(network.weights)} weights")
        return network, paths
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigError(
            f"{path} cannot be built ({reason}); it has layers of your own: import the file that registers them first"
        ) from error


def with_probabilities(network: keras.Model) -> keras.Model:
    """A network that answers with probabilities, float32 [b, classes], also for two classes.

    Args:
        network: gives logits [b, classes], or [b, 1] of class 1.
    """
    logits = network.outputs[0]
    if logits.shape[-1] == 1:
        # sigmoid(-x) and not 1 - sigmoid(x), which has no digits left where x is large.
        other = keras.layers.Rescaling(-1.0, dtype="float32", name="class_0_logit")(logits)
        both = keras.layers.Concatenate(dtype="float32", name="class_logits")([other, logits])
        probabilities = keras.layers.Activation("sigmoid", dtype="float32", name="probabilities")(both)
    else:
        probabilities = keras.layers.Activation("softmax", dtype="float32", name="probabilities")(logits)
    return keras.Model(network.inputs[0], probabilities, name=network.name)
