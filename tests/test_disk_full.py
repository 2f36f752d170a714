"""A disk that is full or refuses: logs are warned about once, a checkpoint ends the run cleanly on all ranks."""

import json
import re
import subprocess

import pytest
from conftest import counted, run_jobs, summary
from test_resume import table

from distributed.checkpoint import manager

# 16 steps per epoch.
LINE = "--dataset npz --global-batch-size 12 --epochs 2 --learning-rate 0.02 --deterministic --checkpoint-every-steps 5"
# Smaller than the tiny network's weights on disk, larger than all else that grows during the run.
LIMIT = 38_000


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, tiny_data):
    """On two ranks: a run, one whose save fails in mid-run, one whose last save fails, and both once more."""
    folder = tmp_path_factory.mktemp("ranks")
    line = [*LINE.split(), "--data-dir", tiny_data]
    again = {f"{name} again": [*line, "--run-dir", folder / name] for name in ("full", "full at the end")}
    plants = {"full": [["limit", 20, LIMIT]], "full at the end": [["limit", 32, LIMIT]]}
    jobs = {"whole": line, "full": line, "full at the end": line} | again
    codes = run_jobs(folder, jobs, "horovodrun", "-np", 2, plants=plants)
    others = json.loads((folder / "codes-1.json").read_text())
    return folder, codes, others, said_by_job(folder)


def said_by_job(folder):
    """What was said on stderr, without mpirun's tags."""
    text = re.sub(r"\[1,\d\]<stderr>:", "", (folder / "errors.txt").read_text())
    parts = [part.partition("\n") for part in text.split("job: ")[1:]]
    return {name: rest.strip() for name, _, rest in parts}


@pytest.mark.parametrize(("name", "step"), (("full", 20), ("full at the end", 32)))
def test_a_failed_save_ends_all_ranks_with_one_sentence(ranks, name, step):
    folder, codes, others, said = ranks
    assert (codes[name], others[name]) == (1, 1)
    errors = [line for line in said[name].splitlines() if "error: " in line]
    assert len(errors) == 1 and "Traceback" not in said[name], said[name]
    path = folder / name / "checkpoints" / f".writing-step-{step:08d}" / "weights.safetensors"
    assert f"the checkpoint of step {step} could not be saved (File too large: {path})" in errors[0]


@pytest.mark.parametrize("name", ("full", "full at the end"))
def test_the_checkpoint_before_it_is_intact_and_the_run_goes_on_from_it(ranks, name):
    folder, codes, others, _ = ranks
    with counted("a file system that refuses a checkpoint of two ranks"):
        assert (codes[f"{name} again"], others[f"{name} again"]) == (0, 0)
        assert summary(folder / name)["weights_sha256"] == summary(folder / "whole")["weights_sha256"]
        assert summary(folder / name)["final"] == summary(folder / "whole")["final"]
        assert table(folder / name) == table(folder / "whole")


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory):
    """A file system of 20 kB, less than the event files of a run need."""
    place = tmp_path_factory.mktemp("small") / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20k", "none", place], capture_output=True, text=True)
    yield place if mounted.returncode == 0 else mounted.stderr.strip()
    if mounted.returncode == 0:
        subprocess.run(["umount", place], check=True)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny_data, small_disk):
    """One process: logs on places that refuse them, a disk that is full of logs, and one too small for a checkpoint."""
    folder = tmp_path_factory.mktemp("alone")
    line = [*LINE.split(), "--data-dir", tiny_data]
    jobs = {"whole": line, "refused": line}
    # Folders where files should be, and a file where a folder should be.
    (folder / "refused" / ".metrics.csv.tmp").mkdir(parents=True)
    (folder / "refused" / "config.yaml").mkdir()
    (folder / "refused" / "tensorboard").write_text("")
    (folder / "no report" / ".summary.json.tmp").mkdir(parents=True)
    (folder / "no report" / "curves.png").mkdir()
    jobs["no report"] = line
    if not isinstance(small_disk, str):
        (small_disk / "logs").mkdir()
        (small_disk / "logs" / "checkpoints").symlink_to(folder / "elsewhere")
        (folder / "elsewhere").mkdir()
        (folder / "no room").mkdir()
        (folder / "no room" / "checkpoints").symlink_to(small_disk)
        jobs["full of logs"] = [*line, "--run-dir", small_disk / "logs"]
        jobs["no room"] = line
    codes = run_jobs(folder, jobs)
    return folder, codes, said_by_job(folder)


def test_logs_that_cannot_be_written_are_warned_about_once_each(alone):
    folder, codes, said = alone
    assert codes["refused"] == 0
    lines = said["refused"].splitlines()
    for name, reason, line in zip(
        ("config.yaml", "metrics.csv", "tensorboard"),
        ("Is a directory", "Is a directory", "is not a directory"),
        lines,
        strict=True,
    ):
        assert line.startswith("warning: ") and f"refused/{name} cannot be written (" in line and reason in line
        assert line.endswith("); training goes on") and "Op:" not in line
    assert summary(folder / "refused")["weights_sha256"] == summary(folder / "whole")["weights_sha256"]


def test_curves_that_cannot_be_drawn_are_a_warning_and_a_missing_summary_is_exit_code_1(alone):
    _, codes, said = alone
    assert codes["no report"] == 1
    error, warning = said["no report"].splitlines()
    assert error.startswith("error: ") and "no report/summary.json cannot be written (Is a directory)" in error
    assert warning.startswith("warning: ") and "no report/curves.png cannot be written (Is a directory)" in warning


def test_a_disk_full_of_logs_does_not_stop_training(alone, small_disk):
    if isinstance(small_disk, str):
        pytest.skip(f"no file system can be mounted here: {small_disk}")
    folder, codes, said = alone
    newest, problems = manager.newest(folder / "elsewhere")
    assert manager.step_of(newest) == 32 and not problems
    assert "No space left on device" in said["full of logs"]
    assert said["full of logs"].count("tensorboard cannot be written") == 1
    whole = folder / "whole" / "checkpoints" / newest.name
    assert (newest / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()


def test_a_disk_without_room_for_a_checkpoint_is_exit_code_1(alone, small_disk):
    if isinstance(small_disk, str):
        pytest.skip(f"no file system can be mounted here: {small_disk}")
    _, codes, said = alone
    assert codes["no room"] == 1
    (line,) = said["no room"].splitlines()
    assert "the checkpoint of step 5 could not be saved (No space left on device: " in line
