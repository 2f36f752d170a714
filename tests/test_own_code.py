"""A user's own network, data and callback, in a file outside of the repository: the same bits however it is started."""

import json
import zipfile

import own_code
import pytest
from conftest import BIN, ROOT, run_command, summary
from own_code import FLAGS, own

WORKERS = {
    "single": ((), ()),
    "mirrored-2": ((), ("--strategy", "mirrored", "--cpu-devices", "2")),
    "mirrored-3": ((), ("--strategy", "mirrored", "--cpu-devices", "3")),
    "horovod-2": (("horovodrun", "-np", "2"), ()),
    "horovod-3": (("horovodrun", "-np", "3"), ()),
}

project = pytest.fixture(own_code.project, scope="module")


@pytest.fixture(scope="module")
def one(project):
    """The run of one process: its summary and what the callback noted."""
    done = run_command(
        BIN / "python", ROOT / "launch/train.py", *own(project), *FLAGS.split(), "--run-dir", project / "single",
        NOTES=str(project),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "data: examples, 203 training and 51 validation images, 5 classes, 12x12" in done.stdout
    return summary(project / "single"), json.loads((project / "notes-0.json").read_text())


def test_a_callback_sees_each_step_once_and_the_global_metrics(one):
    facts, notes = one
    (first, *epochs, last) = notes
    # Exact runs keep Horovod from joining groups of gradients, as the setting reaches what settles the environment.
    assert (first, last) == (["begin", "1"], "end")
    assert [entry[:2] for entry in epochs] == [[0, 8], [1, 16]] and facts["steps"] == 16
    assert epochs[-1][2:] == [facts["final"]["loss"], facts["final"]["val_accuracy"], facts["parameters"]]


@pytest.mark.parametrize("workers", [name for name in WORKERS if name != "single"])
def test_the_same_bits_on_any_workers(project, one, tmp_path, workers):
    launcher, flags = WORKERS[workers]
    done = run_command(
        *launcher, BIN / "python", ROOT / "launch/train.py", *own(project), *FLAGS.split(), *flags,
        "--run-dir", tmp_path / "run", NOTES=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    facts = summary(tmp_path / "run")
    assert facts["replicas"] == int(workers[-1])
    assert (facts["weights_sha256"], facts["final"]) == (one[0]["weights_sha256"], one[0]["final"])
    # The callback ran in every process, and saw the same in each.
    notes = sorted(tmp_path.glob("notes-*.json"))
    assert len(notes) == facts["world_size"] and all(json.loads(path.read_text()) == one[1] for path in notes)


@pytest.mark.parametrize("launcher", [(), ("horovodrun", "-np", "2")])
def test_a_script_of_the_users_trains_the_same(project, one, tmp_path, launcher):
    words = [*launcher, BIN / "python", project / "script.py", tmp_path / "run"]
    done = run_command(*words, NOTES=str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    weights = [path.read_text() for path in tmp_path.glob("weights-*")]
    assert weights == [one[0]["weights_sha256"]] * (2 if launcher else 1)
    # What it saves is plain Keras, with these weights and nothing else.
    code = "import sys, keras, hashlib, numpy as np; model = keras.models.load_model(sys.argv[1]); "
    code += "print(hashlib.sha256(b''.join(np.asarray(w).tobytes() for w in model.weights)).hexdigest()); "
    code += "assert 'distributed' not in sys.modules"
    loaded = run_command(BIN / "python", "-c", code, tmp_path / "model-0.keras")
    assert loaded.stdout.split() == [one[0]["weights_sha256"]], loaded.stderr[-2000:]
    with zipfile.ZipFile(tmp_path / "model-0.keras") as archive, archive.open("model.weights.h5") as file:
        assert b"optimizer" not in file.read()


TWICE = """
import sys
from launch.job import identity
from launch.job.config import TrainConfig
from launch.job.run import train
import mine

mine.network(5, 12)  # TensorFlow computes
# The loss falls, hence by the largest loss the first epoch is the best.
settings = dict(global_batch_size=24, restore_best_weights=True, monitor="loss", monitor_mode="max")
config = TrainConfig(epochs=2, run_dir=sys.argv[1], **settings)
for time in range(2):
    result = train(config, model=mine.network, data=mine.examples)
    assert identity.weights_sha256(result.model) == result.summary["weights_sha256"], time
try:
    train(TrainConfig(deterministic=True, micro_batch_size=2, **settings), model=mine.network, data=mine.examples)
except ValueError as error:
    print("refused:", error)
"""


def test_a_script_may_train_twice_after_something_else(project, tmp_path):
    """A finished run gives its best weights again; what TensorFlow cannot set any more is one sentence."""
    (tmp_path / "twice.py").write_text(TWICE)
    (tmp_path / "mine.py").write_text((project / "mine.py").read_text())
    done = run_command(BIN / "python", tmp_path / "twice.py", tmp_path / "run")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "run is already finished; " in done.stdout
    refused = done.stdout.splitlines()[-1]
    assert refused.startswith("refused: TensorFlow has computed in this process before") and "call train" in refused


def test_a_script_may_do_something_else_after_training(project, tmp_path):
    """It is not taken for one that hangs, and Ctrl-C means to it again what it means to Python."""
    (tmp_path / "after.py").write_text(
        (project / "script.py").read_text().replace("deterministic=True", "deterministic=True, hang_timeout=5")
        + "import signal, time\ntime.sleep(12)\nassert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    )
    (tmp_path / "mine.py").write_text((project / "mine.py").read_text())
    done = run_command(BIN / "python", tmp_path / "after.py", tmp_path / "run", NOTES=str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
