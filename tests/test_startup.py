"""Where the time goes from the command to the first step, by the clock of the process."""

import json
import subprocess
import sys
import time

import pytest
from conftest import ROOT, environment

from launch.job.timing.startup import Startup, began_at

TICK = 0.02  # the kernel counts in hundredths of a second


def test_a_process_knows_when_it_was_started():
    words = (
        "import json, os, time; time.sleep(0.3); before = time.perf_counter()\n"
        "from launch.job.timing.startup import Startup, began_at\n"
        "startup = Startup.of_command(); startup.end('imports')\n"
        "print(json.dumps([began_at(os.getpid()), before, startup.summary()]))"
    )
    began = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", words], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    told, before, summary = json.loads(ended.stdout)
    # The clock is the whole machine's.
    assert began - TICK <= told <= before - 0.3 + TICK
    assert summary["imports"] >= 0.3 - TICK
    assert "launcher" not in summary


def test_phases_follow_each_other_and_short_ones_are_not_shown():
    startup = Startup(100.0)
    ends = {"imports": 103.1, "workers": 103.12, "data": 103.5, "build": 104.7, "first step": 107.6}
    for phase, now in ends.items():
        startup.end(phase, now)
    assert startup.sentence() == "started in 7.6 s: imports 3.1, data 0.4, build 1.2, first step 2.9"
    assert startup.summary() == pytest.approx(
        {"seconds": 7.6, "imports": 3.1, "workers": 0.02, "data": 0.38, "build": 1.2, "first step": 2.9}
    )


def test_a_process_that_is_gone_began_now():
    before = time.perf_counter()
    assert before <= began_at(2**22 + 1) <= time.perf_counter()
