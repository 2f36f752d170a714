"""The batch scripts, with stand-ins for ``srun``, ``scontrol`` and ``python`` that print what they are called with.

``test_slurm_cluster.py`` runs them on a real Slurm.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "launch" / "slurm"
# What `srun --mpi=list` prints: Slurm 22.05 on Debian 12, and an older release (to stderr).
NEW_LIST = "MPI plugin types are...\n\tpmix\n\tnone\n\tpmi2\nspecific pmix plugin versions available: pmix_v4"
OLD_LIST = "srun: MPI types are...\nsrun: none\nsrun: pmi2\nsrun: openmpi"

SRUN = """#!/usr/bin/env bash
if [ "$1" = --mpi=list ]; then printf '%s\\n' "$OFFERED" >&2; exit 0; fi
echo srun; printf '<%s>\\n' "$@"
mkdir -p ${MAKES:-.}
exit "${EXIT_CODE:-0}"
"""
SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*"
exit "${SCONTROL_CODE:-0}"
"""
# The scripts ask the program's own reader of flags; nothing else runs outside of srun.
PYTHON = f"""#!/usr/bin/env bash
[ "$1" = -c ] || exit 1
exec {sys.executable} "$@"
"""


@pytest.fixture
def repository(tmp_path):
    """A repository with a .venv in which srun prints its arguments and scontrol its line."""
    root = tmp_path / "the repository"
    programs = root / ".venv" / "bin"
    programs.mkdir(parents=True)
    (root / "launch").mkdir()
    for name in ("train.py", "train_mirrored.py", "job", "slurm"):
        (root / "launch" / name).symlink_to(SCRIPTS.parent / name)
    (programs / "activate").write_text(f'VIRTUAL_ENV="{root}/.venv"\nPATH="{programs}:$PATH"\n')
    for name, text in (("python", PYTHON), ("srun", SRUN), ("scontrol", SCONTROL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return root


def submit(script, repository, *flags, offered=NEW_LIST, **environment):
    """Run the script as Slurm would, from a copy elsewhere."""
    copy = repository.parent / "slurm_script"
    copy.write_text((SCRIPTS / script).read_text())
    slurm = {"SLURM_SUBMIT_DIR": str(repository), "SLURM_JOB_ID": "77", "SLURM_CPUS_PER_TASK": "8", "OFFERED": offered}
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "LOCKSTEP_"))}
    command, environment = ["bash", str(copy), *flags], clean | slurm | environment
    return subprocess.run(command, cwd=repository.parent, env=environment, capture_output=True, text=True)


def arguments(result):
    """The arguments that the stand-in was called with."""
    return [line[1:-1] for line in result.stdout.splitlines() if line.startswith("<")]


both = pytest.mark.parametrize("script", ["single_node.sbatch", "multi_node.sbatch"])


@both
class TestBoth:
    def test_syntax_and_directives(self, script):
        text = (SCRIPTS / script).read_text()
        assert subprocess.run(["bash", "-n", str(SCRIPTS / script)]).returncode == 0
        # sbatch reads #SBATCH lines only before the first command.
        assert text.rindex("\n#SBATCH") < text.index("\nset -euo")
        for option in ("--signal=USR1@120", "--requeue", "--open-mode=append"):
            assert f"\n#SBATCH {option}\n" in text

    def test_flags_pass_through_unchanged(self, script, repository):
        flags = ["--dataset", "image_folder", "--data-dir", "my images", "--epochs", "3", "--run-dir", "it's $HOME *"]
        result = submit(script, repository, *flags)
        assert result.returncode == 0, result.stderr
        assert arguments(result)[-len(flags) :] == flags

    @pytest.mark.parametrize("code", [0, 1, 2, 130, 137])
    def test_exit_code_is_that_of_the_training(self, script, repository, code):
        result = submit(script, repository, EXIT_CODE=str(code))
        assert result.returncode == code and "scontrol" not in result.stdout

    def test_after_85_the_job_is_requeued(self, script, repository):
        result = submit(script, repository, EXIT_CODE="85")
        assert result.returncode == 85 and result.stdout.endswith("scontrol requeue 77\n")

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
        programs = repository / ".venv" / "bin"
        (programs / "srun").unlink()
        # This machine may have a real one.
        (programs / "bash").symlink_to(shutil.which("bash"))
        result = submit("multi_node.sbatch", repository, PATH=str(programs))
        assert result.returncode == 2 and "srun is not on PATH" in result.stderr


def test_one_python_per_task_with_its_cores(repository):
    launched = arguments(submit("multi_node.sbatch", repository, "--epochs", "1", "--run-dir", "here"))
    assert "--cpus-per-task=8" in launched
    assert launched[-6:] == ["python", f"{repository}/launch/train.py", "--epochs", "1", "--run-dir", "here"]


