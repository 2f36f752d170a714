"""How a run of a user's own code ends where that raises, stops it, or has changed since."""

import textwrap

import own_code
import pytest
from conftest import BIN, ROOT, run_command, summary
from own_code import FLAGS, MINE, own

project = pytest.fixture(own_code.project, scope="module")

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
