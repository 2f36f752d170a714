"""Ctrl-C during evaluate.py, predict.py and export.py, wherever it hits."""

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
import signal, sys, time
from launch.trained import program

class C: pass
def interrupt(): signal.raise_signal(signal.SIGINT)
sys.unraisablehook = program._raise_again
program._answer_signals(program._interrupt)
try:
    {within}
    time.sleep(20)
    print("went on")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("place", WITHIN)
def test_an_interrupt_is_not_lost(place):
    words = [sys.executable, "-c", PROGRAM.format(within=WITHIN[place])]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")
