"""Whole runs through the command line: what a run leaves, how it goes on, and how it refuses."""

import csv
import hashlib
import sys

import numpy as np
import pytest
import yaml
from conftest import ROOT, run_jobs, summary
from safetensors.numpy import load_file

TRAIN = (sys.executable, ROOT / "launch" / "train.py")

TINY = [
    "--dataset",
    "npz",
    "--global-batch-size",
    "16",
    "--epochs",
    "2",
    "--learning-rate",
    "0.02",
    "--warmup-epochs",
    "0",
    "--deterministic",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_data):
    """One process that trains all the runs which the tests below look at; returns (folder, exit codes)."""
    folder = tmp_path_factory.mktemp("runs")
    tiny = [*TINY, "--data-dir", tiny_data]
    jobs = {
        "whole": [*tiny, "--checkpoint-every-steps", 5, "--keep-checkpoints", 9],
        "again": [*tiny, *"--min-delta 0.5 --profile-steps 900,901 --features-dir none_here".split()],
        "nan": [*tiny, "--learning-rate", "1e20"],
        "metrics": [*tiny, "--metrics", "accuracy,auc"],
        "bfloat16": [*tiny, "--precision", "bfloat16"],
        "float16": [*tiny, "--precision", "float16"],
        "unvalidated": [*TINY, "--data-dir", tiny_data.with_name("train_only.npz"), "--validation-split", 0],
        "everything": [
            *tiny,
            "--histogram-epochs",
            1,
            "--profile-steps",
            "3,4",
            "--log-every-steps",
            2,
            "--augment",
            "inception",
            # As a time in nanoseconds would be: more than NumPy takes.
            "--seed",
            2**61 + 1,
        ],
        # The loss falls, hence by the largest loss the first epoch is the best.
        "best": [*tiny, "--restore-best-weights", "--monitor", "loss", "--monitor-mode", "max"],
        "finished": [*tiny, "--epochs", 1],
    }
    codes = run_jobs(folder, jobs)
    return folder, codes


def test_exit_codes(runs):
    _, codes = runs
    assert codes == dict.fromkeys(codes, 0) | {"nan": 1}


