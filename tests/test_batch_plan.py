"""The batch arithmetic of a run, by a table, and the errors that name both numbers."""

import pytest

from data.datasets import DataError
from launch.job.config import ConfigError, TrainConfig
from launch.job.preparation.batch_plan import create_batch_plan


def plan(replicas=1, examples=1000, **settings):
    return create_batch_plan(TrainConfig(**settings), examples=examples, replicas=replicas)


@pytest.mark.parametrize(
    ("replicas", "settings", "micro", "global_batch", "steps"),
    (
        (1, {}, 64, 64, 15),
        (3, {}, 64, 192, 5),
        (2, {"batch_size": 10}, 10, 20, 50),
        (2, {"batch_size": 10, "accumulate_steps": 5}, 10, 100, 10),
        (1, {"global_batch_size": 96}, 96, 96, 10),
        (3, {"global_batch_size": 96}, 32, 96, 10),
        (4, {"global_batch_size": 96, "accumulate_steps": 3}, 8, 96, 10),
        (1, {"batch_size": 999}, 999, 999, 1),
        (1, {"batch_size": 1000}, 1000, 1000, 1),
        (1, {"batch_size": 10, "steps_per_epoch": 7}, 10, 10, 7),
        (1, {"batch_size": 10, "steps_per_epoch": 700}, 10, 10, 100),
    ),
)
def test_arithmetic(replicas, settings, micro, global_batch, steps):
    made = plan(replicas, epochs=3, **settings)
    accumulate = settings.get("accumulate_steps", 1)
    assert (made.micro_batch, made.replicas, made.accumulate) == (micro, replicas, accumulate)
    assert made.global_batch == micro * replicas * accumulate == global_batch == made.schedule.global_batch
    assert made.replica_batch * replicas == global_batch
    assert (made.steps_per_epoch, made.total_steps, made.schedule.total_steps) == (steps, 3 * steps, 3 * steps)


@pytest.mark.parametrize(
    ("replicas", "settings", "numbers"),
    (
        (3, {"global_batch_size": 64}, ("--global-batch-size 64", "3 replicas x 1", "multiple of 3", "example 63")),
        (4, {"global_batch_size": 2}, ("--global-batch-size 2", "4 replicas", "example 4")),
        (
            2,
            {"global_batch_size": 10, "accumulate_steps": 4},
            ("10", "2 replicas x 4 accumulation", "multiple of 8", "example 8"),
        ),
    ),
)
def test_a_global_batch_that_does_not_divide(replicas, settings, numbers):
    with pytest.raises(ConfigError) as error:
        plan(replicas, **settings)
    assert all(number in str(error.value) for number in numbers)
    good = settings | {"global_batch_size": int(numbers[-1].split()[1])}
    assert plan(replicas, **good).global_batch == good["global_batch_size"]  # the example given is right


def test_fewer_examples_than_one_global_batch():
    with pytest.raises(DataError, match=r"63 training examples .*global batch of 64"):
        plan(2, examples=63, batch_size=32)


@pytest.mark.parametrize(
    ("settings", "base", "peak"),
    (
        ({"batch_size": 16}, 16, 0.4),  # per replica given: the rate grows with the workers
        ({}, 64, 0.4),
        ({"global_batch_size": 64}, 64, 0.1),  # whole batch given: it does not
        ({"global_batch_size": 64, "accumulate_steps": 2}, 64, 0.1),
        ({"batch_size": 16, "accumulate_steps": 2}, 16, 0.8),
        ({"batch_size": 16, "base_batch_size": 32}, 32, 0.2),
        ({"global_batch_size": 64, "base_batch_size": 16}, 16, 0.4),
        ({"global_batch_size": 64, "base_batch_size": 16, "lr_scaling": "sqrt"}, 16, 0.2),
        ({"batch_size": 16, "lr_scaling": "none"}, 16, 0.1),
    ),
)
def test_base_batch_of_the_rate(settings, base, peak):
    schedule = plan(4, learning_rate=0.1, **settings).schedule
    assert schedule.base_batch == base and schedule.peak == pytest.approx(peak)


@pytest.mark.parametrize(("epochs", "steps"), ((0, 0), (1, 10), (0.25, 2), (2.5, 25)))
def test_warmup_is_given_in_epochs(epochs, steps):
    made = plan(batch_size=100, warmup_epochs=epochs, min_learning_rate=1e-4, schedule="step", learning_rate=0.3)
    assert (made.schedule.warmup_steps, made.schedule.minimum, made.schedule.kind, made.schedule.base) == (
        steps,
        1e-4,
        "step",
        0.3,
    )


@pytest.mark.parametrize(
    ("settings", "replicas", "first", "words"),
    (
        ({"batch_size": 16}, 1, 0.1, "rate 0.1"),
        ({"batch_size": 16}, 3, 0.1, "16), warm-up 20 steps"),
        ({"batch_size": 16, "warmup_epochs": 3}, 3, 0.1, "16), warm-up 60 steps"),
        ({"batch_size": 16, "warmup_epochs": 3}, 1, 0.001, "rate 0.1, warm-up 186 steps from 0.001"),
        ({"global_batch_size": 12, "warmup_epochs": 1}, 3, 0.001, "rate 0.1, warm-up 83 steps from 0.001"),
        ({"global_batch_size": 12, "warmup_epochs": 1}, 1, 0.001, "rate 0.1, warm-up 83 steps from 0.001"),
        ({"batch_size": 16, "lr_scaling": "none", "warmup_epochs": 1}, 3, 0.001, "warm-up 20 steps from 0.001"),
        ({"batch_size": 16, "base_batch_size": 32, "warmup_epochs": 1}, 1, 0.0005, "warm-up 62 steps from 0.0005"),
        ({"batch_size": 16, "warmup_epochs": 0}, 1, 0.1, "rate 0.1"),
    ),
)
def test_a_warmup_that_was_asked_for_grows(settings, replicas, first, words):
    made = plan(replicas, learning_rate=0.1, **settings)
    assert made.schedule.rate(0) == pytest.approx(first) and made.sentence().endswith(words)
    assert made.schedule.rate(made.schedule.warmup_steps) == pytest.approx(made.schedule.peak)


def test_the_sentence_says_the_arithmetic_aloud():
    sentence = plan(3, batch_size=16, accumulate_steps=2, epochs=4, learning_rate=0.1).sentence()
    assert "16 per replica x 3 replicas x 2 accumulation = 96 global; 10 steps x 4 epochs = 40 steps" in sentence
    assert "learning rate 0.6 = 0.1 x 6 (linear, 96/16), warm-up 10 steps" in sentence
    assert (
        "learning rate 0.1" in (plain := plan(global_batch_size=8, learning_rate=0.1).sentence())
        and "=" not in plain.split(";")[-1]
    )


def test_a_batch_norm_span_must_divide_what_a_replica_computes_at_a_time():
    said = "--batch-norm-span 12 does not divide the 32 examples .* use a divisor of 32, for example 8, or global"
    with pytest.raises(ConfigError, match=said):
        plan(global_batch_size=64, batch_norm_span=12, replicas=2)
    assert plan(global_batch_size=64, batch_norm_span=16, replicas=2).micro_batch == 32
