"""Run many jobs of train.py in the processes that a launcher has started: python tests/helpers/jobs.py FOLDER.

Starting ranks and loading TensorFlow takes longer than a small run, hence once for all.  FOLDER/jobs.json maps a name
to a command line; the exit codes go to FOLDER/codes.json.  Where the line names no model, the network is a tiny one of
the user's, so that what is tested is the way it is trained; everything else is the program as it is.  Each rank leaves
the order and the pixels of what it trained on as FOLDER/NAME/seen-RANK.npz.

A job may have faults planted, most of them at a rank and step: see ``faults.py``; "SIGUSR1@step", "loop@saving" and the
like: see ``deaths.py``.  Or a job begins with what another one has left: ["cut", name, step] copies that run as it was
after a kill with step's checkpoint as the newest: what was logged after it is there, later checkpoints, links and the
summary are not; names after the step are facts that its checkpoint lacks; ["forget", setting, 0] after it makes these
checkpoints those of a version that did not know the setting.
"""

import json
import os
import resource
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from distributed.health import preemption
from distributed.world import World
from launch.job import environment


def tiny(dropout: float, seed: int, normed: bool = False):
    """The function that builds the tiny network: a convolution and two dense layers with dropout, as AlexNet has, in
    20,000 parameters; ``normed``: with batch normalisation too, of which the first one is frozen."""

    def network(classes: int, image_size: int):
        import keras

        init = partial(keras.initializers.GlorotUniform, seed=seed)
        inputs = keras.Input((image_size, image_size, 3), dtype="uint8")
        x = keras.layers.Rescaling(1 / 127.5, -1.0, dtype="float32")(inputs)
        norm = partial(keras.layers.BatchNormalization, momentum=0.9, moving_mean_initializer="ones")
        if normed:
            x = norm(name="frozen", trainable=False)(x)
        # A bias in front of it has no gradient but for rounding.
        convolution = partial(keras.layers.Conv2D, 8, 3, activation=None if normed else "relu", use_bias=not normed)
        x = convolution(name="conv1", kernel_initializer=init())(x)
        if normed:
            x = keras.layers.ReLU()(norm(name="norm1")(x))
        x = keras.layers.MaxPooling2D(3, 2)(x)
        x = convolution(name="conv2", kernel_initializer=init())(x)
        if normed:
            x = keras.layers.ReLU()(norm(name="norm2")(x))
        x = keras.layers.Flatten()(x)
        for name in ("fc6", "fc7"):
            x = keras.layers.Dense(48, activation="relu", name=name, kernel_initializer=init())(x)
            if dropout:
                x = keras.layers.Dropout(dropout, seed=1 if name == "fc6" else 2, name=f"{name}_dropout")(x)
        x = keras.layers.Dense(classes, name="fc8", kernel_initializer=init())(x)
        return keras.Model(inputs, keras.layers.Activation("linear", dtype="float32")(x))

    return network


def own_network(line: list[str]) -> tuple[list[str], dict]:
    """A job's line without the dropout of the tiny network, and that network, with batch normalisation where the line
    says by what; not where the line names a model."""
    if "--model" in line:
        return line, {}
    values = {"--dropout": "0.5", "--seed": "0"}
    for flag in values:
        if flag in line:
            values[flag] = line[line.index(flag) + 1]
    if "--dropout" in line:
        place = line.index("--dropout")
        line = [*line[:place], *line[place + 2 :]]
    seed = int(values["--seed"]) if values["--seed"].isdecimal() else 0
    return line, {"model": tiny(float(values["--dropout"]), seed, normed="--batch-norm-span" in line)}


