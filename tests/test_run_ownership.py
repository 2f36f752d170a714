"""Real runs and their directory: of two at once one trains, and one that has lost it saves nothing more."""

import subprocess
import sys
import textwrap
import time

from conftest import BIN, ROOT, environment, run_command
from own_code import FLAGS, MINE, own


def test_a_run_that_has_lost_its_directory_saves_nothing_more(tmp_path):
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
        end = time.monotonic() + 400
        while all(run.poll() is None for run in runs) and time.monotonic() < end:
            time.sleep(0.1)
        (refused,) = [number for number, run in enumerate(runs) if run.poll() is not None]
        owner = runs[1 - refused]
        said = (tmp_path / f"log-{refused}").read_text()
        assert runs[refused].returncode == 2 and f"process {owner.pid}" in said and said.count("\n") == 1, said
        while owner.poll() is None and not (tmp_path / "run/checkpoints/last").exists() and time.monotonic() < end:
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
