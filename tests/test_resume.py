"""A resumed run is the uninterrupted one: weights, metrics, decisions and logs, on every kind of workers."""

import json
import shutil

import checkpoints
import numpy as np
import pytest
import yaml
from conftest import run_jobs, summary
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from launch.job.config import TrainConfig
from launch.job.run_directory import earlier

# 203 images, batch 12: 16 steps per epoch.  The plateau reduces the rate at each epoch's end after the first.
LINE = (
    "--dataset npz --global-batch-size 12 --epochs 4 --learning-rate 0.02 --warmup-epochs 1 --dropout 0.5 "
    "--deterministic --augment flip_crop --metrics accuracy,auc --plateau-patience 1 --plateau-factor 0.5 "
    "--min-delta 10 --early-stopping-patience 3 --checkpoint-every-steps 5 --keep-checkpoints 99 --log-every-steps 2"
)
WORKERS = {
    "single": ((), ""),
    "mirrored": ((), "--strategy mirrored --cpu-devices 2"),
    "horovod": (("horovodrun", "-np", "2"), "--exchange split"),  # test_kill_resume.py has it without
}
# Newest checkpoint -> where that is; the whole run has 64 steps.
CUTS = {20: "in the second epoch", 32: "at the end of the second", 60: "in the last", 64: "at the very end"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_data):
    """``runs(workers)`` is the folder of the run ``whole`` and of a resumed one per cut, named by its step."""
    folders = {}

    def get(workers):
        if workers not in folders:
            folder = tmp_path_factory.mktemp(workers)
            launcher, flags = WORKERS[workers]
            line = [*LINE.split(), *flags.split(), "--data-dir", tiny_data]
            jobs = {"whole": line} | {str(step): line for step in CUTS}
            plants = {str(step): [["cut", "whole", step]] for step in CUTS}
            if workers == "single":
                short = [*line, "--epochs", 1]
                level = LINE.replace("--warmup-epochs 1 ", "").split()
                jobs |= {"level": [*level, *short[len(level) + 2 :]], "grows": short, "was level": short}
                plants["was level"] = [["cut", "level", 5, "warmup_from"]]
            if workers == "horovod":
                jobs["grown"], plants["grown"] = line, [["cut", str(get("single") / "whole"), 20]]
            codes = run_jobs(folder, jobs, *launcher, plants=plants)
            assert codes == dict.fromkeys(jobs, 0)
            folders[workers] = folder
        return folders[workers]

    return get


def table(run):
    """``metrics.csv`` without its two columns of times."""
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    times = [rows[0].index(name) for name in ("images_per_second", "seconds")]
    return [[cell for index, cell in enumerate(row) if index not in times] for row in rows]


