"""Many ranks in few words, at 512 ranks as at three."""

from types import SimpleNamespace

import pytest
from test_control import VALUE, Mendable, Ranks

from distributed.control import check_agreement, together
from distributed.hardware.placement import shared_cards
from distributed.in_words import by_value, in_runs, ranks_in_words
from distributed.world import WorldError

N = 512
LONGEST = 5 * 120  # letters: five lines of a terminal
# What the ranks were started with, by rank.
DIFFERENT = {
    "one differs": (lambda rank: "b" if rank == 256 else "a", "ranks 0-255, 257-511: a, rank 256: b"),
    "two halves": (lambda rank: rank // 256, "ranks 0-255: 0, ranks 256-511: 1"),
    "every second one": (lambda rank: rank % 2, "ranks 0, 2, 4, 6 and 252 more: 0, ranks 1, 3, 5, 7 and 252 more: 1"),
    "each another": (lambda rank: rank, "rank 0: 0, rank 1: 1, rank 2: 2, rank 3: 3, and 508 further values"),
    "at length": (lambda rank: f"{rank}" * 1000, "rank 1: 111"),
}


@pytest.mark.parametrize(("ranks", "words"), (([3], "rank 3"), ([0, 1, 2, 5], "ranks 0-2, 5"), ([0, 2], "ranks 0, 2")))
def test_ranks_in_words(ranks, words):
    assert ranks_in_words(ranks) == words
    assert ranks_in_words(ranks, "replica") == words.replace("rank", "replica")


def test_runs_are_all_shown_where_nobody_asks_for_fewer():
    assert in_runs(range(0, 20, 2)) == "0, 2, 4, 6, 8, 10, 12, 14, 16, 18"
    assert in_runs([0, 1, 5, 7, 8, 9], most=1) == "0-1 and 4 more"


def test_a_value_is_compared_by_what_it_is():
    assert by_value([1, "1", 1, None]) == "ranks 0, 2: 1, rank 1: 1, rank 3: None"


def test_512_ranks_agree():
    def both(control, rank):
        return control.agree(VALUE if rank == 0 else None), check_agreement(control, {"model": "vgg16"})

    assert Ranks(N).run(both) == [(VALUE, None)] * N


@pytest.mark.parametrize("name", DIFFERENT)
def test_512_ranks_disagree_in_five_lines(name):
    value, words = DIFFERENT[name]
    told = SimpleNamespace(gather=lambda mine: [{"model": value(rank)} for rank in range(N)])
    with pytest.raises(WorldError) as error:
        check_agreement(told, {})
    assert words in str(error.value) and len(str(error.value)) <= LONGEST and "\n" not in str(error.value)


def test_all_of_512_name_the_one_that_differs():
    errors = Ranks(N).run(lambda control, rank: check_agreement(control, {"model": "b" if rank == 256 else "a"}))
    (said,) = {str(error) for error in errors}
    assert "different model (ranks 0-255, 257-511: a, rank 256: b)" in said


def test_one_of_512_that_cannot_go_on_is_named():
    told = SimpleNamespace(
        wait=lambda: None, gather=lambda mine: [f"no file on {rank}" if rank % 2 else None for rank in range(N)]
    )
    with pytest.raises(WorldError, match="^rank 1: no file on 1$"):
        together(told, (Mendable,), lambda: None)


def test_512_ranks_that_share_cards_are_named_in_five_lines():
    def card(rank):
        return {"id": f"{rank // 2}", "name": "NVIDIA H100 80GB HBM3", "bus_id": f"0000:{rank % 8:02}:00.0"}

    sentence = shared_cards([{"host": f"node{rank // 8}", "card": card(rank)} for rank in range(N)])
    assert "8 ranks on node0 have 4 GPUs" in sentence and "ranks 0-1: NVIDIA H100" in sentence
    assert len(sentence) <= LONGEST
