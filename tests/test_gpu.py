"""What only a GPU can show, in groups that each fit into ten minutes: make test-gpu ARGS="-k kernels" (docs/gpu.md).

    kernels      where the operations of a train step run, and where batches wait for it
    parity       one device, mirrored and horovod: the same bits in exact mode, the same weights to 1e-5 else
    determinism  twice the same bits
    precisions   16 bits learn as 32 do
    exchange     every scheme ends with the same weights; how fast each is
    overhead     what the host costs beside a bare loop and fit
    throughput   images per second of AlexNet and VGG16 beside fit, and PyTorch where it is installed

Nothing is asserted about speed; results.json and results.md keep what was measured.
"""

import importlib.util
import json

import gpu
import kernels
import numpy as np
import parity
import pytest
from conftest import BIN, HELPERS, ROOT, run_command, run_jobs, summary

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(gpu.missing() is not None, reason=str(gpu.missing())),
]
with_two = pytest.mark.skipif(gpu.missing(2) is not None, reason=str(gpu.missing(2)))

ON_CPU = gpu.KIND == "CPU"
NETWORKS = {"alexnet": 128, "vgg16": 64} if not ON_CPU else {"alexnet_cifar": 4}
SIZES = {"alexnet": 227, "vgg16": 224, "alexnet_cifar": 32}
STEPS, BATCH = (40, 64) if not ON_CPU else (4, 8)
LINE = (
    f"--model alexnet_cifar --epochs 1 --steps-per-epoch {STEPS} --global-batch-size {BATCH} --learning-rate 0.002 "
    "--momentum 0.9 --warmup-epochs 0 --schedule constant --deterministic"
).split()
EXACT = ["--micro-batch-size", str(BATCH // 4)]
SETS = {
    "single": ((), ("--strategy", "single")),
    "mirrored": ((), ("--strategy", "mirrored", *(("--cpu-devices", "2") if ON_CPU else ()))),
    "horovod": (("horovodrun", "-np", "2"), ()),
}


@pytest.fixture
def trained(tmp_path, tiny_data, monkeypatch):
    """Run jobs on a set of workers: ``trained(folder, jobs, workers)`` gives name -> run directory."""
    data = ("--dataset", "npz", "--data-dir", tiny_data) if ON_CPU else ()

    def run(folder, jobs, workers):
        launcher, flags = SETS[workers]
        variables = gpu.ONE if workers == "single" else gpu.TWO
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)
        lines = {name: [*LINE, *data, *more, *flags] for name, more in jobs.items()}
        # Exact mode settles TensorFlow's threads in another way, which a process can do once.
        exact = {name: line for name, line in lines.items() if "--micro-batch-size" in line}
        parts = {"exact": exact, "plain": {name: line for name, line in lines.items() if name not in exact}}
        runs = {}
        for part, some in parts.items():
            place = tmp_path / folder / part
            if some:
                codes = run_jobs(place, some, *launcher, timeout=800)
                assert set(codes.values()) == {0}, (place / "output.txt").read_text()[-4000:]
            runs |= {name: place / name for name in some}
        return runs

    return run


def furthest(run, other) -> float:
    """The largest difference of two runs' weights, relative to the largest weight of the layer."""
    mine, theirs = parity.weights(run), parity.weights(other)
    return max(
        float(np.abs(mine[name].astype(np.float64) - theirs[name]).max() / max(np.abs(theirs[name]).max(), 1e-6))
        for name in mine
    )


@pytest.mark.parametrize("optimizer", ("sgd", "adam"))
@pytest.mark.parametrize("precision", gpu.PRECISIONS)
def test_kernels_of_a_train_step_are_on_the_device(tmp_path, precision, optimizer):
    with gpu.recorded("kernels", f"{precision} {optimizer}") as values:
        words = ("alexnet_cifar", precision, optimizer, tmp_path / "nodes.json")
        ended = run_command(BIN / "python", HELPERS / "kernels.py", *words, **gpu.ONE)
        assert ended.returncode == 0, ended.stderr[-3000:]
        found = json.loads((tmp_path / "nodes.json").read_text())
        nodes, waiting = found["nodes"], found["batches"]
        elsewhere = kernels.misplaced(nodes, gpu.KIND)
        values |= {"operations": len(nodes), "that compute elsewhere": elsewhere or "none", "batches wait on": waiting}
        assert {"Conv2D", "MatMul"} <= {node["op"].removeprefix("_Fused").replace("_MklNative", "") for node in nodes}
        assert elsewhere == [] and all(f"device:{gpu.KIND}:" in device for device in waiting)
        assert found["grows"] == ([] if ON_CPU else [True])
        if ON_CPU:
            assert kernels.misplaced(nodes, "GPU"), "the check finds nothing where all is elsewhere"


@with_two
def test_parity_of_one_device_mirrored_and_horovod(trained):
    with gpu.recorded("parity", "single, mirrored, horovod") as values:
        jobs = {"exact": EXACT, "plain": []}
        runs = {workers: trained(workers, jobs, workers) for workers in SETS}
        bits = {workers: summary(run["exact"])["weights_sha256"] for workers, run in runs.items()}
        for workers in ("mirrored", "horovod"):
            values[f"{workers}: furthest weight"] = furthest(runs[workers]["plain"], runs["single"]["plain"])
            values[f"{workers}: same bits"] = bits[workers] == bits["single"]
        assert len(set(bits.values())) == 1
        assert max(value for name, value in values.items() if "furthest" in name) < 1e-5


def test_determinism_twice(trained):
    with gpu.recorded("determinism", "two runs of one device") as values:
        jobs = {"plain": [], "exact": EXACT, "bfloat16": ["--precision", "bfloat16"]}
        runs = [trained(name, jobs, "single") for name in ("one", "two")]
        for job in jobs:
            first, second = (summary(run[job])["weights_sha256"] for run in runs)
            values[f"{job}: same bits"] = first == second
        assert all(values.values())


def test_precisions_learn_alike(trained):
    with gpu.recorded("precisions", "one device") as values:
        jobs = {precision: ["--precision", precision] for precision in gpu.PRECISIONS}
        runs = trained("all", jobs, "single")
        losses = {precision: summary(run)["final"]["loss"] for precision, run in runs.items()}
        values |= {f"{precision}: loss": loss for precision, loss in losses.items()}
        for precision, run in runs.items():
            values[f"{precision}: images/s"] = summary(run)["images_per_second"]
        # The same order of examples and the same initial weights: they differ by rounding alone.
        assert all(abs(loss / losses["float32"] - 1) < 0.05 for loss in losses.values())


@with_two
def test_exchange_schemes_end_alike(trained):
    with gpu.recorded("exchange", "horovod, 2 ranks") as values:
        jobs = {scheme: ["--exchange", scheme] for scheme in ("allreduce", "factors", "split", "auto")}
        runs = trained("all", jobs, "horovod")
        for scheme, run in runs.items():
            values[f"{scheme}: images/s"] = summary(run)["images_per_second"]
            values[f"{scheme}: furthest weight"] = furthest(run, runs["allreduce"])
        assert max(value for name, value in values.items() if "furthest" in name) < 1e-5


def benchmark(tmp_path, *words, ranks: int = 1) -> list[dict]:
    """Rows of launch/benchmark.py, on as many GPUs as there are ranks."""
    quick, places = ("--quick",) if ON_CPU else (), () if ranks > 1 else ("--cpu-devices", 1)
    command = (BIN / "python", ROOT / "launch" / "benchmark.py", *words, "--json", tmp_path / "result.json")
    ended = run_command(*command, *quick, *places, timeout=800, **gpu.ONE | (gpu.TWO if ranks > 1 else {}))
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-3000:]
    return json.loads((tmp_path / "result.json").read_text())["rows"]