def curves(run, part):
    """What TensorBoard shows of each tag: [(step, value)], without speeds."""
    events = EventAccumulator(str(run / "tensorboard" / part), size_guidance={"tensors": 0}).Reload()
    return {
        tag: [(event.step, make_ndarray(event.tensor_proto).tolist()) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
        if not tag.endswith("images_per_second")
    }


def last_state(run):
    return json.loads((run / "checkpoints" / "step-00000064" / "state.json").read_text())


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("workers", WORKERS)
def test_a_resumed_run_is_the_uninterrupted_one(runs, workers, cut):
    whole, resumed = runs(workers) / "whole", runs(workers) / str(cut)
    facts, expected = summary(resumed), summary(whole)
    timed = ("seconds", "images_per_second", "startup", "time")
    assert {name: facts[name] for name in facts if name not in timed} == {
        name: expected[name] for name in expected if name not in timed
    }
    assert (facts["stopped_by"], facts["steps"], facts["epochs"]) == ("early_stopping", 64, 4)
    assert last_state(resumed)["decisions"] == last_state(whole)["decisions"]
    assert last_state(resumed)["decisions"]["factor"] < 1
    for name in ("weights", "optimizer"):
        file = f"checkpoints/step-00000064/{name}.safetensors"
        assert (resumed / file).read_bytes() == (whole / file).read_bytes()


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("workers", WORKERS)
def test_its_logs_show_no_gap_and_no_step_twice(runs, workers, cut):
    whole, resumed = runs(workers) / "whole", runs(workers) / str(cut)
    assert table(resumed) == table(whole) and [row[:2] for row in table(whole)[1:]] == [
        [str(epoch), str(16 * epoch)] for epoch in (1, 2, 3, 4)
    ]
    for part in ("train", "validation"):
        ours, theirs = curves(resumed, part), curves(whole, part)
        assert ours == theirs
        for tag, points in ours.items():
            steps = [step for step, _ in points]
            assert steps == sorted(set(steps)), tag
    assert [step for step, _ in curves(resumed, "train")["step/learning_rate"]] == [*range(1, 65)]


@pytest.mark.parametrize("workers", WORKERS)
def test_the_links_are_made_anew_and_the_best_is_the_best(runs, workers):
    whole, resumed = runs(workers) / "whole" / "checkpoints", runs(workers) / "20" / "checkpoints"
    best = summary(runs(workers) / "whole")["best"]["epoch"]
    assert (whole / "best").resolve().name == f"step-{16 * best:08d}"
    for link in ("best", "last"):
        assert (resumed / link).resolve().name == (whole / link).resolve().name
    manifest = json.loads((whole / "best" / "manifest.json").read_text())
    assert manifest["best"] and manifest["monitored"]["val_accuracy"] == pytest.approx(
        summary(runs(workers) / "whole")["best"]["val_accuracy"]
    )


def test_a_run_from_before_ends_the_warmup_that_it_began(runs):
    """It began at the base rate, which its checkpoint does not say; a new run of this command begins far below."""
    rates = {
        name: [rate for _, rate in curves(runs("single") / name, "train")["step/learning_rate"]]
        for name in ("level", "grows", "was level")
    }
    assert rates["was level"] == rates["level"] == [pytest.approx(0.02)] * 16
    assert rates["grows"] == pytest.approx([0.0002 + 0.0198 * step / 16 for step in range(16)])
    digests = {name: summary(runs("single") / name)["weights_sha256"] for name in rates}
    assert digests["was level"] == digests["level"] != digests["grows"]


def test_the_state_says_all_about_the_run(runs):
    state = json.loads((runs("horovod") / "whole" / "checkpoints" / "step-00000020" / "state.json").read_text())
    assert (state["epoch"], state["epoch_step"], state["step"]) == (1, 4, 20)
    assert (state["world_size"], state["replicas"], state["strategy"]) == (2, 2, "horovod")
    assert (state["seed"], state["global_batch"]) == (0, 12)
    assert len(state["metrics"]) == 2 and state["learning_rate"] > 0 and state["decisions"]["best"] > 0
    assert len(state["configuration_sha256"]) == 64 and "tensorflow" in state["versions"]


@pytest.fixture(scope="module")
def moved(runs, tmp_path_factory, tiny_data):
    """The run of two ranks, cut at step 20 and gone on with by other workers or after other misfortunes."""
    folder, whole = tmp_path_factory.mktemp("moved"), runs("horovod") / "whole"
    shutil.copytree(whole, folder / "whole", symlinks=True)
    line = [*LINE.split(), "--data-dir", tiny_data]
    jobs = {
        "alone": line,
        "damaged": line,
        "lost": line,
        "other batch": [*line, "--global-batch-size", 8],
        "other metrics": [*line, "--metrics", "accuracy"],
        "longer": [*line, "--epochs", 5, "--early-stopping-patience", 4],
        "other monitor": [*line, "--monitor", "val_loss"],
        "other precision": [*line, "--precision", "float16"],
        "elsewhere": [*line, "--resume", folder / "whole" / "checkpoints" / "best"],
        "decayed": [*line, "--weight-decay", 0.2, "--decay-all"],
        "before": [*line, "--weight-decay", 0.2],
        "finished": line,
        "older": [*line, "--resume", folder / "older" / "checkpoints" / "step-00000016"],
        "shorter": [*line, "--epochs", 1],
    }
    for name, step in {"damaged": 20, "lost": 5}.items():
        checkpoints.cut(whole, folder / name, step)
        weights = folder / name / "checkpoints" / f"step-{step:08d}" / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-7])
    for name in ("finished", "older"):
        shutil.copytree(whole, folder / name, symlinks=True)
    cuts = dict.fromkeys(("alone", "other batch", "other metrics", "other monitor", "other precision", "shorter"), 20)
    plants = {name: [["cut", "whole", step]] for name, step in (cuts | {"longer": 64}).items()}
    plants["before"] = [["cut", "decayed", 20], ["forget", "decay_all", 0]]
    codes = run_jobs(folder, jobs, plants=plants)
    parts = (folder / "output.txt").read_text().split("job: ")[1:]
    said = {}
    for part in parts:
        name, _, text = part.partition("\n")
        said[name] = said.get(name, "") + text
    return folder, codes, said


