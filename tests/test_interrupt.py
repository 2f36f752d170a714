"""Ctrl-C in the programs beside training, wherever it hits."""

import subprocess
import sys

import pytest
from conftest import ROOT, environment

# The signal comes while Python calls a function that it lets raise nothing.
WITHIN = {
    "weak reference": "import weakref; it = C(); keep = weakref.ref(it, lambda _: interrupt()); del it",
    "destructor": "C.__del__ = lambda self: interrupt(); C()",
}
PROGRAM = """
import signal, sys, threading, time
from launch.trained.interrupts import Interrupts

class C: pass
def interrupt(): signal.raise_signal(signal.SIGINT)
Interrupts().listen()
{before}
try:
    {within}
    time.sleep(20)
    print("went on")
except KeyboardInterrupt:
    print("interrupted")
"""

# A second signal while the first one's traces are removed, and a library that cannot bear the first.
CONFUSED = """
import argparse, signal, time
from launch.trained import program

def work(workers):
    try:
        signal.raise_signal(signal.SIGUSR1)
        time.sleep(20)
    finally:
        signal.raise_signal(signal.SIGINT)
        print("cleaned up", flush=True)
        raise RuntimeError("scopes are not nested")

program.run(argparse.Namespace(strategy="single", cpu=True, cpu_devices=None), work)
"""

# It comes when all is done, on the way out.
LATE = """
import argparse, atexit, signal
from launch.trained import program

def leave():
    signal.raise_signal(signal.SIGINT)
    print("left", flush=True)

atexit.register(leave)
raise SystemExit(program.run(argparse.Namespace(strategy="single", cpu=True, cpu_devices=None), lambda workers: 0))
"""

# A converter of an export's says in its own words what hit it.
EXPORT = """
import signal
from launch.exports import run
from launch.export import main

def export(*arguments):
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        raise run.OutputError("the network cannot be written")

run.export = export
raise SystemExit(main(["run", "--format", "keras"]))
"""


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=240
    )


# What starts a thread waits long for it, in which the thread's signal comes.
STALLED = "wait = threading.Event.wait; threading.Event.wait = lambda *given: (wait(*given), time.sleep(0.1))[0]"


@pytest.mark.parametrize("before", ("", STALLED), ids=("at once", "stalled"))
@pytest.mark.parametrize("place", WITHIN)
def test_an_interrupt_is_not_lost(place, before):
    done = run(PROGRAM.format(within=WITHIN[place], before=before))
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_what_an_interrupt_makes_of_a_library_is_an_interrupt_and_a_second_one_waits():
    done = run(CONFUSED)
    assert (done.returncode, done.stdout) == (130, "cleaned up\n")
    assert done.stderr == "error: interrupted; what has been written so far is whole\n"


def test_an_export_says_that_it_was_interrupted_whatever_its_converter_says():
    done = run(EXPORT)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.endswith("error: interrupted; nothing was written\n") and "cannot be" not in done.stderr


def test_one_that_comes_when_all_is_done_changes_nothing():
    done = run(LATE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")
