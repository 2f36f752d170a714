"""One run, any number of workers: every row of the table gives on every set of workers what it gives on one process.

The rows train a tiny network through the real command line and the real ``fit`` for two epochs, under real launchers.
"""

from pathlib import Path

import jobs
import keras
import numpy as np
import pytest
from conftest import run_jobs, summary
from parity import (
    COMMON,
    EXACT,
    EXACT_LATER,
    EXACT_RARELY,
    FURTHER,
    FURTHER_EXACT,
    LATER,
    NETWORKS,
    RARELY,
    REST,
    STEPS,
    TRAINING,
    VALIDATION_EXAMPLES,
    WORKERS,
    history,
    merged,
    seen,
    weights,
)
from safetensors.numpy import load_file

pytestmark = pytest.mark.timeout(3100)  # the first test of a set of workers waits for all rows of it and of one process


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_data):
    """``run(workers, row)`` is the row's run directory.  Each set of workers is started once for all rows, but for the
    exact ones, which use the cores in another way."""
    folders = {}

    def get(workers: str, row: str) -> Path:
        tables = (TRAINING | REST, EXACT, FURTHER, FURTHER_EXACT, NETWORKS)
        number, table = next((number, table) for number, table in enumerate(tables) if row in table)
        if (workers, number) not in folders:
            # Kept even if it fails, or each of its rows would start it again.
            folder = folders[workers, number] = tmp_path_factory.mktemp(workers)
            launcher, flags = WORKERS[workers]
            lines = {
                name: merged([*COMMON.split(), "--data-dir", tiny_data], [*in_folder(line, tiny_data), *flags])
                for name, line in table.items()
            }
            run_jobs(folder, lines, *launcher, timeout=1500)
        run_dir = folders[workers, number] / row
        assert (run_dir / "summary.json").exists(), f"see {run_dir.parent}/output.txt"
        assert summary(run_dir)["strategy"] == workers.partition("-")[0]
        return run_dir

    return get


def in_folder(line: str, data: Path) -> list[str]:
    helpers = Path(__file__).parent / "helpers"
    return line.replace("DATA", str(data.parent)).replace("HELPERS", str(helpers)).split()


def on_all_workers(rows: dict[str, str], later: tuple[str, ...] = (), rarely: tuple[str, ...] = ()):
    """Parametrize a test with each row on each set of workers but the single process.

    ``later`` are left to make test-faults, ``rarely`` to make test-all.
    """
    pairs = [(row, workers) for workers in WORKERS if workers != "single" for row in rows]
    marks = dict.fromkeys(later, (pytest.mark.faults,)) | dict.fromkeys(rarely, (pytest.mark.thorough,))
    return pytest.mark.parametrize(
        ("row", "workers"), [pytest.param(*pair, marks=marks.get(pair[1], ())) for pair in pairs]
    )


@on_all_workers(EXACT, EXACT_LATER, EXACT_RARELY)
def test_same_bits(run, row, workers):
    compare_bits(run("single", row), run(workers, row))


@on_all_workers(FURTHER_EXACT, rarely=tuple(WORKERS))
def test_same_bits_of_further_rows(run, row, workers):
    compare_bits(run("single", row), run(workers, row))


@on_all_workers(NETWORKS, rarely=tuple(WORKERS))
def test_same_bits_with_networks_of_keras_applications(run, row, workers):
    compare_bits(run("single", row), run(workers, row))


def compare_bits(one: Path, many: Path) -> None:
    """Not a bit differs: weights, optimizer state, every metric of every epoch."""
    assert summary(many)["weights_sha256"] == summary(one)["weights_sha256"]
    assert summary(many)["final"] == summary(one)["final"] and summary(many)["best"] == summary(one)["best"]
    assert history(many) == history(one)
    expected, actual = (load_file(run / "checkpoints" / "last" / "optimizer.safetensors") for run in (one, many))
    assert expected.keys() == actual.keys()
    assert all(np.array_equal(actual[name], expected[name]) for name in expected)


