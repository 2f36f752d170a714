"""Runs without the training, each a process that takes and gives back run directories, and what they leave there.

``quick``, ``start``, ``six`` and ``held`` are fixtures of the test files that name them so.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from conftest import ROOT

from launch.job.run_directory import liveness, lock
from launch.job.run_directory.lock import acquire

HEARTBEAT, OBSERVATION, POLL = 0.02, 0.2, 0.01
QUICK = {"lock": {"HEARTBEAT": HEARTBEAT}, "liveness": {"OBSERVATION": OBSERVATION, "POLL": POLL}}

# A run without the training: it takes and gives back directories as it is told on stdin, at the moment it is told.
RUN = """
import ctypes, json, os, resource, sys, time
from pathlib import Path

root, constants, machine = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
sys.path.insert(0, root)
from launch.job.run_directory import create, liveness, lock as locks

vars(locks).update(constants["lock"])
vars(liveness).update(constants["liveness"])
if machine:
    liveness._this_machine = lambda: machine
lock, lost = None, []
print("ready", flush=True)
for line in sys.stdin:
    verb, directory, moment = json.loads(line)
    time.sleep(max(0.0, moment - time.monotonic()))
    said = []
    answer = {"said": said}
    try:
        if verb == "create":
            answer["created"] = str(create.create(Path(directory), "net-data", 0.0))
        elif verb == "acquire":
            lock = locks.acquire(Path(directory), said.append, lost.append)
        elif verb == "release":
            lock.release()
        elif verb == "no room":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        elif verb == "exit":
            os._exit(3)
        elif verb == "end the main thread":
            ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)
    except Exception as error:
        answer |= {"refused": type(error).__name__, "sentence": str(error)}
    answer |= {"held": lock is not None and lock.is_held(), "lost": lost}
    print(json.dumps(answer), flush=True)
"""


class Run:
    """A process that runs ``RUN``."""

    def __init__(self, constants: dict, machine: dict | None):
        words = [sys.executable, "-c", RUN, ROOT, json.dumps(constants), json.dumps(machine)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait(self) -> None:
        """Until it is ready."""
        assert self.process.stdout.readline() == "ready\n"

    def tell(self, verb: str, directory: Path | str = "", moment: float = 0.0) -> None:
        self.process.stdin.write(json.dumps([verb, str(directory), moment]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict:
        return json.loads(self.process.stdout.readline())

    def do(self, verb: str, directory: Path | str = "") -> dict:
        self.tell(verb, directory)
        return self.answer()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def quick(monkeypatch):
    """This process gives signs of life as often as these runs do, and waits no longer for those of others."""
    for module, constants in ((lock, QUICK["lock"]), (liveness, QUICK["liveness"])):
        for name, value in constants.items():
            monkeypatch.setattr(module, name, value)


def start():
    """Start runs, on another machine if one is given."""
    runs = []

    def start(machine: dict | None = None) -> Run:
        runs.append(Run(QUICK, machine))
        runs[-1].wait()
        return runs[-1]

    yield start
    for run in runs:
        run.kill()


def six():
    """Six runs; each test has them release what they acquire."""
    runs = [Run(QUICK, None) for _ in range(6)]
    for run in runs:
        run.wait()
    yield runs
    for run in runs:
        run.kill()


def held():
    """Acquire directories, and give them back at the end."""
    locks = []

    def held(directory: Path, said: list | None = None, on_lost=None):
        locks.append(acquire(directory, (said if said is not None else []).append, on_lost))
        return locks[-1]

    yield held
    for owned in locks:
        owned.release()


def content(directory: Path) -> dict[str, bytes]:
    """Path -> bytes of all files, without the heartbeats."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): path.read_bytes().partition(b"\n")[0] for path in files}


def record(directory: Path) -> dict:
    """The record of the one lock in the directory."""
    (path,) = (directory / ".lock").iterdir()
    return json.loads(path.read_bytes().partition(b"\n")[0])


def a_dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def plant(directory: Path, **other) -> Path:
    """Leave a lock of a process of this machine that is gone, or what else is said of it."""
    path = directory / ".lock" / "0123456789abcdef"
    path.parent.mkdir(parents=True)
    path.touch()
    facts = liveness._this_process() | {"since": "2025-01-02 03:04:05", "inode": path.stat().st_ino}
    facts |= {"pid": a_dead_pid()} | other
    path.write_bytes(json.dumps(facts).encode() + b"\n000000000007\n")
    return path


def race(runs: list[Run], verb: str, directory: Path) -> list[dict]:
    """Let all do the same at the same moment; their answers."""
    moment = time.monotonic() + 0.005
    for run in runs:
        run.tell(verb, directory, moment)
    return [run.answer() for run in runs]
