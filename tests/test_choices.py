"""What a flag offers is what there is: each list of words in the settings equals the table that it chooses from."""

import typing

import pytest

from data import KINDS
from data.views import AUGMENTATIONS
from distributed.metrics import METRICS
from distributed.optimization.schedule import DECAYS, SCALINGS
from launch.job.config import choices
from launch.job.preparation.optimizers import OPTIMIZERS
from launch.shards.config import PrepareConfig
from models import MODELS, PIXELS

TABLES = {
    "model": MODELS,
    "dataset": KINDS,
    "optimizer": OPTIMIZERS,
    "metrics": METRICS,
    "schedule": DECAYS,
    "lr_scaling": SCALINGS,
    "augment": AUGMENTATIONS,
    "pixels": PIXELS,
}


@pytest.mark.parametrize("field", TABLES)
def test_choices_of_a_flag_are_its_table(field):
    assert sorted(choices(field)) == sorted(TABLES[field])


def test_every_source_can_be_made_shards_of_but_shards():
    offered, _ = typing.get_args(typing.get_type_hints(PrepareConfig)["dataset"])
    assert sorted(typing.get_args(offered)) == sorted(set(KINDS) - {"tfrecord"})