def test_another_number_of_workers_goes_on_and_is_told_what_changed(runs, moved):
    folder, codes, said = moved
    assert codes["alone"] == 0
    assert "was 2 workers (horovod), now 1 worker (single)" in said["alone"]
    ours, theirs = summary(folder / "alone"), summary(runs("horovod") / "whole")
    assert (ours["steps"], ours["stopped_by"]) == (theirs["steps"], theirs["stopped_by"])
    assert ours["final"] == pytest.approx(theirs["final"], rel=1e-3)
    # The broken epoch's metrics have not lost the second rank's part.
    assert np.array(table(folder / "alone")[2], float) == pytest.approx(
        np.array(table(runs("horovod") / "whole")[2], float), rel=1e-3
    )


def test_more_workers_go_on_with_the_metrics_of_the_broken_epoch(runs):
    """One process, cut in its second epoch, and two ranks that split layers after it."""
    grown, alone = runs("horovod") / "grown", runs("single") / "whole"
    assert (summary(grown)["steps"], summary(grown)["replicas"]) == (64, 2)
    assert np.array(table(grown)[2], float) == pytest.approx(np.array(table(alone)[2], float), rel=1e-3)


def test_a_damaged_checkpoint_is_said_and_passed_over(runs, moved):
    folder, codes, said = moved
    assert codes["damaged"] == 0
    assert "warning: " in said["damaged"] and "step-00000020/weights.safetensors is not the file" in said["damaged"]
    assert "going on from step-00000016" in said["damaged"]
    assert summary(folder / "damaged")["steps"] == 64


def test_if_none_can_be_read_nothing_begins_anew(moved):
    folder, codes, said = moved
    assert codes["lost"] == 2 and "none of the 1 checkpoints in" in said["lost"]
    assert not (folder / "lost" / "summary.json").exists()


def test_another_global_batch_is_told_both_ways_out(moved):
    _, codes, said = moved
    assert codes["other batch"] == 2
    assert "go on with --global-batch-size 12 or --batch-size 12 (and --base-batch-size 12" in said["other batch"]
    assert "or begin anew in another --run-dir" in said["other batch"]


def test_other_metrics_do_not_go_on_within_an_epoch(moved):
    _, codes, said = moved
    assert codes["other metrics"] == 2 and "use --metrics accuracy,auc, or begin anew" in said["other metrics"]


def test_a_run_cannot_end_before_the_epoch_that_it_is_in(moved):
    _, codes, said = moved
    assert codes["shorter"] == 2
    assert "lies in epoch 2, and --epochs is 1; give --epochs 2 to end with that one, or more" in said["shorter"]


def test_a_longer_run_says_which_settings_changed_and_trains_on(moved):
    folder, codes, said = moved
    assert codes["longer"] == 0 and "was --epochs 4, now 5" in said["longer"]
    assert (summary(folder / "longer")["steps"], summary(folder / "longer")["stopped_by"]) == (80, "early_stopping")