def test_single_node_runs_mirrored_in_one_task(repository):
    launched = arguments(submit("single_node.sbatch", repository, "--epochs", "1", "--run-dir", "here"))
    assert "--ntasks=1" in launched
    assert launched[-6:] == ["python", f"{repository}/launch/train_mirrored.py", "--epochs", "1", "--run-dir", "here"]


@both
class TestRunDirectory:
    """All attempts of a job share one run directory."""

    def test_is_named_by_the_job_where_the_user_names_none(self, script, repository):
        for flags in ([], ["--run-dir", "none"], ["--run_dir=null", "--deterministic"]):
            assert arguments(submit(script, repository, *flags))[-2:] == ["--run-dir", "runs/slurm-77"]

    @pytest.mark.parametrize("flags", [["--run-dir", "my run"], ["--run-dir=my run"], ["--run_dir", "my run"]])
    def test_is_the_one_that_a_flag_names(self, script, repository, flags):
        assert arguments(submit(script, repository, *flags))[-len(flags) :] == flags
        submit(script, repository, *flags, EXIT_CODE="85")
        assert (repository.parent / "my run" / "requeues").exists()

    def test_is_the_one_that_the_file_names(self, script, repository):
        (repository.parent / "with.yaml").write_text("run_dir: 'from file'  # comment\n")
        (repository.parent / "without.yaml").write_text("run_dir: null\n")
        assert arguments(submit(script, repository, "--config", "with.yaml"))[-2:] == ["--config", "with.yaml"]
        submit(script, repository, "--config", "with.yaml", EXIT_CODE="85")
        assert (repository.parent / "from file" / "requeues").exists()
        assert arguments(submit(script, repository, "--config", "without.yaml"))[-1] == "runs/slurm-77"

    def test_flags_that_the_program_refuses_still_reach_it(self, script, repository):
        result = submit(script, repository, "--epoch", "3", EXIT_CODE="2")
        assert result.returncode == 2 and "--epoch" in arguments(result) and result.stderr == ""


class TestRequeue:
    SCRIPT = "multi_node.sbatch"

    def attempt(self, repository, number, *flags, checkpoint=None, **environment):
        """Attempt ``number`` (0 is the first) of a job ends with 85; it commits ``checkpoint`` before."""
        folder = repository.parent / "run" / "checkpoints"
        if checkpoint:
            environment["MAKES"] = str(folder / checkpoint)
        environment = {"EXIT_CODE": "85", "SLURM_RESTART_COUNT": str(number)} | environment
        return submit(self.SCRIPT, repository, "--run-dir", folder.parent, *flags, **environment)

    def test_three_requeues_without_a_new_checkpoint_end_with_93(self, repository):
        codes = [self.attempt(repository, n, checkpoint="step-00000010").returncode for n in range(3)]
        assert codes == [85] * 3
        result = self.attempt(repository, 3)
        assert result.returncode == 93 and "scontrol" not in result.stdout
        assert "3 requeues in a row" in result.stderr and "step-00000010" in result.stderr
        assert result.stderr.count("\n") == 1

    def test_the_same_before_any_checkpoint(self, repository):
        codes = [self.attempt(repository, number).returncode for number in range(4)]
        assert codes == [85, 85, 85, 93]

    def test_a_new_checkpoint_starts_the_count_anew(self, repository):
        made = ["step-00000999", None, None, "step-00001000", None, ".writing-step-00002000", None]
        codes = [self.attempt(repository, n, checkpoint=name).returncode for n, name in enumerate(made)]
        assert codes == [85] * 6 + [93]

    def test_a_new_submission_starts_the_count_anew(self, repository):
        for number in range(4):
            self.attempt(repository, number)
        codes = [self.attempt(repository, number).returncode for number in range(4)]
        assert codes == [85, 85, 85, 93]

    @pytest.mark.parametrize("left", ["", "step-00000010", "\0\1"])
    def test_a_torn_count_does_not_end_the_job(self, repository, left):
        (repository.parent / "run").mkdir()
        (repository.parent / "run" / "requeues").write_text(left)
        assert self.attempt(repository, 1, checkpoint="step-00000010").returncode == 85

    def test_where_slurm_refuses_the_way_on_is_said(self, repository):
        result = self.attempt(repository, 0, SCONTROL_CODE="1")
        assert result.returncode == 85 and f"--run-dir {repository.parent}/run" in result.stderr

    def test_a_requeued_job_goes_on_in_spite_of_resume_never(self, repository):
        never = ("--resume", "never")
        first = self.attempt(repository, 0, *never, checkpoint="step-00000010")
        assert arguments(first)[-2:] == ["--resume", "never"]
        assert arguments(self.attempt(repository, 1, *never))[-2:] == ["--resume", "auto"]
