"""The choice between the ways in which the gradient of a dense layer may travel: the cheapest by what was measured."""

import pytest

from distributed.gradients.cost_model import Calibration, Line, choose

LAYERS = {"large": (4096, 4096), "small": (64, 8)}
FREE = Line(0.0, 0.0)


def test_bytes_of_both_ways():
    summed = choose(LAYERS, exchange="allreduce", global_batch=128, replicas=4, item_bytes=4, calibration=None)
    assert summed["large"].bytes == 2 * 3 * 4096 * 4096  # 2 (N-1)/N of 4 in out bytes
    factors = choose(LAYERS, exchange="factors", global_batch=128, replicas=4, item_bytes=2, calibration=None)
    assert factors["large"].bytes == 2 * 128 * 8192 * 3 // 4
    assert factors["large"].allreduce_bytes == summed["large"].bytes


@pytest.mark.parametrize(
    ("calibration", "schemes"),
    (
        (None, {"large": "factors", "small": "allreduce"}),
        # The link costs, products are free.
        (Calibration(Line(0, 1e-8), Line(0, 1e-8), FREE), {"large": "factors", "small": "allreduce"}),
        # The link is free: what is multiplied for all replicas is wasted.
        (Calibration(FREE, FREE, Line(0, 1e-12)), {"large": "allreduce", "small": "allreduce"}),
    ),
)
def test_auto_takes_the_cheaper_way(calibration, schemes):
    choices = choose(LAYERS, exchange="auto", global_batch=128, replicas=2, item_bytes=4, calibration=calibration)
    assert {name: choice.scheme for name, choice in choices.items()} == schemes
    for choice in choices.values():
        assert choice.seconds is None or choice.seconds <= choice.allreduce_seconds


CHEAP = Calibration(Line(1e-4, 1e-10), Line(1e-4, 1e-10), Line(0, 5e-12))  # what a link moves costs less than products


@pytest.mark.parametrize(
    ("exchange", "calibration", "gather_every", "scheme"),
    (
        ("auto", CHEAP, 500, "split"),
        ("auto", CHEAP, 1, "factors"),  # a checkpoint in every step gathers all of it
        ("auto", Calibration(Line(1, 1e-10), Line(1e-4, 1e-10), CHEAP.multiply), 500, "factors"),  # waiting costs more
        ("auto", None, 500, "factors"),
        ("split", None, 1, "split"),
        ("factors", CHEAP, 500, "factors"),
    ),
)
def test_a_pair_is_split_where_that_is_cheaper(exchange, calibration, gather_every, scheme):
    layers = {"first": (1024, 4096), "second": (4096, 4096), "last": (4096, 10)}
    settings = {"global_batch": 128, "replicas": 2, "item_bytes": 4, "gather_every": gather_every}
    choices = choose(layers, exchange=exchange, calibration=calibration, pair=("first", "second"), **settings)
    assert [choices[name].scheme for name in ("first", "second")] == [scheme, scheme]
    assert choices["last"].scheme != "split"
    if scheme == "split":
        # X and its gradient; Y and its gradient: half of each is of the other worker.
        assert choices["first"].bytes == 4 * 128 * 1024 and choices["second"].bytes == 4 * 128 * 4096


@pytest.mark.parametrize(("latency", "scheme"), [(1e-3, "factors"), (1e-1, "allreduce")])
def test_the_one_exchange_of_all_factors_must_be_worth_its_latency(latency, scheme):
    """Summing three such layers takes 3 x 8 ms, factors 3 x 2 ms: worth a millisecond of waiting, not a hundred."""
    layers = dict.fromkeys(("one", "two", "three"), (1000, 2000))
    calibration = Calibration(Line(1.0, 1e-9), Line(latency, 1e-9), FREE)
    choices = choose(layers, exchange="auto", global_batch=333, replicas=2, item_bytes=4, calibration=calibration)
    assert {choice.scheme for choice in choices.values()} == {scheme}
