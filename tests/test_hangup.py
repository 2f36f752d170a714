"""A closed terminal is a request to leave, nohup is not; output that nobody reads ends neither training nor saving."""

import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, counted, environment, run_command, summary
from deaths import Job
from user_files import SMALL

LINE = [*"--dataset npz --global-batch-size 12 --steps-per-epoch 12 --hang-timeout 60".split()]
TRAIN = ROOT / "launch" / "train.py"
LOCKSTEPRUN = (sys.executable, str(ROOT / "launch" / "install" / "horovodrun.py"), "-np", "2")
GLOO = (*LOCKSTEPRUN, "--gloo")
LISTENS = """
import os, signal, sys
sys.path.insert(0, {root!r})
from distributed.health import preemption
stop_request = preemption.listen()
stop_request.deliver_to(lambda name: (os.write(1, name.encode()), os._exit(0)))
os.write(1, b"ready")
signal.pause()
signal.pause()
"""


@pytest.mark.parametrize(
    ("before", "told"),
    ((("env", "--default-signal=HUP"), b"leave"), (("nohup",), b"")),
    ids=("terminal", "nohup"),
)
def test_sighup_is_a_request_but_for_nohup(before, told):
    words = [*before, sys.executable, "-c", LISTENS.format(root=str(ROOT))]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(5) == b"ready"
        process.send_signal(signal.SIGHUP)
        if not told:
            time.sleep(0.5)
            assert process.poll() is None
            process.kill()
        assert process.stdout.read() == told


def train(folder, data) -> list:
    """The real program on a network that trains in a moment."""
    (folder / "net.py").write_text(SMALL)
    given = ["--data-dir", data, "--model", folder / "net.py:build", "--run-dir", folder / "run"]
    return [sys.executable, TRAIN, *LINE, *given]


def on_terminal(words: list, folder) -> tuple[subprocess.Popen, int]:
    """A command as the session of a terminal of its own, with our end of the terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
         "os.execvp(sys.argv[1], sys.argv[1:])", *map(str, words)],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment(), cwd=folder, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    return process, ours


@pytest.mark.faults
@pytest.mark.parametrize("launcher", ((), LOCKSTEPRUN), ids=("one process", "horovodrun"))
@pytest.mark.parametrize("before", ((), ("nohup",)), ids=("terminal", "nohup"))
def test_a_terminal_is_closed(tmp_path, tiny_data, launcher, before):
    epochs = 40 if before else 9000
    words = [*before, *launcher, *train(tmp_path, tiny_data), "--epochs", epochs]
    process, terminal = on_terminal(words, tmp_path)
    with counted("a terminal was closed"):
        end = time.monotonic() + 240
        while not (tmp_path / "run" / "metrics.csv").exists():
            assert process.poll() is None and time.monotonic() < end
            os.set_blocking(terminal, False)
            try:
                os.read(terminal, 1 << 16)
            except OSError:
                time.sleep(0.1)
        os.close(terminal)
        assert process.wait(400) == (0 if before else 85)
        facts = summary(tmp_path / "run")
        assert facts["stopped_by"] == ("epochs" if before else "preempted")
        assert (tmp_path / "run" / "checkpoints" / f"step-{facts['steps']:08d}").is_dir()


@pytest.mark.faults
@pytest.mark.parametrize("launcher", ((), LOCKSTEPRUN, GLOO), ids=("one process", "horovodrun", "gloo"))
def test_the_launcher_got_sighup(tmp_path, tiny_data, launcher):
    job = Job(tmp_path, [*LINE, "--epochs", 9000, "--data-dir", tiny_data], *launcher)
    job.wait_for("epoch    1/9000")
    job.process.send_signal(signal.SIGHUP)
    with counted("the launcher got SIGHUP"):
        assert job.wait() == 85, job.said
        assert "checkpoint saved; run the same command again to go on" in job.said


@pytest.mark.parametrize(
    "launcher",
    (
        (),
        pytest.param(LOCKSTEPRUN, marks=pytest.mark.faults),
        pytest.param(GLOO, marks=pytest.mark.faults),
    ),
    ids=("one process", "horovodrun", "gloo"),
)
def test_output_that_nobody_reads_ends_nothing(tmp_path, tiny_data, launcher):
    words = [*launcher, *train(tmp_path, tiny_data), "--epochs", 12]
    line = f"({' '.join(map(str, words))} 2>&1; echo $? > {tmp_path}/code) | head -1; while [ ! -s {tmp_path}/code ]; "
    run_command("bash", "-c", f"{line}do sleep 0.1; done")
    assert (tmp_path / "code").read_text() == "0\n"
    facts = summary(tmp_path / "run")
    assert (facts["stopped_by"], facts["steps"]) == ("epochs", 144)
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 13
    assert (tmp_path / "run" / "checkpoints" / "step-00000144").is_dir()


STREAM = """
import sys
sys.path.insert(0, {root!r})
from launch.job.logs.streams import outlive_readers
outlive_readers()
sys.stdin.read()
for number in range(9):
    print("caf\\udce9 日本", number, flush=True)
print("x" * 100_000, end="")
"""


@pytest.mark.parametrize("unbuffered", ("", "1"))
@pytest.mark.parametrize("encoding", ("ascii", "utf-8"))
def test_a_stream_outlives_its_reader_and_prints_what_no_encoding_holds(unbuffered, encoding):
    variables = environment() | {"PYTHONUNBUFFERED": unbuffered, "PYTHONIOENCODING": encoding}
    words = [sys.executable, "-c", STREAM.format(root=str(ROOT))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, env=variables, **pipes) as process:
        process.stdout.close()
        process.stdin.close()
        assert (process.wait(60), process.stderr.read()) == (0, b"")
    with subprocess.Popen(words, env=variables, **pipes) as process:
        process.stdin.close()
        said = process.stdout.read()
    assert said.count(b"caf\\udce9 ") == 9 and len(said) > 100_000
