"""What the chief says before the first step."""

import tensorflow as tf

from data import Splits
from distributed.gradients.cost_model import Choice
from distributed.model import LockstepModel
from distributed.strategies import Strategy
from launch.job import exchange
from launch.job.config import TrainConfig
from launch.job.console import Console
from launch.job.inputs import Inputs


def introduce(
    console: Console,
    config: TrainConfig,
    strategy: Strategy,
    inputs: Inputs,
    splits: Splits,
    model: LockstepModel,
    choices: dict[str, Choice],
) -> None:
    """Say what is about to run: the model, the workers, the data, the batch arithmetic, the exchange."""
    plan, world, say = inputs.plan, strategy.world, console.say
    train, validation = splits
    replicas = f"{plan.replicas} replica{'s' * (plan.replicas > 1)}"
    processes = f"{world.size} process{'es' * (world.size > 1)}"
    cores = f"{inputs.threads} core{'s' * (inputs.threads > 1)}"
    device = "GPU" if tf.config.get_visible_devices("GPU") else f"CPU, {cores} per process"
    parameters = f"{model.network.count_params():,} parameters"
    say(f"model: {config.model}, {parameters}, {config.precision}")
    say(f"workers: {strategy.name}, {replicas} in {processes} ({device})")
    held_out = f"{len(validation):,} validation" if validation else "no validation"
    size = f"{inputs.image_size}x{inputs.image_size}"
    say(f"data: {config.dataset}, {len(train):,} training and {held_out} images, {len(train.classes)} classes, {size}")
    if note := train.note:
        say(f"note: {note}")
    say(plan.sentence())
    if plan.replicas > 1:
        say(exchange.sentence(choices))
