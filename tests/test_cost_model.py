"""The choice between the ways in which the gradient of a dense layer may travel: the cheapest by what was measured."""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from distributed.gradients.calibration import LARGE, SMALL, fit_line
from distributed.gradients.cost_model import Calibration, Line, Rest, choose

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
    if calibration is not None:
        assert sum(it.seconds for it in choices.values()) <= sum(it.allreduce_seconds for it in choices.values())


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


def test_what_hides_behind_the_backward_pass_is_not_charged():
    """Sums of 67 ms beside a backward pass of 100: where the network works alone they cost nothing, where it is the
    cores that add all of it, and factors, whose product comes on top, are worth it then only."""
    layers, settings = {"large": (4096, 4096)}, {"global_batch": 128, "replicas": 2, "item_bytes": 4}
    for overlap, scheme, paid in ((1.0, "allreduce", 0.0), (0.0, "factors", 0.067)):
        calibration = Calibration(Line(0, 1e-9), Line(0, 1e-9), Line(0, 1e-13), overlap)
        given = {"calibration": calibration, "rest": Rest(backward=0.1)}
        choice = choose(layers, exchange="auto", **given, **settings)["large"]
        assert choice.scheme == scheme
        assert choice.allreduce_seconds == pytest.approx(paid + 4096**2 * 64 * 1e-13, rel=0.01)


# --- What was measured -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latency", "rate", "largest"),
    (
        (3e-5, 300e9, LARGE[-1]),
        (1e-3, 12.5e9, LARGE[-1]),
        (15e-3, 12.5e9, LARGE[-1]),  # which is no slow link: 14 s had been predicted where 0.16 are true
        (1e-3, 125e6, LARGE[1]),
        (1e-3, 25e6, LARGE[0]),
        (1e-3, 1.25e6, SMALL[-1]),
    ),
)
def test_a_line_is_found_within_its_time(latency, rate, largest):
    tried = []

    def seconds_of(size):
        tried.append(size)
        return latency + size / rate

    line = fit_line(seconds_of)
    assert max(tried) == largest
    assert line.latency == pytest.approx(latency, rel=0.01) and line.per_unit == pytest.approx(1 / rate, rel=0.01)


# --- Synthetic machines ----------------------------------------------------------------------------------------------


class Machine(NamedTuple):
    """``link``: bytes per second of the slowest edge of a ring; ``flops``: of products and convolutions."""

    ranks: int
    link: float
    latency: float  # of a collective, whole
    flops: float
    memory: float = 1.5e12  # bytes per second
    overlap: float = 1.0

    def reduced(self, size: float) -> float:
        return self.latency + 2 * (self.ranks - 1) / self.ranks * size / self.link

    def gathered(self, size: float) -> float:
        return self.latency + (self.ranks - 1) * size / self.link

    def multiplied(self, numbers: float, examples: float) -> float:
        return 2 * numbers * examples / self.flops + 4 * numbers / self.memory

    def calibration(self) -> Calibration:
        """What the measurement makes of it, through the timings it takes."""
        few, many = (self.multiplied(1.0, examples) for examples in (256, 4096))
        multiply = Line(few - 256 * (many - few) / 3840, (many - few) / 3840)
        return Calibration(fit_line(self.reduced), fit_line(self.gathered, parts=self.ranks), multiply, self.overlap)


MACHINES = {
    "8 GPUs at 300 GB/s": Machine(8, 300e9, 5e-5, 60e12),
    "2 x 8 over 100 Gbit/s": Machine(16, 12.5e9, 2e-4, 100e12),
    "4 over 10 Gbit/s": Machine(4, 1.25e9, 2e-4, 14e12),
    "4 over 1 Gbit/s": Machine(4, 0.125e9, 4e-4, 14e12),
    "512 with 15 ms": Machine(512, 12.5e9, 15e-3, 60e12),
    "2 CPU ranks": Machine(2, 1.5e9, 2e-3, 4e10, 5e9, 0.1),
}


@dataclass(frozen=True)
class Network:
    dense: dict
    convolutions: float  # multiplications of a forward pass
    numbers: int  # parameters besides dense kernels


NETWORKS = {
    "alexnet": Network({"fc6": (9216, 4096), "fc7": (4096, 4096), "fc8": (4096, 1000)}, 1.08e9, 3_757_288),
    "vgg16": Network({"fc6": (25088, 4096), "fc7": (4096, 4096), "fc8": (4096, 1000)}, 15.3e9, 14_723_880),
    "alexnet_cifar": Network({"fc6": (256, 4096), "fc7": (4096, 4096), "fc8": (4096, 10)}, 15.4e6, 208_746),
    "resnet50": Network({"predictions": (2048, 1000)}, 3.9e9, 23_588_712),
}


