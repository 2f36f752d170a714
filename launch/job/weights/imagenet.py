"""Weights of ImageNet as Keras distributes them, by Keras' own loader, which checks their hashes."""

import os
import re
from pathlib import Path

import keras
import numpy as np

from launch.job.config import TrainConfig
from launch.job.weights.match import layers_with_variables, own_variables
from launch.job.weights.stored import Stored, StoredArray, StoredLayer, WeightsError
from models import applications

NAME = "imagenet"


def load(config: TrainConfig) -> Stored:
    """The weights of the run's ``keras:NAME``, with its classifier where the run keeps that.

    Raises:
        WeightsError: the run's network is none of these, or its file is neither here nor to be had.
    """
    if not config.model.startswith(applications.PREFIX):
        raise WeightsError(
            f"--weights imagenet is for --model keras:NAME, not for {config.model}; use keras:VGG16 and the like, or "
            "name a file of weights"
        )
    function = applications.find(config.model.removeprefix(applications.PREFIX))
    try:
        network = function(weights=NAME, include_top=config.head is None)
    except Exception as error:
        raise WeightsError(_not_to_be_had(config.model, str(error))) from error
    layers = [
        StoredLayer(layer.name, place, tuple(map(_array, own_variables(layer))))
        for layer, place in layers_with_variables(network)
    ]
    return Stored("weights of ImageNet, from keras.applications", tuple(layers), ordered=True)


def _array(variable: keras.Variable) -> StoredArray:
    return StoredArray(variable.name, tuple(variable.shape), lambda: np.asarray(variable, np.float32))


def _not_to_be_had(model: str, reason: str) -> str:
    """What to do without a network, in one sentence."""
    address = re.search(r"https?://\S+/([^/\s:]+)", reason)
    if address is None:
        return f"--weights imagenet: Keras has none for {model} ({next(iter(reason.splitlines()), 'no reason')})"
    folder = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"
    return (
        f"--weights imagenet: {address[1]} is not in {folder} and cannot be fetched from here; fetch {address[0]} "
        "elsewhere, and put it there"
    )
