"""A run that is killed at twenty random moments and goes on each time equals the one that nobody disturbed."""

import os
import random
import signal
import time

import pytest
from conftest import record_fault, summary
from deaths import Job
from test_preemption import rows

KILLS = 20
LINE = """--dataset npz --global-batch-size 12 --steps-per-epoch 12 --epochs 24 --checkpoint-every-steps 5
--learning-rate 0.02 --warmup-epochs 1 --optimizer adam --dropout 0.3 --augment flip_crop --deterministic
--monitor val_loss --min-delta 0.003 --plateau-patience 2 --plateau-factor 0.5 --early-stopping-patience 7
--restore-best-weights --metrics accuracy,auc --keep-checkpoints 2""".split()
PLACES = ("step", "step", "validation", "saving", "start", "any time", "any time")
SETS = {"horovod": (("horovodrun", "-np", "2"), ()), "mirrored": ((), ("--cpu-devices", 2))}


def newest(folder) -> int:
    """The step of the newest checkpoint, 0 if there is none."""
    names = [path.name for path in (folder / "run" / "checkpoints").glob("step-*")]
    return max((int(name[5:]) for name in names), default=0)


def disturb(folder, line, launcher, chance: random.Random, kind: str) -> str:
    """Start the run and kill it, or ask it to leave, at a random moment; say which."""
    place, step = chance.choice(PLACES), newest(folder)
    rank = chance.randrange(2) if launcher and place != "saving" else 0
    if place == "any time":
        job, seconds = Job(folder, line, *launcher), chance.uniform(0.2, 12)
        time.sleep(seconds)
        if pids := job.ranks():
            os.kill(pids[rank % len(pids)], getattr(signal, kind))
        else:
            job.process.send_signal(getattr(signal, kind))
        words = f"{kind} to rank {rank} after {seconds:.1f} s"
    else:
        at = {"validation": step // 12 * 12 + 12, "saving": step // 5 * 5 + 5}.get(place, step + chance.randint(1, 7))
        job, words = Job(folder, line, *launcher, fault=[f"{kind}@{place}", rank, at]), f"{kind}@{place} {at} of {rank}"
    code = job.wait()
    assert code != 0, f"{words}: {job.said[-3000:]}"
    if kind == "SIGTERM" and place != "any time":
        assert code == 85, f"{words}: {code}: {job.said[-3000:]}"
    return f"{words}: exit code {code}, newest checkpoint {newest(folder)}"


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workers", SETS)
def test_killed_twenty_times_equals_undisturbed(tmp_path, tiny_data, workers):
    launcher, more = SETS[workers]
    seed = int(os.environ.get("LOCKSTEP_SEED", random.SystemRandom().randrange(10**6)))
    print(f"LOCKSTEP_SEED={seed}")
    chance, line = random.Random(seed), [*LINE, *more, "--data-dir", tiny_data]
    whole = Job(tmp_path / "whole", line, *launcher)
    assert whole.wait() == 0, whole.said
    killed = tmp_path / "killed"
    for count in range(KILLS):
        print(count, disturb(killed, line, launcher, chance, ("SIGKILL", "SIGTERM")[count % 2]), flush=True)
    # The last one between the last checkpoint and the summary.
    job = Job(killed, line, *launcher, fault=["SIGKILL@report", 0, 0])
    assert job.wait() != 0, job.said
    job = Job(killed, line, *launcher)
    assert job.wait() == 0, job.said
    resumed, undisturbed = summary(killed / "run"), summary(tmp_path / "whole" / "run")
    fields = ("final", "best", "steps", "epochs", "stopped_by", "learning_rate", "weights_sha256")
    lost = sum(resumed[field] != undisturbed[field] for field in fields)
    lost += rows(killed / "run") != rows(tmp_path / "whole" / "run")
    record_fault(f"killed or preempted at a random moment, {workers}", KILLS + 1, lost)
    assert {field: resumed[field] for field in fields} == {field: undisturbed[field] for field in fields}
    assert rows(killed / "run") == rows(tmp_path / "whole" / "run")