def record(training_batches, seen: list):
    """The pipeline, with a note of each batch's sample ids and pixel sums as it passes."""
    import numpy as np
    import tensorflow as tf

    def note(ids, images):
        # Position-weighted sums: equal only for equal pixels, up to a chance of one in 2**32.
        weights = (np.arange(images[0].size, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(97)) % np.uint64(
            2**32
        )
        seen.append((ids, (images.reshape(len(ids), -1).astype(np.uint64) * weights).sum(1)))
        return ids

    def recorded(*arguments, **named):
        def passing(images, labels, ids):
            return images, labels, tf.ensure_shape(tf.numpy_function(note, [ids, images], tf.int64), ids.shape)

        return training_batches(*arguments, **named).map(passing)

    return recorded


def main(folder: Path) -> int:
    preemption.listen()  # as the program does, first of all
    world = World.from_environment(os.environ)
    # Horovod starts once for all of them, and most of them are.
    environment.prepare(world, verbose=False, deterministic=True)
    with environment.loading(quiet=False):
        import checkpoints
        import deaths
        import faults
        import numpy as np

        from distributed import control
        from distributed.checkpoint.saver import Saver
        from distributed.hardware import devices
        from launch.job import checks, identity
        from launch.job.features import compute
        from launch.job.preparation import build, inputs
        from launch.train import main as train

    jobs = json.loads((folder / "jobs.json").read_text())
    if not jobs.get("alone"):
        # A job that leaves must not take the next ones with it.
        control.Control.leave = control.MpiControl.leave = lambda self, code: self.agree(code)
    pipeline, validation, codes = inputs.training_batches, inputs.validation_batches, {}
    losses, check = build.example_losses, checks.check_replicas
    answers = compute._answers
    # Machines need not be alike: each rank computes features as if it had one core more than the one before it.
    compute._answers = lambda strategy, given, *rest: answers(
        strategy, replace(given, threads=given.threads + world.rank), *rest
    )
    cards_in_use = devices.cards_in_use
    save, versions, model_sha256 = Saver.save, identity.versions, identity.model_sha256
    for name, line in jobs["lines"].items():
        seen = []
        build.example_losses, checks.check_replicas, Saver.save = losses, check, save
        inputs.training_batches, inputs.validation_batches = record(pipeline, seen), validation
        identity.versions, identity.model_sha256 = versions, model_sha256
        devices.cards_in_use = cards_in_use
        deaths.plant(None)
        for kind, *place in jobs["plants"].get(name, []):
            if kind in faults.FACTORS:
                build.example_losses = faults.scaled_losses(losses, kind, *place)
            elif kind == "compute":
                build.example_losses = faults.napping(kind, build.example_losses, *place)
            elif kind == "input":
                inputs.training_batches = faults.napping(kind, inputs.training_batches, *place)
            elif kind == "saving":
                Saver.save = faults.napping(kind, Saver.save, *place)
            elif kind in ("weight", "slot", "copy"):
                checks.check_replicas = faults.changed(kind, check, *place)
            elif kind == "versions":
                identity.versions = lambda: versions() | {"numpy": f"that of rank {world.rank}"}
            elif kind == "card":
                devices.cards_in_use = partial(faults.card_of, *place, world.rank)
            elif kind == "model":
                identity.model_sha256 = lambda network: f"that of rank {world.rank}"
            elif kind == "example":
                inputs.validation_batches = faults.lost_example(validation, *place)
            elif kind == "limit":
                Saver.save = faults.limited(save, *place)
            elif kind == "forget":
                checkpoints.forget(folder / name / "checkpoints", place[0])
            elif kind != "cut":
                deaths.plant(kind, *place)
            elif world.is_chief:
                checkpoints.cut(folder / place[0], folder / name, *place[1:])
        if world.is_chief:
            for stream in (sys.stdout, sys.stderr):
                print(f"job: {name}", file=stream, flush=True)
        line, given = own_network(line)
        if any("@step" in kind for kind, *_ in jobs["plants"].get(name, [])):
            # So that the step at which it strikes begins a call.
            line = [*line, "--steps-per-call", "1"]
        codes[name] = train(line, **given)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if seen and (folder / name).is_dir():
            ids, pixels = map(np.stack, zip(*seen, strict=True))
            np.savez(folder / name / f"seen-{world.rank}.npz", ids=ids, pixels=pixels)
    (folder / ("codes.json" if world.is_chief else f"codes-{world.rank}.json")).write_text(json.dumps(codes))
    return codes[name] if jobs.get("alone") else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
