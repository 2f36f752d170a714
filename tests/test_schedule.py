"""The learning rate of chosen steps, computed by hand."""

import itertools
import math

import pytest

from distributed.optimization.schedule import Schedule

# base 0.1, 4 x the base batch, 20 steps of warm-up, then 80 steps: linear peak 0.4, sqrt peak 0.2, none 0.1
LINEAR, SQRT, NONE = ("linear", 0.4), ("sqrt", 0.2), ("none", 0.1)


def make(kind="constant", scaling="linear", warmup=20, minimum=0.0, total=100, batches=(256, 64), start="base"):
    return Schedule(0.1, scaling, *batches, kind, warmup, total, minimum, warmup_from=start)


@pytest.mark.parametrize(
    ("settings", "plateau", "rates"),
    (
        # scaling, without and with warm-up
        ({"warmup": 0}, 1, {0: 0.4, 50: 0.4, 99: 0.4}),
        ({"warmup": 0, "scaling": "sqrt"}, 1, {0: 0.2, 99: 0.2}),
        ({"warmup": 0, "scaling": "none"}, 1, {0: 0.1, 99: 0.1}),
        ({"warmup": 0, "batches": (32, 64)}, 1, {0: 0.05}),
        ({}, 1, {0: 0.1, 5: 0.175, 10: 0.25, 19: 0.385, 20: 0.4, 99: 0.4}),
        ({"scaling": "sqrt"}, 1, {0: 0.1, 10: 0.15, 20: 0.2, 99: 0.2}),
        ({"scaling": "none"}, 1, {0: 0.1, 10: 0.1, 20: 0.1}),
        ({"batches": (32, 64)}, 1, {0: 0.1, 10: 0.075, 20: 0.05}),
        # from a hundredth of the rate
        ({"scaling": "none", "start": "hundredth"}, 1, {0: 0.001, 10: 0.0505, 19: 0.09505, 20: 0.1, 99: 0.1}),
        ({"batches": (32, 64), "start": "hundredth"}, 0.5, {0: 0.00025, 10: 0.012625, 20: 0.025}),
        # shapes: begin where the warm-up ends and span what is left
        (
            {"kind": "cosine"},
            1,
            {
                0: 0.1,
                10: 0.25,
                20: 0.4,
                40: 0.2 * (1 + math.sqrt(0.5)),
                60: 0.2,
                80: 0.2 * (1 - math.sqrt(0.5)),
                100: 0.0,
            },
        ),
        ({"kind": "cosine", "warmup": 0, "scaling": "none"}, 1, {0: 0.1, 50: 0.05, 100: 0.0}),
        ({"kind": "step"}, 1, {10: 0.25, 20: 0.4, 59: 0.4, 60: 0.04, 79: 0.04, 80: 0.004, 99: 0.004}),
        ({"kind": "step", "warmup": 0, "scaling": "sqrt"}, 1, {0: 0.2, 49: 0.2, 50: 0.02, 74: 0.02, 75: 0.002}),
        ({"kind": "polynomial"}, 1, {10: 0.25, 20: 0.4, 40: 0.225, 60: 0.1, 80: 0.025, 100: 0.0}),
        # what ReduceLROnPlateau made of it multiplies everything
        ({}, 0.1, {0: 0.01, 10: 0.025, 20: 0.04, 99: 0.04}),
        ({"kind": "cosine"}, 0.5, {20: 0.2, 60: 0.1}),
        ({"kind": "step"}, 0.25, {60: 0.01}),
        # the minimum holds from the end of the warm-up, whatever asks for less, and never raises the peak
        ({"kind": "cosine", "minimum": 0.03}, 1, {0: 0.1, 20: 0.4, 60: 0.2, 95: 0.03, 100: 0.03}),
        ({"kind": "polynomial", "minimum": 0.05}, 1, {40: 0.225, 60: 0.1, 80: 0.05, 100: 0.05}),
        ({"minimum": 0.05}, 0.1, {20: 0.05, 99: 0.05}),
        ({"kind": "step", "minimum": 0.01}, 0.1, {20: 0.04, 60: 0.01, 80: 0.01}),
        ({"kind": "cosine", "minimum": 0.9}, 1, {20: 0.4, 60: 0.4, 100: 0.4}),
        # a run that ends within its warm-up
        ({"kind": "cosine", "warmup": 200}, 1, {0: 0.1, 100: 0.25}),
    ),
)
def test_rates(settings, plateau, rates):
    schedule = make(**settings)
    assert {step: schedule.rate(step, plateau) for step in rates} == pytest.approx(rates, abs=1e-12)


def test_given_rates_are_scaled_warmed_up_and_multiplied_as_others_are():
    given = {"given": (0.3, 0.2, 0.1), "given_every": 40}
    schedule = Schedule(0.1, "linear", 256, 64, "rates.py:by_epoch", 20, 120, **given)
    expected = {0: 0.3, 10: 0.75, 20: 1.2, 39: 1.2, 40: 0.8, 79: 0.8, 80: 0.4, 119: 0.4}
    assert {step: schedule.rate(step) for step in expected} == pytest.approx(expected)
    assert schedule.rate(40, 0.5) == pytest.approx(0.4) and schedule.peak == pytest.approx(1.2)


@pytest.mark.parametrize(("scaling", "peak"), (LINEAR, SQRT, NONE))
@pytest.mark.parametrize("kind", ("constant", "cosine", "step", "polynomial"))
@pytest.mark.parametrize("warmup", (0, 1, 20))
def test_warmup_is_continuous_and_the_rest_monotone(scaling, peak, kind, warmup):
    schedule = make(kind, scaling, warmup, minimum=0.002)
    rates = [schedule.rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1 if warmup else peak)
    assert rates[warmup] == pytest.approx(peak) == schedule.peak
    rises = [after - before for before, after in itertools.pairwise(rates[: warmup + 1])]
    assert rises == pytest.approx([(peak - 0.1) / max(warmup, 1)] * warmup)
    assert all(after <= before for before, after in itertools.pairwise(rates[warmup:]))
    assert min(rates[warmup:]) >= 0.002
