"""Agreement of N ranks, each played by a thread."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from distributed.collectives import Collectives
from distributed.control import Control, check_agreement, differences, together
from distributed.world import World, WorldError


class Ranks:
    """Threads that exchange bytes through a list and a barrier; the wait is bounded, lest a rank left alone hangs."""

    def __init__(self, size):
        self.size, self.board, self.barrier = size, [None] * size, threading.Barrier(size, timeout=120)

    def run(self, function):
        """``function(control, rank)`` on every rank: its result, or the exception it raised, by rank."""

        def one(rank):
            try:
                return function(Control(RankCollectives(self, rank)), rank)
            except Exception as error:
                return error

        with ThreadPoolExecutor(self.size) as threads:
            return list(threads.map(one, range(self.size)))


class RankCollectives(Collectives):
    def __init__(self, ranks, rank):
        super().__init__(World(rank, ranks.size))
        self.ranks = ranks

    def gather_bytes(self, payload):
        self.ranks.board[self.world.rank] = payload
        self.ranks.barrier.wait()
        gathered = list(self.ranks.board)
        self.ranks.barrier.wait()
        return gathered

    def broadcast_bytes(self, payload):
        return self.gather_bytes(payload)[0]


VALUE = {"stop": False, "factor": 0.1 + 0.2, "path": "größe", "none": None, "list": [1, [2.5]]}


def test_alone_one_agrees_with_oneself():
    control = Control(Collectives(World()))
    assert control.agree(VALUE) == VALUE and control.gather(VALUE) == [VALUE]
    assert together(control, (ValueError,), lambda: 7) == 7


def test_all_get_the_chiefs_value_and_each_ones_by_rank():
    assert Ranks(3).run(lambda control, rank: control.agree(VALUE if rank == 0 else None)) == [VALUE] * 3
    assert (
        Ranks(3).run(lambda control, rank: control.gather({"rank": rank}))
        == [[{"rank": rank} for rank in range(3)]] * 3
    )


@pytest.mark.parametrize(
    ("values", "found"),
    (
        ([{"a": 1, "b": 2}], []),
        ([{"a": 1, "b": [1]}, {"b": [1], "a": 1}], []),
        ([{"a": 1, "b": 2}, {"a": 1, "b": 3}], [("b", [2, 3])]),
        ([{"a": 1}, {"a": 1}, {"a": 2}], [("a", [1, 1, 2])]),
        ([{"b": 1, "a": 0}, {"b": 2, "a": 1}], [("b", [1, 2]), ("a", [0, 1])]),
        ([{}, {"a": 1}], [("a", [None, 1])]),
        ([{"a": 1}, {"a": "1"}], [("a", [1, "1"])]),
    ),
)
def test_differences(values, found):
    assert differences(values) == found


def test_check_agreement_names_field_and_values_by_rank_on_every_rank():
    assert Ranks(3).run(lambda control, rank: check_agreement(control, {"seed": 1, "model": "vgg16"})) == [None] * 3
    errors = Ranks(3).run(lambda control, rank: check_agreement(control, {"seed": 1, "batch": 64 if rank < 2 else 32}))
    assert {type(error) for error in errors} == {WorldError} and len({str(error) for error in errors}) == 1
    assert "different batch (ranks 0-1: 64, rank 2: 32)" in str(errors[0])


class Mendable(ValueError):
    pass


@pytest.mark.parametrize(
    ("fails", "sentence"),
    (
        ((1,), "rank 1: no file on 1"),
        ((1, 2), "rank 1: no file on 1"),
        ((0,), "rank 0: no file on 0"),
        ((0, 1, 2), "no file on 0"),
    ),
)
def test_one_ranks_error_is_every_ranks_error(fails, sentence):
    def load(rank):
        if rank in fails:
            raise Mendable(f"no file on {rank}")
        return rank * 10

    errors = Ranks(3).run(lambda control, rank: together(control, (Mendable,), lambda: load(rank)))
    assert [(type(error), str(error)) for error in errors] == [(WorldError, sentence)] * 3


def test_where_none_fails_each_gets_its_own_result():
    assert Ranks(3).run(lambda control, rank: together(control, (Mendable,), lambda: rank * 10)) == [0, 10, 20]


def test_an_error_without_words_is_an_error_too():
    def load(rank):
        if rank == 1:
            raise Mendable
        return rank

    errors = Ranks(2).run(lambda control, rank: together(control, (Mendable,), lambda: load(rank)))
    assert [type(error) for error in errors] == [WorldError] * 2


def test_any_other_exception_passes_through():
    def bug():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        together(Control(Collectives(World())), (Mendable,), bug)


def test_values_travel_as_json():
    """Nothing is unpickled that another process sent."""
    seen = []

    class Spy(Collectives):
        def gather_bytes(self, payload):
            seen.append(payload)
            return [payload]

    Control(Spy(World())).gather(VALUE)
    assert json.loads(seen[0]) == VALUE
