"""Lockstep as a contestant: launch/train.py as it is, whose training takes turns (see launch/baselines/turns.py).

python launch/bench/contestant.py [--repeat-batch] FLAGS OF train.py

``--repeat-batch`` trains on the first batch over and over, in one endless epoch.
"""

import dataclasses
import math
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from distributed.world import World
from launch.job import environment


def main(argv: list[str]) -> int:
    world = World.from_environment(os.environ)
    environment.prepare(world, verbose=False)
    with environment.loading(quiet=True):
        from launch.baselines.job import LONG_EPOCH
        from launch.job import inputs, session
        from launch.job.training import Training
        from launch.train import main as train

    class InTurns(Training):
        def _fit(self, *arguments):
            # After all others: what they cost belongs to the step.
            self.callbacks.append(turn_callback(self, world.rank))
            super()._fit(*arguments)

    session.Training = InTurns
    if "--repeat-batch" in argv:
        argv.remove("--repeat-batch")
        batches, plan = inputs.training_batches, session.create_batch_plan
        inputs.training_batches = lambda *args, **named: batches(*args, **named).take(1).cache().repeat()
        session.create_batch_plan = lambda *args, **named: dataclasses.replace(
            plan(*args, **named), steps_per_epoch=LONG_EPOCH
        )
    return train(argv)


def turn_callback(training, rank: int):
    """The callback that waits for turns, tells what a byte model needs, and notes the time that saving takes and that
    which passes between an epoch's last step and the next one's first."""
    from launch.baselines.turns import TurnCallback, Turns

    class NotesGaps(TurnCallback):
        stepped = ended = None  # when the last step ended, and when the epoch's last one did

        def on_train_batch_begin(self, batch, logs=None):
            if self.ended is not None:
                turns.notes["between_epochs"] = time.perf_counter() - self.ended
                self.ended = None
            super().on_train_batch_begin(batch, logs)

        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            self.stepped = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            self.ended = self.stepped

    network = training.model.network
    facts = {
        "parameters": network.count_params(),
        "saved_bytes": saved_bytes(network, training.choices),
        "predicted_saving": predicted_saving(training.choices),
        "steps_per_epoch": training.plan.steps_per_epoch,
        "updated_share": updated_share(network, training.choices, training.plan.replicas),
    }
    turns = Turns(rank, facts, {"update": lambda count: time_update(training.model, count)})
    saver = training.checkpoints
    saver.on_train_batch_end = timed(saver.on_train_batch_end, turns.notes)
    saver.on_epoch_end = timed(saver.on_epoch_end, turns.notes)
    return NotesGaps(turns)


def saved_bytes(network, choices) -> int:
    """How many bytes fewer than by all-reducing everything a rank sends per step."""
    saved = sum(choice.allreduce_bytes - choice.bytes for choice in choices.values())
    if split := [name for name, choice in choices.items() if choice.scheme == "split"]:
        # The bias of the first of the two is divided between the workers as well.
        weights, bias = (math.prod(variable.shape) for variable in network.get_layer(split[0]).weights)
        saved += choices[split[0]].allreduce_bytes * bias // weights
    return saved


def updated_share(network, choices, replicas: int) -> float:
    """The part of all weights that one rank updates: of split layers only its own."""
    split = [network.get_layer(name).kernel for name, choice in choices.items() if choice.scheme == "split"]
    shared = sum(math.prod(kernel.shape) for kernel in split)
    return 1 - shared * (1 - 1 / replicas) / network.count_params()


def predicted_saving(choices) -> float | None:
    """Seconds of a step that the planner expects to save against all-reducing everything; None if it did not say."""
    if any(choice.seconds is None for choice in choices.values()):
        return None
    return sum(choice.allreduce_seconds - choice.seconds for choice in choices.values())


def timed(method, notes: dict):
    """A callback's method for the end of something, its seconds added to ``notes``."""

    def run(number, logs=None):
        began = time.perf_counter()
        method(number, logs)
        notes["saving"] = notes.get("saving", 0.0) + time.perf_counter() - began

    return run


def time_update(model, count: int) -> dict:
    """Seconds of each of ``count`` optimizer steps on given gradients; only where there is nobody to exchange with."""
    import tensorflow as tf

    variables = model.network.trainable_variables
    gradients = [tf.fill(variable.shape, 1e-9) for variable in variables]
    report = tf.zeros(4)
    step = tf.function(lambda *given: model.optimizer.step(list(given), variables, report))
    seconds = []
    for _ in range(count + 2):
        began = time.perf_counter()
        step(*gradients)
        seconds.append(time.perf_counter() - began)
    return {"update": seconds[2:]}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
