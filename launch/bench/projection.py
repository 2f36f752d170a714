"""What a cluster that one does not have would do: images per second, efficiency, and how gradients travel there.

A projection, not a measurement.  A single device's images per second are published ones; the cost model adds what
exchanging costs.  Collectives are rings (Patarasuk and Yuan 2009), whose slowest edge is the link between two hosts, or
the one within a host where one is enough.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from distributed.gradients.cost_model import Calibration, Choice, Line, Rest, choose, step_seconds
from launch.job.config import ConfigError

# Which part of an exchange takes no time from the backward pass beside it: fitted to VGG-16 on 512 Pascals, which ran
# at 68 % (Horovod's benchmarks page); Inception V3 and ResNet-101, 90 % there, then come out at 95 and 93 %.
OVERLAP = 0.6
HOP = 1e-5  # seconds from one replica to the next; assumed
EPOCH = 1000  # steps after which what is split is gathered
WORDS = {"allreduce": "summed", "factors": "by factors", "split": "split"}


@dataclass(frozen=True)
class Network:
    """``dense`` kernels by name, and ``others``, how many parameters there are besides."""

    dense: dict[str, tuple[int, int]]
    others: int

    @property
    def pair(self) -> tuple[str, str] | None:
        names = list(self.dense)
        return (names[0], names[1]) if len(names) > 1 else None


NETWORKS = {
    "alexnet": Network({"fc6": (9216, 4096), "fc7": (4096, 4096), "fc8": (4096, 1000)}, 3_756_392),
    "vgg16": Network({"fc1": (25088, 4096), "fc2": (4096, 4096), "predictions": (4096, 1000)}, 14_723_880),
    "resnet50": Network({"fc": (2048, 1000)}, 23_509_032),
}
USUAL_BATCH = {"alexnet": 128, "vgg16": 64, "resnet50": 64}


@dataclass(frozen=True)
class Device:
    """``rates`` are images per second of one device, ``tflops`` those of products, ``inside`` bytes per second between
    devices of a host, one way; ``source`` says whose numbers these are, and ``gpu`` whether it is one."""

    rates: dict[str, float]
    tflops: float
    inside: float
    source: str
    gpu: bool = True

    def faster(self, times: float, **changes) -> "Device":
        return replace(self, rates={name: times * rate for name, rate in self.rates.items()}, **changes)


TENSORFLOW = "tensorflow.org/performance/benchmarks of 2017 (batch 64, AlexNet 512)"
NVIDIA = "ResNet-50: NVIDIA DeepLearningExamples, TensorFlow with XLA, {}; the others in the P100's proportions"
# Minutes in which 16 of each trained ResNet-50 to MLPerf's accuracy, in 16 bits.
MLPERF = "MLPerf Training 3.0, Dell: 14.4 and 7.8 minutes for ResNet-50 on 16"
# Products: assumed, from a third below to near the peaks of the data sheets (10.6, 15.7, 156 and 495 TFLOP/s).
P100 = Device({"alexnet": 2987, "vgg16": 154, "resnet50": 219}, 9.5, 80e9, f"P100, float32: {TENSORFLOW}")
A100 = P100.faster(909 / 219, tflops=100, inside=300e9, source=f"A100, TF32: {NVIDIA.format('909 images/s')}")
DEVICES = {
    "p100": P100,
    "v100": P100.faster(412 / 219, tflops=14.6, inside=150e9, source=f"V100, float32: {NVIDIA.format('412 images/s')}"),
    "a100": A100,
    "h100": A100.faster(14.4 / 7.8, tflops=200, inside=450e9, source=f"H100: 1.85 times the A100 ({MLPERF})"),
}


@dataclass(frozen=True)
class Cluster:
    """``per_host`` devices in a host, and ``link`` bytes per second, one way, between hosts.

    Where a doctor has measured sums and gathers: ``latency`` and ``edges`` of both, bytes per second of a ring's edge.
    """

    device: Device
    per_host: int
    link: float
    latency: tuple[float, float] | None = None
    edges: tuple[float, float] | None = None

    def calibration(self, ranks: int) -> Calibration:
        """What the measurement would find on so many ranks."""
        edge = self.device.inside if ranks <= self.per_host else min(self.device.inside, self.link)
        latency = self.latency or (HOP * (ranks - 1),) * 2
        passes = zip(latency, passes_of_a_ring(ranks), self.edges or (edge, edge), strict=True)
        reduce, gather = (Line(waiting, times / edge) for waiting, times, edge in passes)
        return Calibration(reduce, gather, Line(0.0, 2 / (self.device.tflops * 1e12)), OVERLAP)


@dataclass(frozen=True)
class Projection:
    """``images_per_second`` of all ranks, ``efficiency`` against as many alone, and how the dense layers travel."""

    images_per_second: float
    efficiency: float
    choices: dict[str, Choice]


def project(
    network: Network, rate: float, batch: int, cluster: Cluster, ranks: int, exchange: str = "auto"
) -> Projection:
    """Expect of ``ranks`` replicas with ``batch`` images each, of which one alone does ``rate`` images per second."""
    calibration, alone = cluster.calibration(ranks), batch / rate
    settings = {"global_batch": batch * ranks, "replicas": ranks, "item_bytes": 4, "calibration": calibration}
    numbers = sum(inputs * outputs for inputs, outputs in network.dense.values())
    # Three products a layer and step; two thirds of the others' are of the backward pass.
    dense = 3 * numbers * calibration.multiply.seconds(batch)
    rest = Rest(network.others, max(alone - dense, 0.0) * 2 / 3)
    divides = network.pair and network.dense[network.pair[0]][1] % ranks == 0
    settings |= {"pair": network.pair if divides else None, "gather_every": EPOCH, "rest": rest}
    choices = choose(network.dense, exchange=exchange, **settings)
    own = numbers * calibration.multiply.seconds(batch)  # which the single device's step has as well
    seconds = alone - own + sum(choice.seconds for choice in choices.values())
    seconds += step_seconds({}, calibration, rest)
    return Projection(ranks * batch / seconds, alone / seconds, choices)


def passes_of_a_ring(ranks: int) -> tuple[float, float]:
    """How often what a replica hands in to a sum, and to a gather, goes over each edge of a ring."""
    return 2 * (ranks - 1) / ranks, ranks - 1


def read_doctor(path: Path) -> tuple[Cluster, int]:
    """The cluster that launch/doctor.py has measured (its ``--json``), and its ranks.

    Raises:
        ConfigError: if the file is not that.
    """
    try:
        found = json.loads(path.read_text())
        ranks, tflops, measured = found["ranks"], found["matmul_tflops"], [found["allreduce"], found["allgather"]]
        if None in measured:
            raise ConfigError(f"--doctor {path} is of one rank, which exchanges nothing; run the doctor on all ranks")
        rate = tflops.get("tf32", tflops["float32"])
        edges = tuple(
            times * (line["bytes_per_s"] or float("inf"))
            for times, line in zip(passes_of_a_ring(ranks), measured, strict=True)
        )
        source = (
            f"{found['device']}: the P100's rates ({TENSORFLOW}) times {rate:.3g} / {P100.tflops} TFLOP/s of products"
        )
        gpu = bool(found["facts"][0].get("gpu"))
        device = P100.faster(rate / P100.tflops, tflops=rate, inside=edges[0], source=source, gpu=gpu)
        return Cluster(device, found["per_host"], edges[0], tuple(line["latency_s"] for line in measured), edges), ranks
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"--doctor {path} is no file of launch/doctor.py --json ({error})") from error


def show(arguments, console: Console) -> None:
    """Print the projection that the command line asks for."""
    if arguments.doctor:
        cluster, measured = read_doctor(arguments.doctor)
        numbers = arguments.ranks or [measured]
        link = "as the doctor measured"
    else:
        cluster = Cluster(DEVICES[arguments.device], arguments.per_host, arguments.link[1] / 8)
        numbers, link = arguments.ranks or [8, 64, 512], arguments.link[0]
    console.print("A projection, not a measurement: what the cost model expects.")
    console.print(f"one device: {cluster.device.source}", markup=False, soft_wrap=True)
    console.print(f"{cluster.per_host} in a host; between hosts {link}", markup=False, soft_wrap=True)
    table = Table(header_style="bold")
    for heading in ("network", "ranks", "images/s", "efficiency", "all summed", "MB/step/rank", "dense layers"):
        table.add_column(
            heading, justify="left" if heading in ("network", "dense layers") else "right", overflow="fold"
        )
    for name, batch in arguments.batches.items():
        for ranks in numbers:
            _add_row(table, name, batch, cluster, ranks, end=ranks == numbers[-1])
    console.print(table)


def _add_row(table: Table, name: str, batch: int, cluster: Cluster, ranks: int, end: bool) -> None:
    network, rate = NETWORKS[name], cluster.device.rates[name]
    summed = project(network, rate, batch, cluster, ranks, "allreduce")
    # The GPUs of one host sum, see launch/job/preparation/exchange.py.
    one_host = cluster.device.gpu and ranks <= cluster.per_host
    ours = summed if one_host else project(network, rate, batch, cluster, ranks)
    sent = sum(choice.bytes for choice in ours.choices.values()) + 8 * network.others * (ranks - 1) / ranks
    layers = [f"{layer} {WORDS[choice.scheme]} {choice.bytes / 1e6:,.1f} MB" for layer, choice in ours.choices.items()]
    table.add_row(
        f"{name} b{batch}",
        f"{ranks:,}",
        f"{ours.images_per_second:,.0f}",
        f"{ours.efficiency:.0%}",
        f"{summed.efficiency:.0%}",
        f"{sent / 1e6:,.1f}",
        ", ".join(layers),
        end_section=end,
    )
