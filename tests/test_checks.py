"""What a run says of itself where its replicas or its counts are not as they should be, at any number of replicas."""

from types import SimpleNamespace

import pytest

from launch.job.checks import Miscount, ReplicasDiffer, check_count, check_replicas

LONGEST = 5 * 120  # letters: five lines of a terminal
MODEL = SimpleNamespace(
    network=SimpleNamespace(weights=[SimpleNamespace(path="fc6/kernel"), SimpleNamespace(path="fc7/bias")]),
    optimizer=SimpleNamespace(variables=[]),
    gather=lambda: None,
    examples_here=lambda: None,
)


def said_of(digests):
    """The sentence about replicas whose copies of ``fc7/bias`` have these checksums."""
    strategy = SimpleNamespace(
        replicas=len(digests), replica_digests=lambda variables: [[7, digest] for digest in digests]
    )
    with pytest.raises(ReplicasDiffer) as error:
        check_replicas(strategy, MODEL, 4)
    assert len(str(error.value)) <= LONGEST
    return str(error.value)


def test_equal_replicas_are_not_spoken_of():
    strategy = SimpleNamespace(replicas=3, replica_digests=lambda variables: [[7, 8]] * 3)
    check_replicas(strategy, MODEL, 4)


@pytest.mark.parametrize(
    ("digests", "words"),
    (
        ([1, 2, 1], "replica 1"),
        ([1, 2, 3, 1, 1], "replicas 1-2"),
        ([1] * 511 + [2], "replica 511"),
        ([1, 2] * 100 + [1] * 312, "replicas 1, 3, 5, 7 and 96 more"),
    ),
)
def test_a_minority_is_named(digests, words):
    assert said_of(digests).startswith(f"at step 4 fc7/bias of {words} differs from the others'; look at the memory")


@pytest.mark.parametrize(
    ("digests", "words"),
    (
        ([1, 2], "replica 0 and replica 1"),
        ([2, 1], "replica 0 and replica 1"),
        ([1, 2, 3], "replica 0 and replica 1 and replica 2"),
        ([1, 1, 2, 2], "replicas 0-1 and replicas 2-3"),
        ([*range(512)], "replica 0 and replica 1 and replica 2 and replica 3 and 508 further ones"),
    ),
)
def test_without_a_majority_nobody_is_called_right(digests, words):
    said = said_of(digests)
    assert f"fc7/bias differs between {words}, and none has a majority" in said and "the others'" not in said


@pytest.mark.parametrize(
    ("counts", "words"),
    (([36, 34, 32], "rank 0: 36, rank 1: 34, rank 2: 32"), ([2] * 511 + [1], "ranks 0-510: 2, rank 511: 1")),
)
def test_a_miscount_names_the_ranks_by_what_they_saw(counts, words):
    strategy = SimpleNamespace(control=SimpleNamespace(gather=lambda _: counts))
    with pytest.raises(Miscount) as error:
        check_count(strategy, MODEL, sum(counts), 1024)
    assert f"examples of 1024 ({words})" in str(error.value) and len(str(error.value)) <= LONGEST
