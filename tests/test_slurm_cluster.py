"""The batch scripts on a real Slurm: preemption, requeues, time limits and lost nodes cost a run nothing."""

import contextlib
import csv
import json
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
import slurm_cluster
from conftest import BIN, ROOT, record_fault, summary
from slurm_cluster import Cluster, wait_for

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(1600),  # the first one waits for the cluster and the undisturbed run, too
    pytest.mark.skipif(slurm_cluster.missing() is not None, reason=str(slurm_cluster.missing())),
]

MULTI, SINGLE = "multi_node.sbatch", "single_node.sbatch"
NODES = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--gpus-per-node=0")
TIMINGS = ("images_per_second", "seconds")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.close()


class Job:
    """A run of a batch script, submitted from ``folder``."""

    def __init__(self, cluster: Cluster, folder: Path, script: str, flags: list, *options: str):
        self.cluster, self.folder, self.log_file = cluster, folder, folder / "log.txt"
        folder.mkdir()
        options = (*options, f"--chdir={folder}", f"--output={self.log_file}", f"--export=ALL,LOCKSTEP_DIR={ROOT}")
        self.id = cluster.run("sbatch", "--parsable", *options, ROOT / "launch" / "slurm" / script, *flags).strip()
        self.run_dir = folder / "runs" / f"slurm-{self.id}"

    def field(self, name: str) -> str:
        return re.search(rf"\b{name}=(\S+)", self.cluster.run("scontrol", "show", "job", self.id))[1]

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def wait(self, condition, what: str, timeout: float = 480):
        try:
            return wait_for(condition, f"job {self.id} to {what}", timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log[-6000:]}\n{self.cluster.logs()}") from None

    def wait_until(self, state: str) -> None:
        self.wait(lambda: self.field("JobState") == state, f"be {state}")

    def wait_for_checkpoint(self) -> None:
        self.wait(lambda: list(self.run_dir.glob("checkpoints/step-*")), "save")

    def go_on(self, *settings: str, restarts: int = 1) -> None:
        """Wait for the requeue, and skip the two minutes that Slurm then waits."""
        wanted = ("PENDING", str(restarts))
        self.wait(lambda: (self.field("JobState"), self.field("Restarts")) == wanted, "be requeued")
        # Not at once: slurmd refuses credentials that are as old as the job's last end.
        self.cluster.run("scontrol", "update", f"JobId={self.id}", "StartTime=now+3", *settings)

    def cancel(self) -> None:
        self.cluster.run("scancel", self.id)
        self.wait_until("CANCELLED")

    def finish(self) -> tuple[dict, list[dict]]:
        """Wait for the end; the summary and the lines of metrics.csv, without what depends on the time."""
        self.wait_until("COMPLETED")
        with open(self.run_dir / "metrics.csv") as file:
            lines = [
                {name: value for name, value in line.items() if name not in TIMINGS} for line in csv.DictReader(file)
            ]
        return summary(self.run_dir), lines


@pytest.fixture(scope="module")
def flags(tiny_data):
    """25 steps an epoch on real AlexNet, two ranks."""
    return [
        *("--dataset", "npz", "--data-dir", tiny_data, "--global-batch-size", "8", "--deterministic"),
        *("--checkpoint-every-steps", "10"),
    ]


@pytest.fixture(scope="module")
def submit(cluster, tmp_path_factory, flags):
    def submit(name: str, *more) -> Job:
        folder = tmp_path_factory.mktemp(name) / "submitted"
        return Job(cluster, folder, MULTI, [*flags, "--epochs", "3", *more], *NODES)

    return submit


@pytest.fixture(scope="module")
def undisturbed(submit):
    return submit("undisturbed").finish()


def compare(kind: str, job: Job, undisturbed) -> None:
    """The disturbed run must have ended as the undisturbed one."""
    (expected, expected_lines), (found, lines) = undisturbed, job.finish()
    equal = found["weights_sha256"] == expected["weights_sha256"] and lines == expected_lines
    record_fault(kind, 1, int(not equal))
    assert found["weights_sha256"] == expected["weights_sha256"] and found["best"] == expected["best"]
    assert lines == expected_lines
    assert "resumed from" in job.log


