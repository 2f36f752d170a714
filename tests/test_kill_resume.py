"""A run that is killed at twenty random moments and goes on each time equals the one that nobody disturbed; so does one
that is killed while features are computed, and two that share their features."""

import contextlib
import os
import random
import signal
import time

import pytest
from conftest import counted, record_fault, summary
from deaths import Job
from test_preemption import rows

KILLS = 20
LINE = """--dataset npz --global-batch-size 12 --steps-per-epoch 12 --epochs 24 --checkpoint-every-steps 5
--learning-rate 0.02 --warmup-epochs 1 --optimizer adam --dropout 0.3 --augment flip_crop --deterministic
--monitor val_loss --min-delta 0.003 --plateau-patience 2 --plateau-factor 0.5 --early-stopping-patience 7
--restore-best-weights --metrics accuracy,auc --keep-checkpoints 2""".split()
PLACES = ("step", "step", "validation", "saving", "start", "any time", "any time")
FEATURES = """--dataset npz --global-batch-size 12 --epochs 3 --learning-rate 0.02 --dropout 0.3 --deterministic
--freeze base --augment flip_crop --cache-views 2""".split()
THAWED = """--dataset npz --global-batch-size 12 --epochs 6 --learning-rate 0.002 --optimizer adam --dropout 0.3
--deterministic --freeze base --unfreeze-epoch 4 --unfreeze conv2 --exchange split""".split()
SETS = {"horovod": (("horovodrun", "-np", "2"), ()), "mirrored": ((), ("--cpu-devices", 2))}


def newest(folder) -> int:
    """The step of the newest checkpoint, 0 if there is none."""
    names = [path.name for path in (folder / "run" / "checkpoints").glob("step-*")]
    return max((int(name[5:]) for name in names), default=0)


def disturb(folder, line, launcher, chance: random.Random, kind: str, last: int) -> tuple[int, str]:
    """Start the run and kill it, or ask it to leave, at a random moment before its end at step ``last``.

    Returns:
        Its exit code, 0 if it was faster than the fault; and what happened, in words.
    """
    place, step = chance.choice(PLACES), newest(folder)
    rank = chance.randrange(2) if launcher and place != "saving" else 0
    if place == "any time":
        job, seconds = Job(folder, line, *launcher), chance.uniform(0.2, 12)
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):  # it may just have come to its end
            if pids := job.ranks():
                os.kill(pids[rank % len(pids)], getattr(signal, kind))
            else:
                job.process.send_signal(getattr(signal, kind))
        words = f"{kind} to rank {rank} after {seconds:.1f} s"
    else:
        ahead = {"validation": step // 12 * 12 + 12, "saving": step // 5 * 5 + 5}.get(
            place, step + chance.randint(1, 7)
        )
        at = min(ahead, last - (place == "step"))
        job, words = Job(folder, line, *launcher, fault=[f"{kind}@{place}", rank, at]), f"{kind}@{place} {at} of {rank}"
    code, saved = job.wait(), newest(folder)
    # At its end a run may be faster than a signal; before it, none is overlooked.
    if saved < last:
        assert code != 0, f"{words}: {job.said[-3000:]}"
        if kind == "SIGTERM" and place != "any time":
            assert code == 85, f"{words}: {code}: {job.said[-3000:]}"
    return code, f"{words}: exit code {code}, newest checkpoint {saved}"


