"""A user's own network, data and callback, in a file outside of the repository: the same bits however it is started."""

import json
import subprocess
import sys
import textwrap
import time
import zipfile

import pytest
from conftest import BIN, ROOT, environment, run_command, summary

MINE = """
    import json, os
    import keras
    import numpy as np

    def network(classes, image_size):
        layers = keras.layers
        return keras.Sequential([
            keras.Input((image_size, image_size, 3), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, activation="relu", kernel_initializer=keras.initializers.HeNormal(1)),
            layers.SpatialDropout2D(0.0),
            layers.MaxPooling2D(),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(32, activation="relu", kernel_initializer=keras.initializers.HeNormal(2)),
            layers.Dropout(0.5),
            layers.Dense(classes, kernel_initializer=keras.initializers.HeNormal(3)),
        ])

    def examples():
        random = np.random.default_rng(0)
        y = np.arange(203) % 5
        x = random.integers(0, 120, (203, 12, 12, 3))
        x[np.arange(203), y * 2] += 120
        return (x.astype(np.uint8), y, list("abcde")), (x[:51].astype(np.uint8), y[:51])

    class Notes(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.events, self.steps = [], 0

        def on_train_begin(self, logs=None):
            self.events.append("begin")

        def on_epoch_begin(self, epoch, logs=None):
            self.next = 0

        def on_train_batch_begin(self, batch, logs=None):
            assert batch == self.next

        def on_train_batch_end(self, batch, logs=None):
            self.steps += batch + 1 - self.next
            self.next = batch + 1
            assert logs["loss"] > 0

        def on_epoch_end(self, epoch, logs=None):
            self.events.append([epoch, self.steps, logs["loss"], logs["val_accuracy"], self.model.count_params()])

        def on_train_end(self, logs=None):
            self.events.append("end")
            rank = os.environ.get("OMPI_COMM_WORLD_RANK", "0")
            with open(os.path.join(os.environ["NOTES"], f"notes-{rank}.json"), "w") as file:
                json.dump(self.events, file)

    def callbacks():
        return [Notes()]
"""
SCRIPT = """
    import os, sys
    from launch.job.config import TrainConfig
    from launch.job.run import train
    import mine

    settings = dict(epochs=2, global_batch_size=24, micro_batch_size=2, deterministic=True, learning_rate=0.02)
    result = train(
        TrainConfig(**settings, run_dir=sys.argv[1]), model=mine.network, data=mine.examples, callbacks=mine.callbacks()
    )
    assert result.model.layers[-1].units == 5 and str(result.run_dir) == sys.argv[1]
    rank = os.environ.get("OMPI_COMM_WORLD_RANK", "0")
    result.model.save(os.path.join(os.environ["NOTES"], f"model-{rank}.keras"))
    with open(os.path.join(os.environ["NOTES"], f"weights-{rank}"), "w") as file:
        file.write(result.summary["weights_sha256"])
"""
FLAGS = "--epochs 2 --global-batch-size 24 --micro-batch-size 2 --deterministic --learning-rate 0.02"
WORKERS = {
    "single": ((), ()),
    "mirrored-2": ((), ("--strategy", "mirrored", "--cpu-devices", "2")),
    "mirrored-3": ((), ("--strategy", "mirrored", "--cpu-devices", "3")),
    "horovod-2": (("horovodrun", "-np", "2"), ()),
    "horovod-3": (("horovodrun", "-np", "3"), ()),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    (folder / "mine.py").write_text(textwrap.dedent(MINE))
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
    return folder


def own(project):
    mine = project / "mine.py"
    return ["--model", f"{mine}:network", "--dataset", f"{mine}:examples", "--callbacks", f"{mine}:callbacks"]


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
    assert (first, last) == ("begin", "end")
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


BROKEN = {
    "network": ("def network(classes, image_size):", "raise KeyError('lost')", "network raised KeyError: 'lost'"),
    "callback": ("def on_epoch_end(self, epoch, logs=None):", "print(1 / 0)", "Notes.on_epoch_end raised ZeroDivision"),
    "callback on one rank": (
        "def on_train_batch_end(self, batch, logs=None):",
        "assert os.environ['OMPI_COMM_WORLD_RANK'] == '0', 'odd'",
        "Notes.on_train_batch_end raised AssertionError: odd",
    ),
    "softmax": ("layers = keras.layers", "layers.Dense = lambda n, **k: keras.layers.Dense(n, 'softmax')", "softmax"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_error_in_the_users_code_ends_all_ranks_with_its_traceback_once(project, tmp_path, case):
    line, broken, sentence = BROKEN[case]
    text = textwrap.dedent(MINE)
    indent = next(found for found in text.splitlines() if line in found).partition(line)[0]
    body = indent + "    " * line.startswith("def")
    (tmp_path / "mine.py").write_text(text.replace(line, f"{line}\n{body}{broken}"))
    words = (*own(tmp_path), *FLAGS.split(), "--run-dir", tmp_path / "run")
    done = run_command("horovodrun", "-np", "2", BIN / "python", ROOT / "launch/train.py", *words, NOTES=str(tmp_path))
    said = done.stdout + done.stderr
    assert done.returncode == 2, said[-3000:]
    assert said.count(sentence) == 1, said
    if case != "softmax":
        assert said.count("Traceback") == 1 and "mine.py" in said
    if not case.startswith("callback"):
        # Nothing was begun, and nothing is left.
        assert not (tmp_path / "run").exists()


def test_a_changed_file_is_said_on_resume(project, tmp_path):
    (tmp_path / "mine.py").write_text((project / "mine.py").read_text())
    words = [BIN / "python", ROOT / "launch/train.py", *own(tmp_path), *FLAGS.split(), "--run-dir", tmp_path / "run"]
    assert run_command(*words, NOTES=str(tmp_path)).returncode == 0
    with open(tmp_path / "mine.py", "a") as file:
        file.write("# another file now\n")
    again = run_command(*words, "--epochs", "3", NOTES=str(tmp_path))
    assert again.returncode == 0, again.stderr[-2000:]
    assert "the file of --model (SHA-256 was" in again.stdout and summary(tmp_path / "run")["epochs"] == 3


def test_a_callback_may_stop_the_run_which_then_is_finished(project, tmp_path):
    text = textwrap.dedent(MINE) + textwrap.dedent("""
        def stop():
            return [keras.callbacks.EarlyStopping("loss", min_delta=100.0, patience=1, start_from_epoch=1)]
    """)
    (tmp_path / "mine.py").write_text(text)
    words = [BIN / "python", ROOT / "launch/train.py", *own(tmp_path), "--callbacks", tmp_path / "mine.py:stop"]
    words += [*FLAGS.split(), "--epochs", "9", "--run-dir", tmp_path / "run"]
    assert run_command("horovodrun", "-np", "2", *words).returncode == 0
    facts = summary(tmp_path / "run")
    assert (facts["epochs"], facts["stopped_by"]) == (3, "early_stopping")
    again = run_command(*words)
    assert again.returncode == 0 and "already finished; leave out the callback" in again.stdout
    assert summary(tmp_path / "run") == facts


def test_a_script_may_do_something_else_after_training(project, tmp_path):
    """It is not taken for one that hangs, and Ctrl-C means to it again what it means to Python."""
    (tmp_path / "after.py").write_text(
        (project / "script.py").read_text().replace("deterministic=True", "deterministic=True, hang_timeout=1.5")
        + "import signal, time\ntime.sleep(6)\nassert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    )
    (tmp_path / "mine.py").write_text((project / "mine.py").read_text())
    done = run_command(BIN / "python", tmp_path / "after.py", tmp_path / "run", NOTES=str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_run_that_has_lost_its_directory_saves_nothing_more(project, tmp_path):
    text = textwrap.dedent(MINE) + textwrap.dedent("""
        import shutil

        class Thief(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                if epoch == 1:
                    shutil.rmtree(os.path.join(os.environ["NOTES"], "run", ".lock"))

        def steal():
            return [Thief()]
    """)
    (tmp_path / "mine.py").write_text(text)
    words = [BIN / "python", ROOT / "launch/train.py", *own(tmp_path), "--callbacks", tmp_path / "mine.py:steal"]
    done = run_command(*words, *FLAGS.split(), "--epochs", "9", "--run-dir", tmp_path / "run", NOTES=str(tmp_path))
    assert done.returncode == 1 and "is no longer this run's own: its .lock was removed" in done.stderr
    assert [path.name for path in (tmp_path / "run/checkpoints").glob("step-*")] == ["step-00000008"]


def test_two_runs_at_once_in_one_directory_and_again_after_a_kill(tmp_path, tiny_data):
    """One trains, the other is refused; after ``kill -9`` of the first the directory is free again."""
    words = [sys.executable, ROOT / "launch/train.py", "--dataset", "npz", "--data-dir", tiny_data, "--epochs", 3000]
    words = [str(word) for word in (*words, "--image-size", 16, "--batch-size", 8, "--run-dir", tmp_path / "run")]
    with open(tmp_path / "log-0", "w") as first, open(tmp_path / "log-1", "w") as second:
        runs = [subprocess.Popen(words, env=environment(), cwd="/", stdout=log, stderr=log) for log in (first, second)]
    try:
        end = time.monotonic() + 120
        while all(run.poll() is None for run in runs) and time.monotonic() < end:
            time.sleep(0.1)
        (refused,) = [number for number, run in enumerate(runs) if run.poll() is not None]
        owner = runs[1 - refused]
        said = (tmp_path / f"log-{refused}").read_text()
        assert runs[refused].returncode == 2 and f"process {owner.pid}" in said and said.count("\n") == 1, said
        while not (tmp_path / "run/checkpoints/last").exists() and time.monotonic() < end:
            time.sleep(0.1)
        assert owner.poll() is None
    finally:
        for run in runs:
            run.kill()
            run.wait()
    last = int((tmp_path / "run/checkpoints/last").resolve().name.removeprefix("step-"))
    shorter = [str(last // 25 + 1) if word == "3000" else word for word in words]
    done = subprocess.run(shorter, env=environment(), cwd="/", capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and "resumed from" in done.stdout, done.stderr
