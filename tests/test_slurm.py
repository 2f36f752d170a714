"""The batch scripts, with stand-ins for ``srun`` and ``python`` that print what they are called with."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "launch" / "slurm"
# What `srun --mpi=list` prints: Slurm 22.05 on Debian 12, and an older release (to stderr).
NEW_LIST = "MPI plugin types are...\n\tpmix\n\tnone\n\tpmi2\nspecific pmix plugin versions available: pmix_v4"
OLD_LIST = "srun: MPI types are...\nsrun: none\nsrun: pmi2\nsrun: openmpi"

SRUN = """#!/usr/bin/env bash
if [ "$1" = --mpi=list ]; then printf '%s\\n' "$OFFERED" >&2; exit 0; fi
echo srun; printf '<%s>\\n' "$@"
exit "${EXIT_CODE:-0}"
"""
PYTHON = """#!/usr/bin/env bash
echo python; printf '<%s>\\n' "$@"
exit "${EXIT_CODE:-0}"
"""


@pytest.fixture
def repository(tmp_path):
    """A repository with the two entry files and a .venv whose python prints its arguments, and srun beside it."""
    root = tmp_path / "the repository"
    programs = root / ".venv" / "bin"
    programs.mkdir(parents=True)
    (root / "launch").mkdir()
    for entry in ("train.py", "train_mirrored.py"):
        (root / "launch" / entry).touch()
    (programs / "activate").write_text(f'VIRTUAL_ENV="{root}/.venv"\nPATH="{programs}:$PATH"\n')
    for name, text in (("python", PYTHON), ("srun", SRUN)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return root


def submit(script, repository, *flags, offered=NEW_LIST, **environment):
    """Run the script as Slurm would, from a copy elsewhere."""
    copy = repository.parent / "slurm_script"
    copy.write_text((SCRIPTS / script).read_text())
    slurm = {"SLURM_SUBMIT_DIR": str(repository), "SLURM_CPUS_PER_TASK": "8", "OFFERED": offered}
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "LOCKSTEP_"))}
    command, environment = ["bash", str(copy), *flags], clean | slurm | environment
    return subprocess.run(command, cwd=repository.parent, env=environment, capture_output=True, text=True)


def arguments(result):
    """The arguments that the stand-in was called with."""
    return [line[1:-1] for line in result.stdout.splitlines() if line.startswith("<")]


@pytest.mark.parametrize("script", ["single_node.sbatch", "multi_node.sbatch"])
class TestBoth:
    def test_syntax_and_directives(self, script):
        text = (SCRIPTS / script).read_text()
        assert subprocess.run(["bash", "-n", str(SCRIPTS / script)]).returncode == 0
        # sbatch reads #SBATCH lines only before the first command.
        assert text.rindex("\n#SBATCH") < text.index("\nset -euo")

    def test_flags_pass_through_unchanged(self, script, repository):
        flags = ["--data-dir", "my images", "--epochs", "3", "--run-dir", "it's $HOME *"]
        result = submit(script, repository, *flags)
        assert result.returncode == 0, result.stderr
        assert arguments(result)[-len(flags) :] == flags

    @pytest.mark.parametrize("code", [0, 1, 2, 85])
    def test_exit_code_is_that_of_the_training(self, script, repository, code):
        assert submit(script, repository, EXIT_CODE=str(code)).returncode == code

    def test_lockstep_dir_beats_the_submission_folder(self, script, repository):
        result = submit(script, repository, SLURM_SUBMIT_DIR="/", LOCKSTEP_DIR=str(repository))
        assert result.returncode == 0, result.stderr
        assert any(argument.startswith(f"{repository}/launch/train") for argument in arguments(result))

    def test_not_the_repository(self, script, repository, tmp_path):
        result = submit(script, repository, SLURM_SUBMIT_DIR=str(tmp_path))
        assert (result.returncode, result.stdout) == (2, "")
        assert "set LOCKSTEP_DIR" in result.stderr and result.stderr.count("\n") == 1

    def test_no_environment(self, script, repository):
        (repository / ".venv" / "bin" / "activate").unlink()
        result = submit(script, repository)
        assert (result.returncode, result.stdout) == (2, "")
        assert "run make setup" in result.stderr and result.stderr.count("\n") == 1


class TestMpi:
    @pytest.mark.parametrize(
        "offered, expected",
        [
            (NEW_LIST, "pmix"),
            (OLD_LIST, "pmi2"),
            ("srun: none\nsrun: pmix_v3\nsrun: pmix_v4\nsrun: pmi2", "pmix_v4"),
            ("srun: none\nsrun: pmix_v9\nsrun: pmix_v10", "pmix_v10"),
            ("srun: error: cannot load mpi/pmix\nnone\npmi2", "pmi2"),
        ],
    )
    def test_pmix_is_taken_before_pmi2_and_said(self, repository, offered, expected):
        result = submit("multi_node.sbatch", repository, offered=offered)
        assert result.returncode == 0, result.stderr
        assert f"srun --mpi={expected}\n" in result.stdout
        assert arguments(result)[0] == f"--mpi={expected}"

    def test_neither(self, repository):
        result = submit("multi_node.sbatch", repository, offered="MPI plugin types are...\n\tnone\n\tcray_shasta")
        assert (result.returncode, result.stdout) == (2, "")
        assert "neither PMIx nor PMI2" in result.stderr and result.stderr.count("\n") == 1

    def test_the_wheel_cannot_start_over_pmi2(self, repository):
        (repository / ".venv" / "lib").mkdir()
        (repository / ".venv" / "lib" / "libmpi.so").touch()
        result = submit("multi_node.sbatch", repository, offered=OLD_LIST)
        assert (result.returncode, result.stdout) == (2, "")
        assert "LOCKSTEP_MPI=system" in result.stderr and result.stderr.count("\n") == 1
        assert submit("multi_node.sbatch", repository).returncode == 0

    def test_no_srun(self, repository):
        (repository / ".venv" / "bin" / "srun").unlink()
        result = submit("multi_node.sbatch", repository)
        assert result.returncode == 2 and "srun is not on PATH" in result.stderr


def test_one_python_per_task_with_its_cores(repository):
    result = submit("multi_node.sbatch", repository, "--epochs", "1")
    launched = arguments(result)
    assert "--cpus-per-task=8" in launched
    assert launched[-4:] == ["python", f"{repository}/launch/train.py", "--epochs", "1"]


def test_single_node_runs_mirrored_without_srun(repository):
    result = submit("single_node.sbatch", repository, "--epochs", "1")
    assert result.stdout.startswith("python\n")
    assert arguments(result) == [f"{repository}/launch/train_mirrored.py", "--epochs", "1"]