def true_cost(machine: Machine, network: Network, batch: int, schemes: dict[str, str]) -> float:
    """A step's seconds after its forward pass, by a timeline of two queues, the device's and the network's.

    It shares no formula with the cost model: tasks are put one behind another, each when what it needs is there.
    """
    everything, layers, device = batch * machine.ranks, network.dense, 0.0
    for name, (i, o) in layers.items():
        # The backward pass of the dense layers: by the input, and by the kernel, if that is not left to later.
        device += 2 * i * o * batch / machine.flops
        if schemes[name] == "split":
            device += machine.multiplied(i * o / machine.ranks, everything)
        elif schemes[name] == "allreduce":
            device += machine.multiplied(i * o, batch)
    if "split" in schemes.values():
        # Four exchanges that nothing hides: rows of X and Y are gathered, sums of Y and dX dealt back, and mirrored.
        for width in (layers["fc6"][0], layers["fc7"][1]):
            rows = 4 * batch * width
            device += machine.gathered(rows)  # each once forward or backward
            device += machine.latency + (machine.ranks - 1) / machine.ranks * rows * machine.ranks / machine.link
    known, network_free, ready = device, device, {}
    # The convolutions' backward pass, in ten pieces, whose gradients leave in the order in which they become known.
    pieces = 10
    piece = 2 * 2 * network.convolutions * batch / machine.flops / pieces
    factors = [shape for name, shape in layers.items() if schemes[name] == "factors"]
    sums = [4 * i * o for name, (i, o) in layers.items() if schemes[name] == "allreduce"]
    queue = []  # (known at, name, seconds on the network)
    if factors:
        queue.append((known, "factors", machine.gathered(4 * batch * sum(i + o for i, o in factors))))
    if sums:
        queue.append((known, "sums", machine.reduced(sum(sums)) - machine.latency))
    for index in range(pieces):
        seconds = machine.reduced(4 * network.numbers / pieces) - machine.latency
        queue.append((known + piece * (index + 1), index, seconds))
    busy = 0.0  # seconds of the network, of which a part is taken from the device
    for at, name, seconds in queue:
        network_free = max(network_free, at) + seconds
        ready[name] = network_free
        busy += seconds
    device += piece * pieces + (1 - machine.overlap) * busy
    if factors:
        device = max(device, ready["factors"])
        device += sum(machine.multiplied(i * o, everything) for i, o in factors)
    return max(device, network_free)


BATCHES = {"alexnet": (16, 64, 128, 512), "vgg16": (16, 32, 64), "resnet50": (32, 128), "alexnet_cifar": (16, 64)}
CASES = [(machine, network, batch) for machine in MACHINES for network in NETWORKS for batch in BATCHES[network]]


def cheapest(machine: Machine, network: Network, batch: int) -> tuple[float, dict[str, str]]:
    """The least that any combination of schemes costs, and that combination."""
    combinations = [
        dict(zip(network.dense, ways, strict=True))
        for ways in itertools.product(("allreduce", "factors"), repeat=len(network.dense))
    ]
    if "fc6" in network.dense and 4096 % machine.ranks == 0:
        combinations += [{"fc6": "split", "fc7": "split", "fc8": way} for way in ("allreduce", "factors")]
    return min(((true_cost(machine, network, batch, ways), ways) for ways in combinations), key=lambda pair: pair[0])


def chosen(machine: Machine, network: Network, batch: int) -> dict[str, str]:
    calibration = machine.calibration()
    choices = choose(
        network.dense,
        exchange="auto",
        global_batch=batch * machine.ranks,
        replicas=machine.ranks,
        item_bytes=4,
        calibration=calibration,
        pair=("fc6", "fc7") if "fc6" in network.dense else None,
        gather_every=1000,
        rest=Rest(network.numbers, 2 * network.convolutions * batch * calibration.multiply.per_unit),
    )
    return {name: choice.scheme for name, choice in choices.items()}


@pytest.mark.parametrize(("machine", "network", "batch"), CASES)
def test_no_choice_costs_more_than_a_tenth_above_the_cheapest(machine, network, batch):
    machine, network = MACHINES[machine], NETWORKS[network]
    least, best = cheapest(machine, network, batch)
    ways = chosen(machine, network, batch)
    assert true_cost(machine, network, batch, ways) <= 1.1 * least, (ways, best)


@pytest.mark.parametrize(
    ("machine", "network", "batch", "schemes"),
    (
        ("8 GPUs at 300 GB/s", "alexnet", 64, "allreduce allreduce allreduce"),
        ("8 GPUs at 300 GB/s", "vgg16", 32, "allreduce allreduce allreduce"),
        ("2 x 8 over 100 Gbit/s", "alexnet", 64, "factors factors factors"),
        ("2 x 8 over 100 Gbit/s", "alexnet", 128, "factors factors allreduce"),
        ("2 x 8 over 100 Gbit/s", "alexnet", 512, "allreduce allreduce allreduce"),  # all of it hides
        ("4 over 1 Gbit/s", "alexnet", 128, "factors factors factors"),
        ("512 with 15 ms", "alexnet", 64, "allreduce allreduce allreduce"),
        ("512 with 15 ms", "resnet50", 32, "allreduce"),
        ("2 CPU ranks", "alexnet_cifar", 64, "split split allreduce"),
    ),
)
def test_the_scheme_that_is_expected_of_a_machine(machine, network, batch, schemes):
    assert list(chosen(MACHINES[machine], NETWORKS[network], batch).values()) == schemes.split()
