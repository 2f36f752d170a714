"""How many steps a compiled call takes: bounded by time or by the user, the same on all workers."""

from types import SimpleNamespace

import pytest

from launch.job.timing import steps_per_call
from launch.job.timing.steps_per_call import StepsPerCall


class Others:
    """The control of a worker among others that take so many seconds per step."""

    def __init__(self, *seconds):
        self.seconds, self.asked = seconds, 0

    def gather(self, mine):
        self.asked += 1
        return [mine, *self.seconds]


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock that stands still: a busy machine must not be measured."""
    monkeypatch.setattr(steps_per_call, "time", SimpleNamespace(perf_counter=lambda: 1000.0))


def calls(steps, count, seconds):
    """Let calls of ``seconds`` per step follow each other; their lengths."""
    lengths = []
    for _ in range(count):
        lengths.append(steps.upto(10**6))
        steps.took(lengths[-1], 1000.0 - lengths[-1] * seconds)
    return lengths


def test_as_many_as_fit_into_a_tenth_of_a_second():
    lengths = calls(StepsPerCall(None, Others()), 20, 0.001)
    assert lengths[:2] == [1, 1]  # the first traces, the second measures
    assert all(99 <= length <= 100 for length in lengths[2:])


def test_the_slowest_worker_counts_and_steps_that_are_long_are_taken_one_by_one():
    assert calls(StepsPerCall(None, Others(0.01)), 5, 0.001)[2:] == [10] * 3
    assert calls(StepsPerCall(None, Others(0.3)), 5, 0.001) == [1] * 5


def test_workers_compare_rarely():
    control = Others()
    calls(StepsPerCall(None, control), 1000, 0.001)
    # After the calls 2, 4, 8 ... 64, then after each 64.
    assert control.asked == 6 + (1000 - 64) // steps_per_call.RARELY


@pytest.mark.parametrize("given", (1, 3))
def test_a_number_of_the_users_is_a_bound_and_needs_no_comparison(given):
    control = Others()
    steps = StepsPerCall(given, control)
    assert calls(steps, 8, 0.01) == [given] * 8 and control.asked == 0
    assert steps.seconds_per_step == pytest.approx(0.01)
    assert steps.upto(2) == min(2, given)


def test_never_past_what_is_due():
    steps = StepsPerCall(None, Others())
    calls(steps, 10, 0.001)
    assert [steps.upto(due) for due in (1, 7)] == [1, 7]
