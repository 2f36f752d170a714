"""Signals: what they mean at each moment, and that a run which left goes on as if it had not."""

import csv
import functools
import json
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, record_fault, run_jobs, summary

from distributed.health import heartbeat, preemption
from distributed.health.preemption import StopRequest

pytestmark = pytest.mark.faults

TERM, USR1, USR2, INT, HUP = signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP


@pytest.fixture
def clock(monkeypatch):
    """The time that a stop_request sees, as a list of one; what would end this process is recorded instead."""
    now = [100.0]
    monkeypatch.setattr(preemption.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(preemption.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(preemption, "say", lambda sentence: None)
    monkeypatch.setattr(heartbeat, "_record", heartbeat.Record(code=heartbeat.RUNNING))
    return now


@pytest.mark.parametrize(("number", "code"), ((TERM, 85), (USR1, 85), (USR2, 85), (HUP, 85), (INT, 130)))
def test_before_training_a_signal_ends_the_process(clock, number, code):
    codes = []
    StopRequest(codes.append).hear(number)
    assert codes == [code]


@pytest.mark.parametrize(("number", "name"), ((TERM, "leave"), (USR1, "leave"), (HUP, "leave"), (INT, "interrupt")))
def test_in_training_the_first_is_told_and_the_second_ends(clock, number, name):
    codes, told = [], []
    stop_request = StopRequest(codes.append)
    stop_request.deliver_to(told.append)
    stop_request.hear(number)
    assert (told, codes) == ([name], [])
    clock[0] += 0.2
    stop_request.hear(number)
    assert (told, codes) == ([name], []), "the same request, sent to the group and handed on by the launcher"
    clock[0] += 2
    stop_request.hear(number)
    assert (told, codes) == ([name], [128 + number])


@pytest.mark.parametrize("number", (TERM, USR1, USR2, HUP))
def test_two_programs_that_hand_on_one_signal_make_one_request(clock, number):
    """srun and the batch script, a second and a half apart; another signal means something else."""
    codes, told = [], []
    stop_request = StopRequest(codes.append)
    stop_request.deliver_to(told.append)
    stop_request.hear(number)
    clock[0] += 1.5
    stop_request.hear(number)
    assert (told, codes) == (["leave"], [])
    stop_request.hear(INT)
    assert codes == [128 + INT]


def test_ctrl_c_pressed_twice_is_meant(clock):
    codes = []
    stop_request = StopRequest(codes.append)
    stop_request.deliver_to(lambda name: None)
    stop_request.hear(INT)
    clock[0] += 0.8
    stop_request.hear(INT)
    assert codes == [128 + INT]


def test_once_all_is_saved_the_second_has_the_first_ones_code(clock):
    codes = []
    stop_request = StopRequest(codes.append)
    stop_request.deliver_to(lambda name: None)
    stop_request.hear(USR1)
    stop_request.saved()
    clock[0] += 1
    stop_request.hear(TERM)
    assert codes == [85]


@pytest.mark.parametrize(
    ("names", "code"), ((["leave"], 85), (["interrupt"], 130), (["leave", "interrupt"], 85), (["interrupt", "x"], 130))
)
def test_exit_code_by_notices(names, code):
    assert preemption.code_of(names) == code


BUSY = """
import ctypes, os, sys
sys.path.insert(0, {root!r})
from distributed.health import preemption
stop_request = preemption.listen()
stop_request.deliver_to(lambda name: os.write(1, name.encode() + b"\\n"))
os.write(1, b"ready\\n")
read, _ = os.pipe()
ctypes.CDLL(None).read(read, ctypes.create_string_buffer(1), 1)
os.write(1, b"the call was broken off")
"""


def test_heard_while_the_main_thread_is_in_a_library():
    """No bytecode of the main thread runs, and its call is not broken off by the signal."""
    words = [sys.executable, "-c", BUSY.format(root=str(ROOT))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(USR1)
        assert process.stdout.readline() == "leave\n"
        time.sleep(2 * preemption.SAME_REQUEST)
        process.send_signal(TERM)
        assert process.wait(20) == 128 + TERM
        assert process.stdout.read() == ""


# Moments of a run of 3 epochs x 12 steps: the signal, where, at which rank and step.
MOMENTS = {
    "first_step": ("SIGTERM@step", 0, 0),
    "middle": ("SIGUSR1@step", 1, 17),
    "interrupted": ("SIGINT@step", 1, 30),
    "last_step_of_epoch": ("SIGUSR2@step", 1, 11),
    "validation": ("SIGUSR1@validation", 1, 12),
    "last_validation": ("SIGUSR1@validation", 0, 36),
    "saving": ("SIGTERM@saving", 0, 24),
    "last_step": ("SIGTERM@step", 1, 35),
    "second_to_last_step": ("SIGTERM@step", 1, 33),
}
LINE = """--dataset npz --global-batch-size 12 --steps-per-epoch 12 --epochs 3 --learning-rate 0.02 --warmup-epochs 0
--optimizer adam --dropout 0.3 --augment flip_crop --plateau-patience 1 --min-delta 10 --deterministic
--restore-best-weights --metrics accuracy,auc"""
ALONE = ("middle", "last_step_of_epoch", "validation")  # moments at which one process is looked at as well
SETS = {
    "single": ((), ()),
    "mirrored": ((), ("--cpu-devices", 2)),
    "horovod": (("horovodrun", "-np", "2"), ()),
}


CASES = [(workers, moment) for workers in SETS for moment in (MOMENTS if workers == "horovod" else ALONE)]


@pytest.fixture(scope="module")
def departed(tmp_path_factory, tiny_data):
    """Workers -> (folder, exit codes) of the whole run, and of those that left and that went on."""

    @functools.cache
    def run(workers):
        launcher, more = SETS[workers]
        folder = tmp_path_factory.mktemp(workers)
        line = [*LINE.split(), *more, "--data-dir", tiny_data.with_name("val1003.npz")]
        jobs, plants = {"whole": line, "left": line}, {"left": [["SIGUSR1@step", 0, 4]]}
        for moment, (fault, rank, step) in MOMENTS.items():
            if not launcher and moment not in ALONE:
                continue
            jobs[moment] = line
            plants[moment] = [[fault, rank if launcher else 0, step]]
            jobs[f"{moment} again"] = [*line, "--run-dir", folder / moment]
        return folder, run_jobs(folder, jobs, *launcher, plants=plants)

    return run


def rows(folder):
    """metrics.csv without the columns of times."""
    with open(folder / "metrics.csv", newline="") as file:
        return [
            {k: v for k, v in row.items() if k not in ("images_per_second", "seconds")} for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize(("workers", "moment"), CASES)
def test_leaves_with_its_code_and_goes_on_as_if_it_had_not(departed, workers, moment):
    folder, codes = departed(workers)
    fault = MOMENTS[moment][0]
    left = {"SIGINT@step": 130}.get(fault, 85)
    if moment == "last_step":
        # Nothing is left to do but the summary: whether the notice is still heard or not, the run is done or goes on.
        assert codes[moment] in (0, left)
    else:
        assert codes[moment] == left
    assert codes[f"{moment} again"] == 0
    resumed, whole = summary(folder / moment), summary(folder / "whole")
    record_fault(f"a signal, {workers}", 1, int(resumed["weights_sha256"] != whole["weights_sha256"]))
    for field in ("final", "best", "steps", "epochs", "stopped_by", "learning_rate", "weights_sha256"):
        assert resumed[field] == whole[field], field
    assert rows(folder / moment) == rows(folder / "whole")


@pytest.mark.parametrize("workers", SETS)
def test_a_run_that_left_says_so(departed, workers):
    folder, codes = departed(workers)
    said = (folder / "output.txt").read_text()
    assert said.count(": checkpoint saved; run the same command again to go on") == sum(
        code in (85, 130) for code in codes.values()
    )
    facts = summary(folder / "left")
    assert facts["stopped_by"] == "preempted" and 4 < facts["steps"] < 12 and facts["final"] == {}
    assert list((folder / "left" / "checkpoints").glob("step-*")) == [
        folder / "left" / "checkpoints" / f"step-{facts['steps']:08d}"
    ]


@pytest.mark.parametrize("workers", SETS)
def test_the_state_of_a_broken_validation_is_that_before_it(departed, workers):
    folder, _ = departed(workers)
    # The checkpoint was replaced once the epoch had been decided: the resumed run has validated.
    manifest = json.loads((folder / "validation" / "checkpoints" / "step-00000012" / "manifest.json").read_text())
    assert manifest["monitored"] is not None
