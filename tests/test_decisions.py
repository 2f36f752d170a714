"""Stop, plateau and best decide as Keras' own callbacks do, and survive a restart."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras.src.trainers.compile_utils import MetricsList

from distributed.decisions import Decisions, Rules
from distributed.metrics import METRICS
from launch.job.config import TrainConfig
from launch.job.preparation.assemble import create_rules

# Values are multiples of 1/64, so that neither float32 nor the side to which min_delta is added rounds them.
FALLING = [2.0, 1.5, 1.5, 1.25, 1.25, 1.25, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.75, 0.75, 0.75, 0.75]
SLOWLY = [1.0 - epoch / 64 for epoch in range(16)]


def by_seed(seed):
    generator = np.random.default_rng(seed)
    return (np.round(64 * (2 * np.exp(-np.arange(40) / 10) + generator.uniform(0, 0.5, 40))) / 64).tolist()


def test_each_setting_of_a_run_becomes_its_rule():
    config = TrainConfig(
        monitor_mode="max", min_delta=0.01, threshold_mode="rel", early_stopping_patience=3, baseline=0.5,
        start_from_epoch=4, plateau_patience=2, plateau_factor=0.25, plateau_cooldown=5,
    )  # fmt: skip
    assert create_rules(config, "val_accuracy") == Rules("val_accuracy", "max", 0.01, True, 3, 0.5, 4, 2, 0.25, 5)
    assert create_rules(TrainConfig(), "loss") == Rules("loss")


SEQUENCES = {"falling": FALLING, "slowly": SLOWLY, "constant": [0.5] * 12} | {f"seed {s}": by_seed(s) for s in range(5)}


class StubModel:
    """As much of a compiled model as Keras' callbacks look at."""

    def __init__(self):
        metrics = [keras.metrics.Mean("loss"), keras.metrics.SparseCategoricalAccuracy("accuracy")]
        metrics.append(keras.metrics.SparseTopKCategoricalAccuracy(5, name="top5_accuracy"))
        self.metrics, self.stop_training = [MetricsList(metrics)], False
        self.optimizer = SimpleNamespace(learning_rate=1.0)


def keras_run(callback, monitor, values):
    """The epoch at whose end Keras stopped (or None), and the rate after each epoch; the rate is 1 at first."""
    model, rates = StubModel(), []
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {monitor: value})
        rates.append(float(model.optimizer.learning_rate))
        if model.stop_training:
            return epoch, rates
    return None, rates


def run(rules, values):
    decisions = Decisions(rules)
    return [decisions.end_epoch(epoch, {rules.monitor: value}) for epoch, value in enumerate(values)]


def first_stop(verdicts):
    return next((epoch for epoch, verdict in enumerate(verdicts) if verdict["stop"]), None)


WATCHED = (("val_loss", "min", 1), ("val_loss", "max", -1), ("val_loss", "auto", 1), ("val_accuracy", "auto", -1))


@pytest.mark.parametrize("patience", (1, 2, 4))
@pytest.mark.parametrize("min_delta", (0.0, 1 / 64, 0.25))
@pytest.mark.parametrize(("monitor", "mode", "sign"), WATCHED)
def test_stops_when_keras_does(patience, min_delta, monitor, mode, sign):
    expected, stops = {}, {}
    for name, values in SEQUENCES.items():
        values = [sign * value for value in values]
        callback = keras.callbacks.EarlyStopping(monitor, min_delta, patience, mode=mode)
        expected[name], _ = keras_run(callback, monitor, values)
        stops[name] = first_stop(run(Rules(monitor, mode, min_delta, stop_patience=patience), values))
    assert stops == expected
    assert stops["constant"] == patience


@pytest.mark.parametrize("patience", (1, 3))
@pytest.mark.parametrize(("baseline", "begin"), ((None, 3), (1.0, 0), (0.25, 0), (1.0, 6), (5.0, 1)))
@pytest.mark.parametrize(("monitor", "mode", "sign"), WATCHED)
def test_stops_when_keras_does_with_a_baseline_or_a_late_begin(patience, baseline, begin, monitor, mode, sign):
    baseline = None if baseline is None else sign * baseline
    rules = Rules(monitor, mode, 1 / 64, stop_patience=patience, stop_baseline=baseline, stop_from_epoch=begin)
    expected, stops = {}, {}
    for name, values in SEQUENCES.items():
        values = [sign * value for value in values]
        callback = keras.callbacks.EarlyStopping(
            monitor, 1 / 64, patience, mode=mode, baseline=baseline, start_from_epoch=begin
        )
        expected[name], _ = keras_run(callback, monitor, values)
        stops[name] = first_stop(run(rules, values))
    assert stops == expected


