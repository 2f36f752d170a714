"""What a start takes, from the command to the end of the first step, on folders of few and of many files."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from launch.bench.contestants import BASELINES, LAUNCH
from launch.bench.report import Result
from launch.bench.runner import BenchmarkError, Runner

BY_HAND, FIRST, AGAIN = "one step by hand", "lockstep", "lockstep again"
CLASSES = 10  # folders of each data set
MEMORY = Path("/dev/shm")  # where the files lie, if there is such a place


def start(arguments, runner: Runner) -> Result:
    """From the command to the end of the first step, by phases, beside loading TensorFlow and one step by hand.

    The files of a data set are links to one small picture per class.  ``lockstep again`` is the same command once more
    in the same run directory, with an epoch more: it goes on from the checkpoint.
    """
    result = Result("start_seconds")
    settings = [(files, ranks) for files in arguments.files for ranks in arguments.ranks]
    by_hand, starts = [], {(*setting, name): [] for setting in settings for name in (FIRST, AGAIN)}
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-", dir=memory) as folder:
        data = {files: make_files(Path(folder) / str(files), files) for files in arguments.files}
        for number in range(arguments.rounds):
            runner.say(f"round {number + 1} of {arguments.rounds}")
            by_hand.append(time_by_hand())
            for files, ranks in settings:
                run = runner.folder / f"{files}-{ranks}-{number}"
                for epochs, name in enumerate((FIRST, AGAIN), start=1):
                    starts[files, ranks, name].append(time_start(data[files], run, ranks, epochs))
                shutil.rmtree(run)
    least = median(by_hand)
    result.add("", "", BY_HAND, {"start_seconds": least, "start_spread": [min(by_hand), max(by_hand)]})
    for (files, ranks, name), found in starts.items():
        seconds = [phases["seconds"] for phases in found]
        middle = sorted(found, key=lambda phases: phases["seconds"])[len(found) // 2]
        case, setting = f"{files:,} files", f"{ranks} rank{'s' * (ranks > 1)}"
        columns = {"start_seconds": median(seconds), "start_spread": [min(seconds), max(seconds)]}
        columns |= {"as_long": median(seconds) / least, "phases": middle}
        result.add(case, setting, name, columns)
        parts = ", ".join(f"{phase} {took:.2f}" for phase, took in middle.items() if phase != "seconds")
        result.notes.append(f"{case}, {setting}, {name}: {parts}")
    return result


def make_files(folder: Path, count: int) -> Path:
    """An image folder of so many names, which cost no memory but their own: links to one picture per class."""
    from PIL import Image

    for label in range(CLASSES):
        inside = folder / f"class{label}"
        inside.mkdir(parents=True)
        picture = inside / "0000000.png"
        Image.new("RGB", (32, 32), (25 * label, 0, 0)).save(picture)
        for index in range(1, len(range(label, count, CLASSES))):
            os.link(picture, inside / f"{index:07}.png")
    return folder


def time_by_hand() -> float:
    """Seconds until ``launch/baselines/first_step.py`` has taken its step."""
    began = time.time()
    return float(_output([sys.executable, BASELINES / "first_step.py"])) - began


def time_start(data: Path, run: Path, ranks: int, epochs: int) -> dict[str, float]:
    """Train for epochs of one step; ``seconds`` until the first one was taken, and those of each phase."""
    launcher = [Path(sys.executable).parent / "horovodrun", "-np", ranks] if ranks > 1 else []
    words = ["--model", f"{BASELINES / 'tiny.py'}:network", "--image-size", 32, "--global-batch-size", 8]
    words += ["--dataset", "image_folder", "--data-dir", data, "--validation-split", 0]
    words += ["--epochs", epochs, "--steps-per-epoch", 1, "--run-dir", run]
    _output([*launcher, sys.executable, LAUNCH / "train.py", *words])
    return json.loads((run / "summary.json").read_text())["startup"]


def _output(command: list) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise BenchmarkError(f"{command} ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}"[-3000:])
    return done.stdout