@on_all_workers(TRAINING, LATER, RARELY)
def test_training_has_the_same_result(run, row, workers):
    compare(row, run("single", row), run(workers, row))


@on_all_workers(REST, LATER, RARELY)
def test_the_rest_has_the_same_result(run, row, workers):
    compare(row, run("single", row), run(workers, row))


@on_all_workers(FURTHER, rarely=tuple(WORKERS))
def test_further_rows_have_the_same_result(run, row, workers):
    compare(row, run("single", row), run(workers, row))


def compare(row: str, expected: Path, actual: Path) -> None:
    """Samples, pixels, steps, decisions, metrics and weights of two runs."""
    one, many = summary(expected), summary(actual)
    assert many["steps"] == one["steps"] and many["stopped_by"] == one["stopped_by"]
    for name, array in zip(("sample order", "pixels"), zip(seen(expected), seen(actual), strict=True), strict=True):
        assert np.array_equal(*array), name
    assert many["final"] == pytest.approx(one["final"], rel=1e-5)
    assert many["validation_examples"] == VALIDATION_EXAMPLES.get(row, 103)
    for name, weight in weights(expected).items():
        other = weights(actual)[name]
        assert np.linalg.norm(other - weight) <= 1e-5 * np.linalg.norm(weight), name


EVERYWHERE = [
    "single",
    "horovod-4",
    *(pytest.param(name, marks=pytest.mark.faults) for name in EXACT_LATER),
    *(pytest.param(name, marks=pytest.mark.thorough) for name in EXACT_RARELY),
]


@pytest.mark.parametrize("workers", EVERYWHERE)
def test_not_a_bit_depends_on_the_steps_per_call(run, workers):
    rows = [run(workers, row) for row in ("exact_steps_1", "exact_steps_3", "exact_steps_auto")]
    assert len({summary(row)["weights_sha256"] for row in rows}) == 1
    assert history(rows[0]) == history(rows[1]) == history(rows[2])


@pytest.mark.parametrize("workers", EVERYWHERE)
def test_features_that_are_computed_once_are_those_of_every_step(run, workers):
    """But for the last bit: a convolution's depends on where in a batch an example stands."""
    frozen, cached = (run(workers, row) for row in ("exact_frozen", "exact_cached"))
    for name, weight in weights(frozen).items():
        other = weights(cached)[name]
        assert np.linalg.norm(other - weight) <= 1e-6 * np.linalg.norm(weight), name
        if "conv" in name:
            assert np.array_equal(other, weight), name
    assert len(list((cached / "features").glob("*.npy"))) == 2 and not (frozen / "features").exists()


@pytest.mark.thorough
@pytest.mark.parametrize("workers", list(WORKERS))
def test_nor_without_exact_mode(run, workers):
    one = run(workers, "sgd")
    for row in ("steps_1", "steps_3", "steps_auto"):
        assert summary(run(workers, row))["weights_sha256"] == summary(one)["weights_sha256"], row
        assert history(run(workers, row)) == history(one), row


def test_exchanged_factors_give_the_summed_gradient(run):
    """The row sgd exchanges fc6 and fc7 by factors, as auto chooses at this batch, the row allreduce none."""
    summed = weights(run("horovod-4", "allreduce"))
    for name, weight in weights(run("horovod-4", "sgd")).items():
        assert np.linalg.norm(weight - summed[name]) <= 1e-6 * np.linalg.norm(weight), name


@pytest.mark.parametrize("workers", [pytest.param("horovod-2", marks=pytest.mark.faults), "horovod-4"])
def test_split_layers_are_split_and_saved_whole(run, workers):
    facts = summary(run(workers, "split"))["exchange"]
    assert [facts[name]["scheme"] == "split" for name in ("fc6", "fc7", "fc8")] == [True, True, False]
    # The optimizer's state is that of one process too, name by name.
    saved = [run(one, "split_adam") / "checkpoints" / "last" / "optimizer.safetensors" for one in ("single", workers)]
    expected, actual = map(load_file, saved)
    assert expected.keys() == actual.keys()
    for name, slot in expected.items():
        assert np.linalg.norm(actual[name] - slot) <= 1e-5 * np.linalg.norm(slot), name