@pytest.mark.parametrize(("patience", "cooldown"), ((1, 0), (2, 0), (1, 1), (1, 3), (2, 3), (3, 2)))
@pytest.mark.parametrize("factor", (0.5, 0.25))
@pytest.mark.parametrize(("watched", "min_delta"), tuple(zip(WATCHED, (0.0, 1 / 32, 0.125, 0.0), strict=True)))
def test_reduces_the_rate_when_keras_does(patience, cooldown, factor, watched, min_delta):
    monitor, mode, sign = watched
    for values in SEQUENCES.values():
        values = [sign * value for value in values]
        callback = keras.callbacks.ReduceLROnPlateau(monitor, factor, patience, 0, mode, min_delta, cooldown, 0.0)
        _, expected = keras_run(callback, monitor, values)
        settings = {"plateau_factor": factor, "plateau_cooldown": cooldown}
        rules = Rules(monitor, mode, min_delta, plateau_patience=patience, **settings)
        assert [verdict["factor"] for verdict in run(rules, values)] == pytest.approx(expected, rel=1e-6)


def test_auto_mode_knows_the_direction_of_every_metric_of_a_run():
    """Keras' own auto mode knows no top5."""
    rising = {name: Rules(name).rising and Rules(f"val_{name}").rising for name in METRICS}
    assert rising == dict.fromkeys(("accuracy", "top5", "precision", "recall", "auc"), True)
    assert not Rules("loss").rising and not Rules("val_loss").rising
    assert Rules("accuracy", "max").rising and not Rules("accuracy", "min").rising


@pytest.mark.parametrize("values", SEQUENCES.values(), ids=SEQUENCES)
def test_best_is_the_first_of_the_best_epochs_with_its_metrics(values):
    decisions = Decisions(Rules("val_loss", min_delta=10.0))
    improved = [
        decisions.end_epoch(epoch, {"val_loss": value, "loss": epoch})["improved"] for epoch, value in enumerate(values)
    ]
    assert improved == [all(value < before for before in values[:epoch]) for epoch, value in enumerate(values)]
    best = int(np.argmin(values))
    assert (decisions.best, decisions.best_epoch, decisions.best_metrics) == (
        values[best],
        best,
        {"val_loss": values[best], "loss": best},
    )


def test_a_patience_of_zero_never_decides():
    assert all(not verdict["stop"] and verdict["factor"] == 1 for verdict in run(Rules("loss"), [1.0] * 20))


def test_nan_is_never_best_and_counts_as_no_improvement():
    nan = float("nan")
    verdicts = run(Rules("loss", stop_patience=3, plateau_patience=2, plateau_factor=0.5), [nan, 1.0, nan, nan, nan])
    assert [verdict["improved"] for verdict in verdicts] == [False, True, False, False, False]
    assert first_stop(verdicts) == 4 and [verdict["factor"] for verdict in verdicts] == [1, 1, 1, 0.5, 0.5]


@pytest.mark.parametrize(("patience", "cooldown"), ((1, 3), (2, 2), (3, 0)))
@pytest.mark.parametrize("seed", (0, 1, 2))
def test_a_restart_after_any_epoch_changes_no_verdict(seed, patience, cooldown):
    settings = {"plateau_patience": patience, "plateau_factor": 0.5, "plateau_cooldown": cooldown}
    rules = Rules("val_loss", min_delta=1 / 64, stop_patience=4, **settings)
    values = by_seed(seed)
    expected = run(rules, values)
    assert first_stop(expected) is not None and expected[-1]["factor"] < 1  # there is something to decide
    for cut in range(1, len(values)):
        first, second = Decisions(rules), Decisions(rules)
        verdicts = [first.end_epoch(epoch, {"val_loss": value}) for epoch, value in enumerate(values[:cut])]
        second.restore(json.loads(json.dumps(first.state())))
        verdicts += [second.end_epoch(epoch, {"val_loss": value}) for epoch, value in enumerate(values[cut:], cut)]
        assert verdicts == expected
        assert second.best_epoch == int(np.argmin(values)) and second.best_metrics == {"val_loss": min(values)}


@pytest.mark.parametrize(
    ("mode", "values", "stops"),
    (
        ("min", [10.0, 9.5, 8.9], None),  # 9.5 is not 10 % below 10, 8.9 is
        ("min", [10.0, 9.5, 9.1], 2),
        ("max", [10.0, 10.5, 11.1], None),
        ("max", [10.0, 10.5, 10.9], 2),
        ("min", [-10.0, -10.5, -11.1], None),  # a part of the distance from zero, whatever the sign
        ("max", [-10.0, -9.5, -8.9], None),
    ),
)
def test_relative_threshold(mode, values, stops):
    rules = Rules("loss", mode, min_delta=0.1, relative=True, stop_patience=2)
    assert first_stop(run(rules, values)) == stops