def test_a_run_of_before_decays_what_it_did(moved):
    """Until there was a choice, biases decayed too."""
    folder, codes, said = moved
    assert codes["decayed"] == codes["before"] == 0
    assert "biases and normalisation decay too, as when this run began; --no-decay-all ends that" in said["before"]
    assert "changed since" not in said["before"]
    digests = [summary(folder / name)["weights_sha256"] for name in ("decayed", "before")]
    assert digests[0] == digests[1]
    assert yaml.safe_load((folder / "before" / "config.yaml").read_text())["decay_all"] is True


def test_what_is_asked_for_beats_what_a_run_of_before_did(moved):
    checkpoint = moved[0] / "before" / "checkpoints" / "step-00000020"
    assert earlier.inherited(TrainConfig(weight_decay=0.1), checkpoint) == {"decay_all": True}
    assert earlier.inherited(TrainConfig(weight_decay=0.1, decay_all=False), checkpoint) == {}
    assert earlier.inherited(TrainConfig(), checkpoint) == {}
    assert earlier.inherited(TrainConfig(weight_decay=0.1), checkpoint.with_name("step-00000032")) == {}


def test_another_precision_scales_the_loss_from_its_beginning(moved):
    folder, codes, said = moved
    assert codes["other precision"] == 0 and "was --precision float32, now float16" in said["other precision"]
    state = load_file(folder / "other precision" / "checkpoints" / "last" / "optimizer.safetensors")
    (scale,) = (value for name, value in state.items() if name.endswith("loss_scale"))
    assert scale > 2.0**10


def test_another_monitored_metric_begins_without_a_best(moved):
    """The losses, all below 3, would never be better than the whole run's accuracies, all below 1."""
    folder, codes, said = moved
    assert codes["other monitor"] == 0 and "was --monitor auto, now val_loss" in said["other monitor"]
    names, *rows = table(folder / "other monitor")
    # Those of the epochs that were decided by it.
    losses = np.array([row[names.index("val_loss")] for row in rows[1:]], float)
    best = summary(folder / "other monitor")["best"]
    assert best["epoch"] == 2 + losses.argmin() and best["val_loss"] == pytest.approx(losses.min(), rel=1e-5)


def test_another_runs_checkpoint_may_be_named_by_its_link(runs, moved):
    folder, codes, said = moved
    assert codes["elsewhere"] == 0 and summary(folder / "elsewhere")["steps"] == 64
    assert summary(folder / "elsewhere")["best"] == summary(folder / "whole")["best"]


def test_a_run_goes_on_from_its_newest_and_says_so_where_an_older_one_is_named(moved):
    _, codes, said = moved
    assert codes["older"] == 2 and "which goes on from its newest, step-00000064; " in said["older"]


def test_a_finished_run_stays_as_it_is(runs, moved):
    folder, codes, said = moved
    assert codes["finished"] == 0 and "is already finished" in said["finished"]
    assert summary(folder / "finished") == summary(runs("horovod") / "whole")


def test_batch_normalisation_goes_on_in_mid_epoch_with_the_same_bits(tmp_path, tiny_data):
    """On two ranks over whose examples together it goes: weights, moving statistics and the optimizer's state."""
    line = [*LINE.split(), "--batch-norm-span", "global", "--data-dir", tiny_data]
    jobs, plants = {"whole": line, "20": line}, {"20": [["cut", "whole", 20]]}
    assert run_jobs(tmp_path, jobs, "horovodrun", "-np", "2", plants=plants) == dict.fromkeys(jobs, 0)
    for file in ("weights.safetensors", "optimizer.safetensors"):
        expected, actual = (load_file(tmp_path / run / "checkpoints" / "step-00000064" / file) for run in jobs)
        assert expected.keys() == actual.keys()
        assert all(np.array_equal(actual[name], expected[name]) for name in expected), file
        if file.startswith("weights"):
            before = load_file(tmp_path / "whole" / "checkpoints" / "step-00000020" / file)
            assert not np.array_equal(before["norm1/moving_mean"], expected["norm1/moving_mean"])
    assert summary(tmp_path / "20")["final"] == summary(tmp_path / "whole")["final"]
