"""What a flag offers is what there is: each list of words in the settings equals the table that it chooses from."""


import pytest

from data import KINDS
from data.views import AUGMENTATIONS
from distributed.metrics import METRICS
from distributed.optimization.schedule import DECAYS, SCALINGS
from launch.job.config import choices
from launch.job.preparation.optimizers import OPTIMIZERS
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
