"""Projections: near what others have published of their machines, and readable on the command line."""

import json
import sys

import pytest
from conftest import ROOT, run_command

from launch.bench.projection import NETWORKS, P100, Cluster, Network, project, read_doctor
from models import MODELS

BENCHMARK = ROOT / "launch" / "benchmark.py"
# Horovod's benchmarks page: 128 servers with 4 Pascal GPUs each, 25 Gbit/s RoCE; batch 64 as in its command.
PASCALS = Cluster(P100, 4, 25e9 / 8)
INCEPTION = Network({"predictions": (2048, 1000)}, 21_803_784)
RESNET101 = Network({"fc": (2048, 1000)}, 42_501_160)


# Goyal et al. 2017: from 8 to 256 GPUs. A single card at 32 images stands in TensorFlow's table, not in the paper.
BIG_BASIN = Cluster(P100, 8, 50e9 / 8)


@pytest.mark.parametrize(
    ("network", "rate", "batch", "cluster", "ranks", "published"),
    (
        (NETWORKS["vgg16"], P100.rates["vgg16"], 64, PASCALS, 512, 0.68),
        (INCEPTION, 142, 64, PASCALS, 512, 0.90),
        # Of ResNet-101 the page has 16 GPUs, 1656.82 images/s.
        (RESNET101, 1656.82 / 16, 64, PASCALS, 512, 0.90),
        (NETWORKS["resnet50"], 195, 32, BIG_BASIN, 256, 0.90),
    ),
)
def test_published_scaling_comes_out(network, rate, batch, cluster, ranks, published):
    """All of them sum everything."""
    assert project(network, rate, batch, cluster, ranks, "allreduce").efficiency == pytest.approx(published, abs=0.06)


def test_one_host_loses_less_than_many_and_auto_never_loses_to_summing():
    cluster = Cluster(P100, 4, 25e9 / 8)
    for name, network in NETWORKS.items():
        by_ranks = []
        for ranks in (4, 16, 64, 512):
            ours, summed = (
                project(network, P100.rates[name], 64, cluster, ranks, way) for way in ("auto", "allreduce")
            )
            assert 0 < summed.efficiency <= ours.efficiency <= 1
            by_ranks.append(summed.efficiency)
        assert by_ranks == sorted(by_ranks, reverse=True)


@pytest.mark.parametrize("name", ("alexnet", "vgg16"))
def test_the_networks_are_those_that_are_trained(name):
    # As in test_models.py, where the built networks are counted.
    parameters = {"alexnet": 62_378_344, "vgg16": 138_357_544}[name]
    assert name in MODELS
    assert sum(i * o for i, o in NETWORKS[name].dense.values()) + NETWORKS[name].others == parameters


def test_the_command_prints_a_row_for_each_network_and_number_of_ranks(tmp_path):
    words = ["project", "--ranks", "8,64,512", "--link", "100gbit", "--per-host", "8", "--device", "v100"]
    done = run_command(sys.executable, BENCHMARK, *words)
    assert done.returncode == 0, done.stderr
    assert "A projection, not a measurement" in done.stdout and "412 images/s" in done.stdout
    for name in ("alexnet b128", "vgg16 b64", "resnet50 b64"):
        assert done.stdout.count(name) == 3
    line = {"latency_s": 1e-3, "bytes_per_s": 1e9}
    facts = {"ranks": 4, "per_host": 2, "device": "A card", "allreduce": line, "allgather": line, "facts": [{}]}
    (tmp_path / "doctor.json").write_text(json.dumps(facts | {"matmul_tflops": {"float32": 19.0}}))
    done = run_command(sys.executable, BENCHMARK, "project", "--doctor", tmp_path / "doctor.json")
    assert done.returncode == 0 and "A card" in done.stdout and done.stdout.count("b64") == 2, done.stdout + done.stderr


def test_a_doctors_lines_are_those_of_its_machine(tmp_path):
    lines = {
        "allreduce": {"latency_s": 1e-3, "bytes_per_s": 1e9},
        "allgather": {"latency_s": 2e-3, "bytes_per_s": 3e8},
    }
    facts = {"ranks": 4, "per_host": 2, "device": "A card", "matmul_tflops": {"float32": 19.0}, "facts": [{}]}
    (tmp_path / "doctor.json").write_text(json.dumps(facts | lines))
    cluster, ranks = read_doctor(tmp_path / "doctor.json")
    calibration = cluster.calibration(ranks)
    for name, line in (("allreduce", calibration.reduce), ("allgather", calibration.gather)):
        assert line.latency == lines[name]["latency_s"]
        assert line.per_unit == pytest.approx(1 / lines[name]["bytes_per_s"])


@pytest.mark.parametrize(
    ("words", "expected"),
    (
        ("--device k80", "invalid choice: 'k80'"),
        ("--link fast", "'fast' is not a rate such as 25gbit"),
        ("--models lenet", "'lenet' is not one of alexnet, vgg16, resnet50"),
        ("--ranks 8,none", "'none' is not a whole number"),
        ("--doctor /nowhere.json", "--doctor /nowhere.json is no file of launch/doctor.py --json"),
        ("--doctor x.json --device v100", "leave out --device"),
    ),
)
def test_bad_input_is_one_sentence(words, expected):
    done = run_command(sys.executable, BENCHMARK, "project", *words.split())
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and expected in line