def test_overhead_beside_a_bare_loop_and_fit(tmp_path):
    with gpu.recorded("overhead", "a tiny network, where the host is all") as values:
        for row in benchmark(tmp_path, "overhead", "--models", "tiny:8", ranks=min(gpu.COUNT, 2)):
            values[f"{row['setting']}: {row['contestant']}, ms/step"] = row["ms_per_step"]
        assert len(values) >= 3


@pytest.mark.parametrize("precision", ("float32", "bfloat16"))
@pytest.mark.parametrize("model", NETWORKS)
def test_throughput_beside_fit_and_pytorch(tmp_path, model, precision):
    with gpu.recorded("throughput", f"{model} {precision}") as values:
        batch = NETWORKS[model]
        words = ("overhead", "--models", f"{model}:{batch}", "--precisions", precision)
        for row in benchmark(tmp_path, *words):
            values[f"{row['setting']}: {row['contestant']}, images/s"] = row["images_per_second"]
        values["PyTorch, images/s"] = pytorch(model, batch, precision)
        assert len(values) >= 3


def pytorch(model: str, batch: int, precision: str) -> float | str:
    """Its images per second, or why they are not known."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    steps, device = (2, "cpu") if ON_CPU else (50, "cuda")
    words = (model, batch, SIZES[model], precision, steps, device)
    ended = run_command(BIN / "python", HELPERS / "torch_baseline.py", *words, timeout=300, **gpu.ONE)
    return float(ended.stdout) if ended.returncode == 0 else ended.stderr.strip().splitlines()[-1]