def outcome(run_dir) -> list:
    """What two runs that are the same have in common: results, decisions, weights and every line of metrics.csv."""
    fields = ("final", "best", "steps", "epochs", "stopped_by", "learning_rate", "weights_sha256")
    return [(field, summary(run_dir)[field]) for field in fields] + rows(run_dir)


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("workers", SETS)
def test_killed_twenty_times_equals_undisturbed(tmp_path, tiny_data, workers):
    launcher, more = SETS[workers]
    seed = int(os.environ.get("LOCKSTEP_SEED", random.SystemRandom().randrange(10**6)))
    print(f"LOCKSTEP_SEED={seed}")
    chance, line = random.Random(seed), [*LINE, *more, "--data-dir", tiny_data]
    whole = Job(tmp_path / "whole", line, *launcher)
    assert whole.wait() == 0, whole.said
    undisturbed, last = outcome(whole.folder / "run"), summary(whole.folder / "run")["steps"]
    struck, killed, outcomes = 0, tmp_path / "killed-0", []
    while struck < KILLS or killed.exists():
        if struck < KILLS and newest(killed) < last:
            code, words = disturb(killed, line, launcher, chance, ("SIGKILL", "SIGTERM")[struck % 2], last)
            print(struck, words, flush=True)
            struck += code != 0
            continue
        # This run has reached its end, or has had its share of faults: one between the last checkpoint and the summary.
        if not (killed / "run" / "summary.json").exists():
            job = Job(killed, line, *launcher, fault=["SIGKILL@report", 0, 0])
            assert job.wait() != 0, job.said
            struck += 1
        job = Job(killed, line, *launcher)
        assert job.wait() == 0, job.said
        outcomes.append(outcome(killed / "run"))
        killed = tmp_path / f"killed-{len(outcomes)}"
    lost = sum(one != undisturbed for one in outcomes)
    record_fault(f"killed or preempted at a random moment, {workers}", struck, lost)
    assert outcomes == [undisturbed] * len(outcomes)


def whole_arrays(folder) -> dict:
    """The bytes of all that lies in a folder of features, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_killed_while_features_are_computed_equals_undisturbed(tmp_path, tiny_data):
    """Two views of the training pictures take four pieces each, the validation pictures two."""
    line, launcher = [*FEATURES, "--data-dir", tiny_data], ("horovodrun", "-np", "2")
    whole, killed = Job(tmp_path / "whole", line, *launcher), tmp_path / "killed"
    assert whole.wait() == 0, whole.said
    features = killed / "run" / "features"
    # In the first view, in the second, and in the validation set, each time the other rank; what was whole stays.
    for rank, piece, left in ((0, 2, 0), (1, 6, 1), (0, 5, 2)):
        job = Job(killed, line, *launcher, fault=["SIGKILL@features", rank, piece])
        assert job.wait() != 0 and not newest(killed), job.said
        assert len(list(features.glob("*.npy"))) == left
    job = Job(killed, line, *launcher)
    assert job.wait() == 0 and "; 406 were there already" in job.said, job.said
    undisturbed, arrays = outcome(tmp_path / "whole" / "run"), whole_arrays(tmp_path / "whole" / "run" / "features")
    lost = (outcome(killed / "run") != undisturbed) + (whole_arrays(features) != arrays)
    record_fault("killed while features are computed", 3, lost)
    assert not lost


@pytest.mark.faults
def test_asked_to_leave_while_features_are_computed_anew(tmp_path, tiny_data):
    """Six pieces before the first epoch, and as many when the second convolution thaws: it is left after the eighth."""
    line, launcher = [*THAWED, "--data-dir", tiny_data], ("horovodrun", "-np", "2")
    whole = Job(tmp_path / "whole", line, *launcher)
    assert whole.wait() == 0, whole.said
    assert whole.said.count("frozen layer") >= 2 and "fc6, fc7 split" in whole.said, whole.said
    job = Job(tmp_path / "left", line, *launcher, fault=["SIGTERM@features", 1, 7])
    assert job.wait() == 85 and "preempted at step 48" in job.said, job.said
    job = Job(tmp_path / "left", line, *launcher)
    assert job.wait() == 0, job.said
    with counted("asked to leave while features are computed anew"):
        assert outcome(tmp_path / "left" / "run") == outcome(tmp_path / "whole" / "run")


@pytest.mark.faults
def test_two_runs_that_compute_the_same_features_at_once_share_them(tmp_path, tiny_data):
    line = [*FEATURES, "--data-dir", tiny_data, "--features-dir", tmp_path / "shared"]
    jobs = [Job(tmp_path / name, line) for name in ("one", "other")]
    assert [job.wait() for job in jobs] == [0, 0], [job.said for job in jobs]
    assert outcome(tmp_path / "one" / "run") == outcome(tmp_path / "other" / "run")
    assert len(whole_arrays(tmp_path / "shared")) == 3
    third = Job(tmp_path / "third", line)
    assert third.wait() == 0 and "; 509 were there already" in third.said
    assert outcome(tmp_path / "third" / "run") == outcome(tmp_path / "one" / "run")
