"""``--help`` shows every flag with its text."""

import ast
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from launch.job.config import TrainConfig

# The command line that is promised to people and scripts.
FLAGS = (
    "config strategy model dataset data-dir validation-split image-size augment epochs steps-per-epoch batch-size "
    "global-batch-size optimizer momentum weight-decay clip-norm accumulate-steps learning-rate lr-scaling "
    "base-batch-size warmup-epochs schedule plateau-patience plateau-factor plateau-cooldown min-learning-rate "
    "early-stopping-patience min-delta monitor monitor-mode precision label-smoothing dropout seed deterministic "
    "run-dir resume checkpoint-every-steps keep-checkpoints cpu-devices"
)


def help_texts():
    for group in reversed(TrainConfig.__bases__):
        file = ROOT / f"{group.__module__.replace('.', '/')}.py"
        (fields,) = [node for node in ast.parse(file.read_text()).body if getattr(node, "name", "") == group.__name__]
        for field, after in zip(fields.body, fields.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign):
                yield field.target.id, after.value.value if isinstance(after, ast.Expr) else ""


def test_every_field_has_a_help_text():
    assert [name for name, text in help_texts()] == list(TrainConfig.model_fields)
    assert [name for name, text in help_texts() if len(text) < 10] == []


@pytest.mark.parametrize("script", ("train.py", "train_mirrored.py"))
def test_help_exits_0_and_shows_every_flag_with_its_text(script):
    environment = os.environ | {"COLUMNS": "300"}
    ended = subprocess.run(
        [sys.executable, ROOT / "launch" / script, "--help"], capture_output=True, text=True, env=environment
    )
    shown = " ".join(ended.stdout.replace("│", " ").split())
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [flag for flag in FLAGS.split() if f"--{flag}" not in shown] == []
    assert [name for name, text in help_texts() if " ".join(text.split()[:4]) not in shown] == []
