"""The rows of the parity table, the sets of workers that train each, and what a run of one leaves."""

import csv
from pathlib import Path

import numpy as np
import yaml
from conftest import summary
from safetensors.numpy import load_file

# Each row: what is switched on, as flags of train.py.  Global batch 12 divides by 1, 2, 3 and 4 workers.
TRAINING = {
    "sgd": "--momentum 0.9",
    "adam": "--optimizer adam --learning-rate 0.002",
    "rmsprop": "--optimizer rmsprop --learning-rate 0.001",
    "clip": "--clip-norm 0.5",
    "accumulate": "--accumulate-steps 2 --global-batch-size 24",
    "label_smoothing": "--label-smoothing 0.1",
    "flip_crop": "--augment flip_crop",
    "weight_decay": "--weight-decay 0.01",
    "dropout": "--dropout 0.5",
}
REST = {
    "metrics": "--metrics accuracy,top5,precision,recall,auc --data-dir DATA/val1003.npz",
    "validation_2": "--data-dir DATA/val2.npz --metrics accuracy,auc",
    "validation_1": "--data-dir DATA/val1.npz",
    "no_validation": "--data-dir DATA/train_only.npz --validation-split 0",
    "check_replicas": "--check-replicas 3 --optimizer nadam --learning-rate 0.0005",
    "plateau": "--plateau-patience 1 --min-delta 10 --schedule cosine --epochs 3",
    "early_stopping": "--early-stopping-patience 1 --min-delta 10 --epochs 4",
    "allreduce": "--exchange allreduce",
    "factors": "--exchange factors --weight-decay 0.01 --clip-norm 0.5",
    "factors_accumulate": (
        "--exchange factors --accumulate-steps 2 --global-batch-size 24 --dropout 0.5 --l1 0.0001 --nesterov"
    ),
    "split": (
        "--exchange split --momentum 0.9 --dropout 0.5 --clip-norm 0.5 --weight-decay 0.2 --l2 0.001 "
        "--check-replicas 5"
    ),
    "split_adam": "--exchange split --optimizer adam --learning-rate 0.001 --checkpoint-every-steps 7",
    "batch_norm": "--batch-norm-span global --dropout 0.5 --learning-rate 0.005 --check-replicas 5",
    "batch_norm_span": "--batch-norm-span 3 --global-batch-size 36 --dropout 0.5 --learning-rate 0.005",
    "batch_norm_accumulate": (
        "--batch-norm-span global --accumulate-steps 2 --global-batch-size 24 --dropout 0.5 --learning-rate 0.005"
    ),
    "own_file": "--model HELPERS/own_network.py:build --dropout none --exchange factors",
    "own_file_split": "--model HELPERS/own_network.py:build --dropout none --exchange split --learning-rate 0.01",
    "own_file_frozen": "--model HELPERS/own_network.py:with_frozen_layers --dropout none --exchange factors",
    "frozen": "--freeze base --momentum 0.9 --dropout 0.5",
    "cached_views": "--freeze base --augment flip_crop --cache-views 2 --epochs 3 --momentum 0.9 --dropout 0.5",
    "thawed": "--freeze base --unfreeze-epoch 2 --optimizer adam --learning-rate 0.002 --layer-decay 0.7",
    "thawed_split": "--freeze base,fc7 --unfreeze-epoch 2 --exchange split --momentum 0.9 --check-replicas 5",
    "lamb": "--optimizer lamb --learning-rate 0.005 --weight-decay 0.01 --decay-all --exchange split",
    "schedule": (
        "--schedule DATA/rates.py:by_epoch --class-weights DATA/weights.yaml --validation-every 2 --epochs 3 "
        "--early-stopping-patience 1 --min-delta 10"
    ),
    "steps_1": "--momentum 0.9 --steps-per-call 1",
    "steps_3": "--momentum 0.9 --steps-per-call 3",
    "steps_auto": "--momentum 0.9 --steps-per-call auto --checkpoint-every-steps 5",
}
# Micro-batches of one size on all workers: equal to the last bit.
EXACT = {
    "exact": "--micro-batch-size 2 --global-batch-size 24 --dropout 0.5 --augment flip_crop --clip-norm 0.5",
    "exact_adam": "--micro-batch-size 2 --global-batch-size 24 --optimizer adam --learning-rate 0.002",
    "exact_allreduce": (
        "--micro-batch-size 3 --global-batch-size 36 --exchange allreduce --weight-decay 0.01 --nesterov"
    ),
    "exact_bfloat16": "--micro-batch-size 2 --global-batch-size 24 --precision bfloat16 --optimizer rmsprop",
    "exact_batch_norm": "--micro-batch-size 2 --global-batch-size 24 --batch-norm-span global --dropout 0.5",
    "exact_batch_norm_bfloat16": "--micro-batch-size 4 --global-batch-size 48 --batch-norm-span 2 --precision bfloat16",
    "exact_own_file": "--model HELPERS/own_network.py:build --dropout none --micro-batch-size 4 --global-batch-size 48",
    "exact_frozen": "--micro-batch-size 2 --global-batch-size 24 --dropout 0.5 --freeze base --cache-features off",
    "exact_cached": "--micro-batch-size 2 --global-batch-size 24 --dropout 0.5 --freeze base --cache-features on",
    "exact_cached_views": (
        "--micro-batch-size 2 --global-batch-size 24 --dropout 0.5 --freeze base --augment flip_crop --cache-views 2 "
        "--epochs 3"
    ),
    "exact_thawed": (
        "--micro-batch-size 2 --global-batch-size 24 --dropout 0.5 --freeze base --unfreeze-epoch 2 --layer-decay 0.7"
    ),
    "exact_recipe": (
        "--micro-batch-size 2 --global-batch-size 24 --optimizer adamw --learning-rate 0.002 --l1 0.0001 --l2 0.001 "
        "--class-weights DATA/weights.yaml --schedule DATA/rates.py:by_step --validation-every 2 --epochs 3"
    ),
    "exact_steps_1": "--micro-batch-size 2 --global-batch-size 24 --dropout 0.5 --steps-per-call 1",
    "exact_steps_3": "--micro-batch-size 2 --global-batch-size 24 --dropout 0.5 --steps-per-call 3",
    "exact_steps_auto": "--micro-batch-size 2 --global-batch-size 24 --dropout 0.5 --steps-per-call auto",
}
# Networks of keras.applications, for a few steps: equal to the last bit too. Each takes a minute to be traced.
_FEW = "--image-size 32 --dropout none --steps-per-epoch 2 --learning-rate 0.001 --data-dir DATA/val2.npz"
NETWORKS = {
    "exact_resnet50": f"--model keras:ResNet50 --micro-batch-size 4 --global-batch-size 48 {_FEW}",
    "exact_mobilenet_bfloat16": (
        f"--model keras:MobileNetV3Small --precision bfloat16 --micro-batch-size 4 --global-batch-size 48 {_FEW}"
    ),
    "exact_head": (
        "--model keras:MobileNetV3Small --head average --head-units 64 --dropout 0.2 "
        f"--micro-batch-size 4 --global-batch-size 48 {_FEW}"
    ).replace("--dropout none ", ""),
}
# In make test-all alone.
FURTHER = {
    "adamw": "--optimizer adamw --learning-rate 0.002 --weight-decay 0.01 --exchange split",
    "lion": "--optimizer lion --learning-rate 0.00002 --exchange split",
}
FURTHER_EXACT = {
    "exact_lamb": "--micro-batch-size 2 --global-batch-size 24 --optimizer lamb --learning-rate 0.005 --decay-all "
    "--weight-decay 0.01",
    "exact_warmup": "--micro-batch-size 2 --global-batch-size 24 --warmup-epochs 1 --dropout 0.5",
    "exact_lion": "--micro-batch-size 2 --global-batch-size 24 --optimizer lion --learning-rate 0.0005",
}
VALIDATION_EXAMPLES = {"metrics": 1003, "validation_2": 2, "validation_1": 1, "no_validation": 0}
# Launcher, and flags.
WORKERS = {
    "single": ((), ()),
    "mirrored-2": ((), ("--cpu-devices", "2")),
    "mirrored-3": ((), ("--cpu-devices", "3")),
    "horovod-1": (("horovodrun", "-np", "1"), ("--strategy", "horovod")),
    "horovod-2": (("horovodrun", "-np", "2"), ()),
    "horovod-3": (("horovodrun", "-np", "3"), ()),
    "horovod-4": (("horovodrun", "-np", "4"), ()),
}
STEPS = 203 // 12  # of an epoch
# Sets of workers that are left to make test-faults, and to make test-all: between one process, three replicas of one
# process and four ranks, which make test compares, they show little that is new.  Of exact rows it compares four ranks.
LATER, RARELY = ("horovod-2",), ("mirrored-2", "horovod-1", "horovod-3")
EXACT_LATER, EXACT_RARELY = (*LATER, "mirrored-3"), RARELY
COMMON = (
    "--dataset npz --global-batch-size 12 --epochs 2 --learning-rate 0.02 --dropout 0 --deterministic --warmup-epochs 0"
)


