"""Whatever lies on a disk is trained on, with its classes printed, or refused with one sentence; never a traceback."""

import pytest
from odd_data import make

from data import load
from data.datasets import DataError
from data.pipeline import diagnose
from data.splits import test_place as place_of_test
from launch.job.config import ConfigError, TrainConfig
from launch.job.logs.report import SHOWN, class_counts
from launch.job.preparation.batch_plan import create_batch_plan


def opened(dataset, place, how) -> tuple[int, str]:
    """The exit code of the stages that look at data, and what they print."""
    try:
        train, validation = load(dataset, str(place), **how)
        fingerprints = [source.fingerprint() for source in (train, validation) if source]
        create_batch_plan(TrainConfig(batch_size=1), examples=len(train), replicas=1)
        held_out = place_of_test(dataset, str(place))
    except (DataError, ConfigError) as error:
        return 2, str(error)
    assert all(len(fingerprint) == 64 for fingerprint in fingerprints)
    counts = class_counts(train, validation)
    for name in train.classes[:SHOWN]:
        assert f"{name} " in counts
    assert len(set(train.classes)) == len(train.classes) and len(train.classes) > 1
    assert train.labels.min() >= 0 and train.labels.max() < len(train.classes)
    for source in (train, validation):
        for index in range(len(source) if source else 0):
            if fault := diagnose(source, [index]):
                assert fault.isprintable() and "InvalidArgumentError" not in fault
    return 0, f"{counts}; {train.note}; {held_out}"


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.thorough) for part in range(1, 5))])
def test_whatever_lies_there_is_read_or_refused_in_a_sentence(tmp_path, part):
    """Sets of random parts: splits in all names, classes of odd names, nested, litter, broken files, odd labels."""
    codes = {}
    for number in range(60 * part, 60 * part + 60):
        dataset, place, how = make(number, tmp_path / str(number))
        try:
            codes[number], said = opened(dataset, place, how)
        except Exception as error:
            raise AssertionError(f"set {number}, {dataset} {place}") from error
        said.encode("utf-8", "strict")
        assert codes[number] == 0 or len(said) > 20 and ("expected" in said or ": " in said), (number, said)
    assert set(codes.values()) == {0, 2} and list(codes.values()).count(0) > 5