def ranks(job: Job) -> dict[int, psutil.Process]:
    """The processes of train.py in that job, by rank."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            environment, words = process.environ(), process.cmdline()
            # srun has these words behind its own.
            is_ours = words and Path(words[0]).name == "python" and f"{ROOT}/launch/train.py" in words
            if is_ours and environment.get("SLURM_JOB_ID") == job.id:
                found[int(environment["SLURM_PROCID"])] = process
    return found


def test_a_job_of_a_higher_partition_preempts(cluster, submit, undisturbed):
    job = submit("preempted")
    job.wait_for_checkpoint()
    urgent = cluster.run(
        "sbatch", "--parsable", "--partition=high", "--nodes=2", "--output=/dev/null", "--wrap=sleep 1"
    )
    job.go_on()
    assert re.search(r"preempted at step \d+", job.log) and "goes back into the queue" in job.log
    compare("Slurm: preempted by a higher partition", job, undisturbed)
    assert f"JobId={urgent.strip()} " in cluster.run("scontrol", "show", "job", urgent.strip())


def test_scontrol_requeue(cluster, submit, undisturbed):
    job = submit("requeued")
    job.wait_for_checkpoint()
    cluster.run("scontrol", "requeue", job.id)
    job.go_on()
    assert re.search(r"preempted at step \d+", job.log) and "goes back into the queue" not in job.log
    compare("Slurm: scontrol requeue", job, undisturbed)


def test_a_lost_node(cluster, submit, undisturbed):
    """All that runs on a node is gone at once."""
    job = submit("node lost")
    job.wait_for_checkpoint()
    rank = ranks(job)[1]
    cluster.daemons["n2"].kill()
    rank.parent().kill()  # slurmstepd
    rank.kill()
    cluster.daemons["n2"].wait()
    job.wait(lambda: job.field("Restarts") == "1", "be requeued")
    assert not (job.run_dir / "summary.json").exists(), "the run was over before the node was missed"
    cluster.start_node("n2")
    job.go_on()
    compare("Slurm: a node lost", job, undisturbed)


def test_a_killed_slurmd(cluster, submit):
    """Slurm gives the node up although its ranks live: the job goes on elsewhere or later, and they must not stay."""
    job = submit("slurmd lost", "--epochs", "1000")
    job.wait_for_checkpoint()
    processes = ranks(job)
    cluster.daemons["n2"].kill()
    cluster.daemons["n2"].wait()
    job.wait(lambda: job.field("Restarts") == "1", "be requeued")
    _, alive = psutil.wait_procs(list(processes.values()), timeout=60)
    assert sorted(processes) == [0, 1] and not alive
    saved = max(path.name for path in job.run_dir.glob("checkpoints/step-*"))
    cluster.start_node("n2")
    job.go_on()
    resumed = job.wait(lambda: re.search(r"resumed from \S+(step-\d+)", job.log), "resume")
    record_fault("Slurm: slurmd of a node killed", 1, int(resumed[1] != saved))
    assert resumed[1] == saved
    job.cancel()


def test_a_dead_rank_takes_the_job_down(cluster, submit):
    job = submit("rank lost")
    job.wait_for_checkpoint()
    processes = ranks(job)
    assert sorted(processes) == [0, 1]
    processes[1].kill()
    died = time.monotonic()
    _, alive = psutil.wait_procs(list(processes.values()), timeout=20)  # not after Slurm's KillWait of 30
    record_fault("Slurm: a rank killed", 1, len(alive))
    assert not alive, f"still there after {time.monotonic() - died:.0f} s"
    job.wait_until("FAILED")
    assert job.field("ExitCode") == f"{128 + signal.SIGKILL}:0" and job.field("Restarts") == "0"


def test_what_the_user_can_mend_is_not_requeued(submit):
    job = submit("refused", "--epoch", "3")
    job.wait_until("FAILED")
    assert job.field("ExitCode") == "2:0" and job.field("Restarts") == "0"
    assert "did you mean --epochs?" in job.log


def test_three_requeues_for_nothing_end_with_93(cluster, submit):
    def is_loading(job):
        # TensorFlow is being loaded; the first lines of train.py, where a signal still kills, are long past.
        with contextlib.suppress(psutil.Error):
            return len(found := ranks(job)) == 2 and all(p.memory_info().rss > 150e6 for p in found.values())
        return False

    job = submit("getting nowhere")
    for attempt in range(4):
        job.wait(lambda: is_loading(job), "load TensorFlow")
        cluster.run("scancel", "--signal=USR1", job.id)
        if attempt < 3:
            job.go_on(restarts=attempt + 1)
    job.wait_until("FAILED")
    assert job.field("ExitCode") == "93:0" and job.log.count("goes back into the queue") == 3


def test_the_time_limit_on_a_single_node(cluster, tmp_path_factory, flags):
    """A run longer than its time: signal, checkpoint, requeue, resume; and a cancelled one is left alone."""
    folder = tmp_path_factory.mktemp("limited") / "submitted"
    job = Job(cluster, folder, SINGLE, [*flags, "--epochs", "1000", "--cpu-devices", "2"], "--time=60")
    job.wait_for_checkpoint()
    # The signal comes two minutes before the limit, which counts from the job's start.
    hours, minutes, seconds = map(int, job.field("RunTime").split(":"))
    cluster.run("scontrol", "update", f"JobId={job.id}", f"TimeLimit={60 * hours + minutes + (3 if seconds else 2)}")
    job.go_on("TimeLimit=60")
    left_at = int(re.search(r"preempted at step (\d+)", job.log)[1])
    resumed_at = job.wait(lambda: re.search(r"resumed from \S+step-(\d+)", job.log), "resume")
    record_fault("Slurm: time limit", 1, int(int(resumed_at[1]) != left_at))
    assert int(resumed_at[1]) == left_at
    job.wait(lambda: job.log.count("epoch ") > 1, "train on")
    job.cancel()
    assert job.field("Restarts") == "1"


def test_the_doctor_looks_at_both_nodes(cluster, tmp_path_factory, tiny_data):
    folder = tmp_path_factory.mktemp("doctor")
    flags = f"--data-dir {tiny_data.parent} --run-dir {folder} --json {folder}/doctor.json"
    command = f"PATH={BIN}:$PATH srun --mpi=pmix python {ROOT}/launch/doctor.py {flags}"
    job = cluster.run("sbatch", "--parsable", *NODES, f"--output={folder}/log.txt", f"--wrap={command}").strip()
    wait_for(lambda: "JobState=COMPLETED" in cluster.run("scontrol", "show", "job", job), "the doctor", 240)
    log, numbers = (folder / "log.txt").read_text(), json.loads((folder / "doctor.json").read_text())
    assert log.splitlines()[-1].startswith("ready") and f"JOB_ID {job}, JOB_NUM_NODES 2, NTASKS 2" in log
    assert (numbers["ranks"], numbers["per_host"]) == (2, 1) and numbers["allreduce"]["bytes_per_s"] > 0
    assert [fact["launcher"] for fact in numbers["facts"]] == ["srun-pmix"] * 2
