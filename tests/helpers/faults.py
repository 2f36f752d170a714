"""Faults for jobs.py in what a job computes, reads and writes, each put around a function of the program.

Each is planted at a rank and step: "nan" makes its loss NaN, "overflow" so large that float16 gradients overflow;
"weight", "slot" and "copy" change one of its values, "versions" and "model" what it says of these; "card" gives the
ranks so many kinds of GPUs, and so many GPUs; "example" has it overlook a validation example.  ["limit", step, bytes]
lets no file of the chief's grow beyond that from the save of that step on.  ["compute", rank, seconds], "input" and
"saving" let a rank, or all for null, sleep in each step, before each batch, in each save.
"""

import os
import resource
import sys
import time

from distributed.world import World


def napping(kind: str, plain, rank: int | None, seconds: float):
    """``plain`` of a rank, or of all for None, that sleeps: for "compute" ``example_losses``, in each training step;
    for "input" ``training_batches``, before each batch; for "saving" ``Saver.save``."""
    import tensorflow as tf

    from distributed import step_context

    if rank not in (None, World.from_environment(os.environ).rank):
        return plain

    def nap():
        time.sleep(seconds)
        return 0

    def sleep_first(*arguments):
        with tf.control_dependencies(arguments):
            slept = tf.numpy_function(nap, [], tf.int64)
        with tf.control_dependencies([slept]):
            return tuple(map(tf.identity, arguments))

    def planted(*arguments, **named):
        if kind == "saving":
            nap()
        made = plain(*arguments, **named)
        if kind == "input":
            return made.map(sleep_first)
        if kind == "saving":
            return made

        def losses(labels, logits):
            if step_context.current() is None:
                return made(labels, logits)
            return made(*sleep_first(labels, logits))

        return losses

    return planted


FACTORS = {"nan": float("nan"), "overflow": 1e3}


def scaled_losses(example_losses, kind: str, rank: int, step: int):
    """The losses, but multiplied by the kind's factor in one training step of one rank."""
    import tensorflow as tf

    from distributed import step_context

    def planted(*arguments):
        losses = example_losses(*arguments)

        def scaled(labels, logits):
            context = step_context.current()
            if context is None or World.from_environment(os.environ).rank != rank:
                return losses(labels, logits)
            return losses(labels, logits) * tf.where(context.step == step, FACTORS[kind], 1.0)

        return scaled

    return planted


def lost_example(validation_batches, rank: int, _step: int):
    """The validation pipeline, but one rank overlooks the first example of its first batch."""
    import tensorflow as tf

    def planted(*arguments, **named):
        dataset = validation_batches(*arguments, **named)
        if World.from_environment(os.environ).rank != rank:
            return dataset

        def overlook(index, batch):
            images, labels, weights = batch
            return images, labels, tf.where((tf.range(len(weights)) == 0) & (index == 0), 0.0, weights)

        return dataset.enumerate().map(overlook)

    return planted


def changed(kind: str, check, rank: int, step: int):
    """The comparison of replicas, but before that of one step a "weight" of one rank is changed, a "slot" of its
    optimizer, or the weight's "copy" on the last device."""

    def planted(strategy, model, now):
        if (strategy.world.rank, now) == (rank, step):
            variable = model.network.get_layer("fc7").bias.value
            if kind == "slot":
                variable = next(slot.value for slot in model.optimizer.variables if len(slot.shape))
            (variable.values[-1] if kind == "copy" else variable).assign_add(variable * 0 + 1e-6)
        check(strategy, model, now)

    return planted


def limited(save, step: int, size: int):
    """``Saver.save``, but from one step on the kernel refuses to let files grow."""

    def planted(saver, now, *arguments, **named):
        if now >= step:
            sys.dont_write_bytecode = True  # Python would keep half of a module
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        save(saver, now, *arguments, **named)

    return planted


def card_of(kinds: int, cards: int, rank: int):
    """One card of so many kinds, and of so many cards, in turn by rank."""
    from distributed.hardware.cuda import Card

    return [Card(f"card {rank % kinds}", "9.0", f"0000:0{rank % cards}:00.0", str(rank % cards))]