def test_run_directory(runs):
    directory = runs[0] / "whole"
    assert {path.name for path in directory.iterdir()} >= {
        "config.yaml", "metrics.csv", "tensorboard", "checkpoints", "summary.json", "curves.png"
    }  # fmt: skip
    facts = summary(directory)
    contract = (
        "strategy model parameters dataset world_size replicas global_batch_size epochs steps final best "
        "validation_examples images_per_second seconds stopped_by learning_rate exchange weights_sha256 versions "
        "startup time"
    )
    assert list(facts) == contract.split()
    assert (facts["steps"], facts["epochs"], facts["validation_examples"], facts["stopped_by"]) == (
        24,
        2,
        103,
        "epochs",
    )
    startup = facts["startup"]
    assert list(startup) == "seconds imports workers data directory exchange build features".split() + ["first step"]
    assert sum(startup.values()) == pytest.approx(2 * startup["seconds"], abs=0.05)
    assert f"started in {startup['seconds']:.1f} s: imports " in (runs[0] / "output.txt").read_text()
    with open(directory / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "12"), ("2", "24")]
    assert float(rows[-1]["val_loss"]) == pytest.approx(facts["final"]["val_loss"], rel=1e-6)
    assert (directory / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_further_metrics_have_columns_of_their_own(runs):
    with open(runs[0] / "metrics" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    final = summary(runs[0] / "metrics")["final"]
    assert list(rows[0])[-2:] == ["auc", "val_auc"]
    assert float(rows[-1]["val_auc"]) == pytest.approx(final["val_auc"], rel=1e-6)


def digest_of(saved: dict) -> str:
    """The contract's digest of the tiny network's weights."""
    # safetensors keeps names, not order; the tiny network's order is known.
    layers = ("conv1", "conv2", "fc6", "fc7", "fc8")
    arrays = (saved[f"{layer}/{part}"] for layer in layers for part in ("kernel", "bias"))
    return hashlib.sha256(b"".join(array.astype("<f4").tobytes() for array in arrays)).hexdigest()


def test_weights_digest_is_over_float32_bytes_in_model_order(runs):
    saved = load_file(runs[0] / "whole" / "checkpoints" / "last" / "weights.safetensors")
    assert summary(runs[0] / "whole")["weights_sha256"] == digest_of(saved)


def test_deterministic_reruns_are_bit_identical(runs):
    assert summary(runs[0] / "again")["weights_sha256"] == summary(runs[0] / "whole")["weights_sha256"]


def test_settings_that_do_nothing_are_said_and_do_nothing(runs):
    """The second of the runs that are compared above has them."""
    said = [line for line in (runs[0] / "output.txt").read_text().splitlines() if "has no effect" in line]
    steps = summary(runs[0] / "again")["steps"]
    assert said == [
        "warning: --min-delta 0.5 has no effect without --early-stopping-patience or --plateau-patience",
        "warning: --features-dir none_here has no effect, as no layer is frozen",
        f"warning: --profile-steps 900,901 has no effect, as the last step is {steps}",
    ]


def test_saved_configuration_is_complete(runs):
    saved = yaml.safe_load((runs[0] / "whole" / "config.yaml").read_text())
    from launch.job.config import TrainConfig

    assert set(saved) == set(TrainConfig.model_fields)


def test_nan_stops_and_leaves_finite_weights(runs):
    facts = summary(runs[0] / "nan")
    assert facts["stopped_by"] == "nan" and facts["steps"] < 24
    weights = load_file(runs[0] / "nan" / "checkpoints" / "last" / "weights.safetensors")
    assert all(np.isfinite(weight).all() for weight in weights.values())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_learns_what_float32_learns(runs, precision):
    low, full = summary(runs[0] / precision)["final"], summary(runs[0] / "whole")["final"]
    assert low["loss"] == pytest.approx(full["loss"], rel=0.02)
    assert low["loss"] != full["loss"]


def test_restores_the_best_epochs_weights(runs):
    best, first = summary(runs[0] / "best"), runs[0] / "whole" / "checkpoints" / "step-00000012"
    assert best["best"]["epoch"] == 1 and best["final"]["loss"] == best["best"]["loss"]
    assert best["weights_sha256"] == digest_of(load_file(first / "weights.safetensors"))


def test_without_validation(runs):
    facts = summary(runs[0] / "unvalidated")
    assert facts["validation_examples"] == 0 and not any(name.startswith("val_") for name in facts["final"])


def test_tensorboard_holds_curves_text_graph_histograms_and_a_trace(runs):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs = runs[0] / "everything" / "tensorboard"
    train, validation = (EventAccumulator(str(logs / part)).Reload() for part in ("train", "validation"))
    tags = set(train.Tags()["tensors"])
    assert {"epoch/loss", "epoch/accuracy", "step/learning_rate", "step/images_per_second", "configuration"} <= tags
    assert "fc8/kernel" in tags
    assert {"epoch/loss", "epoch/accuracy"} <= set(validation.Tags()["tensors"])
    assert [event.step for event in train.Tensors("epoch/loss")] == [1, 2]
    assert train.Graph().node
    assert list(logs.rglob("*.xplane.pb"))


LONG = "x" * 300  # no file may have such a name: an error of the system, as a folder that one may not enter
REFUSED = {
    "unknown flag": (["--modle", "vgg16"], "--modle is not a flag (did you mean --model?)"),
    "batch does not divide": (["--accumulate-steps", 5], "--global-batch-size 16 does not divide by 1 replicas x 5"),
    "missing data": (["--data-dir", "/nowhere/at.npz"], "/nowhere/at.npz"),
    "too few examples": (
        ["--global-batch-size", 4096],
        "203 training examples are fewer than one global batch of 4096",
    ),
    "image too small": (["--model", "alexnet_cifar", "--image-size", 8], "image size for alexnet_cifar is 8"),
    "no such metric": (["--monitor", "val_f1"], "--monitor val_f1 is not a metric of this run"),
    "no validation": (
        ["--validation-split", "0", "--dataset", "npz", "--data-dir", "DATA/train_only.npz", "--plateau-patience", "2"],
        "--plateau-patience goes by a validation metric, but there is no validation set",
    ),
    "resume never": (["--resume", "never"], "--resume is never"),
    "another batch": (["--global-batch-size", 8], "--global-batch-size 16"),
    "no checkpoint there": (["--resume", "/nowhere", "--run-dir", "RUN"], "--resume /nowhere is neither"),
    "no such name": (["--resume", f"/{LONG}", "--run-dir", "RUN"], f"/{LONG}/checkpoints cannot be listed (File name"),
    "no such weights": (["--weights", f"/{LONG}", "--run-dir", "RUN"], f"/{LONG} cannot be read (File name too long)"),
    "devices for another strategy": (["--cpu-devices", 2, "--strategy", "horovod"], "--cpu-devices 2"),
}


@pytest.fixture(scope="module")
def refusals(runs, tmp_path_factory, tiny_data):
    """All cases in one process: name -> (exit code, what was said on stderr), and the finished run's files before and
    after."""
    folder, finished = tmp_path_factory.mktemp("refusals"), runs[0] / "finished"
    lines = {}
    for case, (flags, _) in REFUSED.items():
        line = [*TINY, "--data-dir", tiny_data, *flags]
        places = {"RUN": folder / "new", "DATA/train_only.npz": tiny_data.parent / "train_only.npz"}
        lines[case] = [places.get(word, word) for word in line]
        if "--run-dir" not in lines[case]:
            lines[case] += ["--run-dir", finished]
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    codes = run_jobs(folder, lines)
    after = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    parts = (folder / "errors.txt").read_text().split("job: ")[1:]
    said = {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}
    return {case: (codes[case], said[case]) for case in REFUSED}, before, after


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(refusals, case):
    """Bad input: exit code 2, and one sentence on stderr that names what came."""
    code, said = refusals[0][case]
    assert code == 2
    assert REFUSED[case][1] in said and said.startswith("error: ") and said.count("\n") == 1, said


def test_refusals_leave_the_run_as_it_was(refusals):
    _, before, after = refusals
    assert after == before


@pytest.mark.parametrize(
    "launcher", [("mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "2"), ("horovodrun", "--gloo", "-np", "2")]
)
def test_other_launchers_train_the_same(tmp_path, tiny_data, runs, launcher):
    line = [*TINY, "--data-dir", str(tiny_data)]
    assert run_jobs(tmp_path, {"run": line}, *launcher) == {"run": 0}
    facts, one = summary(tmp_path / "run"), summary(runs[0] / "whole")
    assert facts["world_size"] == 2 and facts["strategy"] == "horovod"
    assert facts["final"] == pytest.approx(one["final"], rel=1e-3)