def test_accumulation_equals_the_double_batch(run, tmp_path, tiny_data):
    line = merged([*COMMON.split(), "--data-dir", tiny_data], ["--global-batch-size", 24])
    assert run_jobs(tmp_path, {"double": line}) == {"double": 0}
    for name, weight in weights(tmp_path / "double").items():
        other = weights(run("horovod-4", "accumulate"))[name]
        assert np.linalg.norm(other - weight) <= 1e-5 * np.linalg.norm(weight), name


def test_rows_differ(run):
    """Each row does something: no two end with the same weights but for those that only look, so no flag is ignored."""
    rows = TRAINING | REST
    digests = {row: summary(run("single", row))["weights_sha256"] for row in rows}
    # What is measured or checked, how nothing is exchanged, and how often the host is asked does not change what is
    # trained.
    alike = {"sgd", "metrics", "validation_2", "validation_1", "no_validation", "allreduce"}
    alike |= {"steps_1", "steps_3", "steps_auto"}
    assert len({digests[row] for row in alike}) == 1, digests
    assert len(set(digests.values())) == len(rows) - len(alike) + 1, digests


@pytest.mark.parametrize("row", ("batch_norm", "batch_norm_span", "batch_norm_accumulate"))
def test_moving_statistics_move_unless_frozen(run, row):
    found = weights(run("single", row))
    assert (found["frozen/moving_mean"] == 1).all() and (found["frozen/moving_variance"] == 1).all()
    for layer in ("norm1", "norm2"):
        assert np.abs(found[f"{layer}/moving_mean"] - 1).min() > 0.01, layer


def test_decisions_take_effect(run):
    """All workers may agree on doing nothing: that the rate falls, and that training stops, is seen here."""
    stopped = summary(run("single", "early_stopping"))
    assert (stopped["stopped_by"], stopped["steps"]) == ("early_stopping", 2 * STEPS)
    rates = [float(row["learning_rate"]) for row in history(run("single", "plateau"))]
    # One patient epoch after the first, then a tenth of the cosine's rate at the last step of the third.
    cosine = 0.01 * (1 + np.cos(np.pi * (3 * STEPS - 1) / (3 * STEPS)))
    assert rates[2] == pytest.approx(0.1 * cosine, rel=1e-4)


@pytest.mark.parametrize("workers", ["mirrored-3", "horovod-4"])
def test_ranks_draw_different_samples(run, workers):
    ids, _ = seen(run(workers, "sgd"))
    epoch = ids[: len(ids) // 2].ravel()
    assert len(set(epoch)) == len(epoch) == 203 // 12 * 12


def test_metrics_over_four_ranks_equal_one_plain_evaluation(run, tiny_data):
    """1003 validation images on 4 ranks: the values are those of Keras' metrics on all of them at once."""
    run_dir = run("horovod-4", "metrics")
    network = jobs.tiny(0.0, 0)(7, 16)
    saved = weights(run_dir)
    for variable in network.weights:
        variable.assign(saved[variable.path])
    with np.load(tiny_data.with_name("val1003.npz")) as arrays:
        labels, logits = arrays["y_val"], network(arrays["x_val"]).numpy()
    probabilities, targets = keras.ops.softmax(logits), np.eye(7, dtype=np.float32)[labels]
    expected = {
        "accuracy": keras.metrics.SparseCategoricalAccuracy()(labels, logits),
        "top5": keras.metrics.SparseTopKCategoricalAccuracy(5)(labels, logits),
        "precision": keras.metrics.Precision()(targets, probabilities),
        "recall": keras.metrics.Recall()(targets, probabilities),
        "auc": keras.metrics.AUC()(targets, probabilities),
        "loss": -np.log(np.asarray(probabilities, np.float64)[targets > 0]).mean(),
    }
    final = summary(run_dir)["final"]
    assert {name: final[f"val_{name}"] for name in expected} == pytest.approx(
        {name: float(value) for name, value in expected.items()}, rel=1e-6
    )