def weights(run_dir: Path) -> dict[str, np.ndarray]:
    return load_file(run_dir / "checkpoints" / "last" / "weights.safetensors")


def history(run_dir: Path) -> list[dict]:
    """metrics.csv without what depends on the clock."""
    with open(run_dir / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if "second" not in name} for row in rows]


def seen(run_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Sample ids and pixel sums in the order of the run: [steps, global batch]."""
    ranks = [np.load(run_dir / f"seen-{rank}.npz") for rank in range(len(list(run_dir.glob("seen-*.npz"))))]
    facts = summary(run_dir)
    # A rank's batches are its replicas' in turn; what was prefetched beyond the last step was not trained on.
    per_rank = facts["replicas"] // facts["world_size"]
    turns = yaml.safe_load((run_dir / "config.yaml").read_text())["accumulate_steps"]
    parts = []
    for name in ("ids", "pixels"):
        arrays = [
            rank[name][: facts["steps"] * per_rank].reshape(facts["steps"], per_rank, turns, -1) for rank in ranks
        ]
        # Turn by turn over all replicas.
        parts.append(np.concatenate(arrays, axis=1).swapaxes(1, 2).reshape(facts["steps"], -1))
    return tuple(parts)


def merged(common: list, more: list) -> list:
    """``common`` without the flags that ``more`` gives too."""
    given = {word for word in more if str(word).startswith("--")}
    kept, words = [], iter(common)
    for word in words:
        if word == "--deterministic":
            kept.append(word)
        elif word in given:
            next(words)
        else:
            kept += [word, next(words)]
    return kept + list(more)
