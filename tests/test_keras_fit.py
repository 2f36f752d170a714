"""A run of one process is what Keras' own ``fit`` makes of the same network, batches and settings: the same numbers."""

import jobs
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import run_jobs, summary
from parity import COMMON, history, merged, seen, weights
from sklearn.utils.class_weight import compute_class_weight

# Steps of an epoch; batches of 12.
STEPS = 6
SCHEDULE = """
def by_epoch(epoch, lr):
    return lr if epoch < 1 else lr * 0.5

def by_step(step):
    return 0.02 / (1 + step)
"""
FILE_WEIGHTS = {0: 1.0, 1: 2.5, 2: 0.0, 3: 0.25, 4: 1.0, 5: 3.0, 6: 1.0}
ROWS = {
    "penalties": "--l1 0.0001 --l2 0.002 --nesterov --momentum 0.8 --clip-norm 0.5",
    "by_epoch": "--weight-decay 0.2 --schedule FOLDER/rates.py:by_epoch --class-weights FOLDER/weights.yaml",
    "by_step": (
        "--weight-decay 0.2 --decay-all --schedule FOLDER/rates.py:by_step --class-weights balanced "
        "--validation-every 2"
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_data):
    """The data, of whose classes some are rare, and the runs of all rows."""
    folder = tmp_path_factory.mktemp("fit")
    with np.load(tiny_data) as arrays:
        arrays = dict(arrays)
    kept = np.flatnonzero((arrays["y_train"] > 2) | (np.arange(203) % 3 == 0))
    arrays |= {name: arrays[name][kept] for name in ("x_train", "y_train")}
    np.savez(folder / "uneven.npz", **arrays)
    (folder / "rates.py").write_text(SCHEDULE)
    (folder / "weights.yaml").write_text("".join(f"{label}: {weight}\n" for label, weight in FILE_WEIGHTS.items()))
    common = [*COMMON.split(), "--data-dir", folder / "uneven.npz", "--steps-per-epoch", STEPS]
    common += ["--epochs", 3, "--schedule", "constant"]
    found = run_jobs(
        folder, {name: merged(common, line.replace("FOLDER", str(folder)).split()) for name, line in ROWS.items()}
    )
    assert found == dict.fromkeys(ROWS, 0)
    return folder


def fit(folder, row: str, optimizer, *, regularizer=None, undecayed=("bias",), **more):
    """The network, and the history, of Keras' ``fit`` on the batches of a row's run."""
    network = jobs.tiny(0.0, 0)(7, 16)
    for variable in network.trainable_variables:
        variable.regularizer = regularizer if variable.name == "kernel" else None
    optimizer.exclude_from_weight_decay(var_names=undecayed)
    network.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    with np.load(folder / "uneven.npz") as arrays:
        order = seen(folder / row)[0].ravel()
        batches = tf.data.Dataset.from_tensor_slices((arrays["x_train"][order], arrays["y_train"][order])).batch(12)
    assert len(batches) == 3 * STEPS
    settings = {"epochs": 3, "steps_per_epoch": STEPS, "validation_data": validation(folder), "verbose": 0}
    return network, network.fit(batches, **settings, **more).history


def validation(folder) -> tuple:
    with np.load(folder / "uneven.npz") as arrays:
        return arrays["x_val"], arrays["y_val"]


def compare(folder, row: str, network, history_of_fit: dict) -> list[dict]:
    """Weights and metrics of the run and of ``fit``; the lines of the run's table."""
    for variable in network.weights:
        ours = weights(folder / row)[variable.path]
        assert np.linalg.norm(ours - variable) <= 1e-6 * np.linalg.norm(variable), variable.path
    table = history(folder / row)
    for name, values in history_of_fit.items():
        ours = [float(line[name]) for line in table if line.get(name)]
        assert ours == pytest.approx(values, rel=1e-6), name
    return table


def test_penalties_and_nesterov(folder):
    optimizer = keras.optimizers.SGD(0.02, momentum=0.8, nesterov=True, global_clipnorm=0.5)
    penalty = keras.regularizers.L1L2(0.0001, 0.002)
    network, found = fit(folder, "penalties", optimizer, regularizer=penalty)
    # Keras has the penalty in every loss, of each step its own; here it stands apart.
    with_penalty = [found.pop(name) for name in ("loss", "val_loss")]
    table = compare(folder, "penalties", network, found)
    values = [float(line["regularization"]) for line in table]
    assert values[-1] == pytest.approx(float(sum(network.losses)), rel=1e-6)
    ours = [float(line["val_loss"]) + value for line, value in zip(table, values, strict=True)]
    assert ours == pytest.approx(with_penalty[1], rel=1e-6)
    assert all(float(line["loss"]) < loss for line, loss in zip(table, with_penalty[0], strict=True))


def test_a_schedule_by_epochs_weights_of_a_file_and_decay_of_kernels(folder):
    optimizer = keras.optimizers.SGD(0.02, momentum=0.9, weight_decay=0.2)
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, lr: lr if epoch < 1 else lr * 0.5)
    found = fit(folder, "by_epoch", optimizer, class_weight=FILE_WEIGHTS, callbacks=[scheduler])
    table = compare(folder, "by_epoch", *found)
    assert [float(line["learning_rate"]) for line in table] == [0.02, 0.01, 0.005]


class ByStep(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.02 / (1 + keras.ops.cast(step, "float32"))


def test_a_schedule_by_steps_balanced_weights_decay_of_all_and_fewer_validations(folder):
    optimizer = keras.optimizers.SGD(ByStep(), momentum=0.9, weight_decay=0.2)
    with np.load(folder / "uneven.npz") as arrays:
        labels = arrays["y_train"]
    balanced = compute_class_weight("balanced", classes=np.arange(7), y=labels)
    assert np.ptp(balanced) > 1
    network, found = fit(
        folder, "by_step", optimizer, undecayed=(), class_weight=dict(enumerate(balanced)), validation_freq=2
    )
    # The last epoch is validated too, which Keras would not do.
    table = history(folder / "by_step")
    assert [bool(line["val_loss"]) for line in table] == [False, True, True]
    found["val_loss"].append(float(table[2]["val_loss"]))
    found["val_accuracy"].append(float(table[2]["val_accuracy"]))
    compare(folder, "by_step", network, found)
    loss, accuracy = network.evaluate(*validation(folder), verbose=0)
    assert [summary(folder / "by_step")["final"][name] for name in ("val_loss", "val_accuracy")] == pytest.approx(
        [loss, accuracy], rel=1e-6
    )
