"""Learning rates of the user's: asked for before the first step, and what is said where they are none."""

import sys

import numpy as np
import pytest
import user_files
from user_files import one_line

from distributed.health import heartbeat
from launch.job.config import ConfigError, TrainConfig
from launch.job.preparation.batch_plan import create_batch_plan
from launch.job.user.call import UserCodeError
from launch.job.user.code import load_function
from launch.job.user.schedule import rates

nothing_stays_imported = pytest.fixture(user_files.nothing_stays_imported, autouse=True)
write = pytest.fixture(user_files.write)


@pytest.fixture
def ask(write):
    """The rates of a run of three epochs of four steps, by ``build`` of a file."""

    def ask(text: str):
        return rates(load_function(write(text), "--schedule"), 0.8, epochs=3, steps_per_epoch=4)

    return ask


@pytest.mark.parametrize(
    ("text", "expected"),
    (
        ("def build(epoch): return 1 / (1 + epoch)", ((1.0, 0.5, 1 / 3), 4)),
        ("def build(epoch, lr): return lr if epoch < 1 else lr / 2", ((0.8, 0.4, 0.2), 4)),
        ("def build(step): return 12 - step", ((12.0, 11.0, 10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0), 1)),
        ("import numpy as np\ndef build(epoch): return np.float32(0.5)", ((0.5, 0.5, 0.5), 4)),
        ("def build(epoch): return 0", ((0.0, 0.0, 0.0), 4)),
        ("def build(step, base=24): return base - 2 * step", (tuple(range(24, 0, -2)), 1)),
        ("def build(step, *more, base=1): return base", ((1.0,) * 12, 1)),
        ("def build(epoch, lr=None): return 0.5 if lr == 0.8 else 0.25", ((0.5, 0.25, 0.25), 4)),
        ("from numpy import sqrt as build", ((0.0, 1.0, 2**0.5), 4)),  # it has no signature
    ),
)
def test_rates_of_epochs_and_of_steps(ask, text, expected):
    assert ask(text) == expected


@pytest.mark.parametrize(
    ("body", "shown"),
    (
        ("None", "None for epoch 0"),
        ("'0.1'", "'0.1' for epoch 0"),
        ("True", "True for epoch 0"),
        ("0.1 - 0.1 * epoch * epoch", "-0.30000000000000004 for epoch 2"),
        ("float('nan')", "nan for epoch 0"),
        ("float('inf') if epoch else 1", "inf for epoch 1"),
        ("[0.1]", "[0.1] for epoch 0"),
    ),
)
def test_what_is_no_rate_is_one_sentence(ask, body, shown):
    with pytest.raises(ConfigError) as error:
        ask(f"def build(epoch): return {body}")
    assert f"net.py:build gives {shown}, but a learning rate is a number of 0 or more" in one_line(error)


def test_what_it_raises_is_told_as_the_users(ask):
    with pytest.raises(UserCodeError) as error:
        ask("def build(epoch): return 1 / epoch")
    assert "net.py:build raised ZeroDivisionError: division by zero (net.py, line 1)" in one_line(error)


def test_a_function_of_other_parameters_is_refused(write):
    with pytest.raises(ConfigError) as error:
        load_function(write("def build(): return 1"), "--schedule")
    assert "is called as build(epoch) or build(epoch, lr) or build(step); change" in one_line(error)


def test_by_step_there_is_no_rate_before(ask):
    with pytest.raises(ConfigError) as error:
        ask("def build(step, lr): return lr")
    assert "net.py:build takes (step, lr), but is called with the step alone; give the others" in one_line(error)


def test_a_function_in_c_that_wants_something_else_is_told_as_the_users(ask):
    with pytest.raises(UserCodeError) as error:
        ask("build = max")
    assert "net.py:build raised TypeError: 'int' object is not iterable" in one_line(error)


def test_each_call_is_a_sign_of_life(write):
    function = load_function(write("def build(step): seen.append(heard()); return 1"), "--schedule")
    seen = []
    vars(sys.modules[function.function.__module__]).update(seen=seen, heard=lambda: heartbeat._record.beats)
    rates(function, 0.8, epochs=3, steps_per_epoch=4)
    assert len({*seen}) == 12


def test_the_plan_takes_it_in_the_place_of_the_base_rate(write):
    reference = write("def build(epoch): return [0.3, 0.1][epoch]")
    config = TrainConfig(schedule=reference, batch_size=16, epochs=2, warmup_epochs=0)
    plan = create_batch_plan(config, examples=200, replicas=2, own_schedule=load_function(reference, "--schedule"))
    found = [plan.schedule.rate(step) for step in range(12)]
    assert found == pytest.approx([0.6] * 6 + [0.2] * 6)  # two replicas, twice the batch
    assert f"learning rate by {reference}, at most 0.6 = 0.3 x 2 (linear, 32/16)" in plan.sentence()
    assert np.isclose(plan.schedule.peak, 0.6)


def test_a_minimum_is_refused_beside_it():
    with pytest.raises(ValueError, match="--min-learning-rate 0.01 has no effect on --schedule rates.py:build"):
        TrainConfig(schedule="rates.py:build", min_learning_rate=0.01)
