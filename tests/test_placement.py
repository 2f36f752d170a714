"""Which GPU and which cores a rank takes, and what is said where two have met on one card."""

import pytest

from distributed.hardware import placement

LISTS = {
    # CUDA_VISIBLE_DEVICES of each rank of a host, the GPUs that CUDA then shows to it, which of these it takes.
    "one for each, by the scheduler": [("3", 1, 0), ("5", 1, 0), ("7", 1, 0)],
    "one for each, renumbered by a control group": [("0", 1, 0), ("0", 1, 0)],
    "one for each, by UUID": [("GPU-aa", 1, 0), ("GPU-bb", 1, 0)],
    "a MIG slice for each": [("MIG-aa", 1, 0), ("MIG-bb", 1, 0)],
    # CUDA shows the first slice of a list alone.
    "a list of MIG slices": [("MIG-aa,MIG-bb", 1, 0), ("MIG-aa,MIG-bb", 1, 0)],
    "two for each": [("0,1", 2, 0), ("2,3", 2, 1)],
    "one list for all": [("4,5,6", 3, 0), ("4,5,6", 3, 1), ("4,5,6", 3, 2)],
    "all": [(None, 4, 0), (None, 4, 1)],
    "a list shorter than the ranks": [("0,1", 2, 0), ("0,1", 2, 1), ("0,1", 2, 0)],
    "nothing": [("", 0, None), ("", 0, None)],
    "-1": [("-1", 0, None)],
    "what Slurm writes where no GPU was asked for": [("NoDevFiles", 0, None)],
    "a list that ends at once": [("-1,0", 0, None)],
}


@pytest.mark.parametrize("ranks", LISTS.values(), ids=LISTS)
def test_which_gpu(ranks):
    for local_rank, (value, visible, chosen) in enumerate(ranks):
        environment = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
        assert placement.choose_gpu(local_rank, visible) == chosen
        assert placement.hides_gpus(environment) == (chosen is None)
        assert placement.means_cpu(environment) == (value == "-1")


@pytest.mark.parametrize(
    ("text", "cores"),
    (
        ("0-3\n", {0, 1, 2, 3}),
        ("0-1,8,16-17", {0, 1, 8, 16, 17}),
        ("5", {5}),
        ("", set()),
        ("\n", set()),
        ("0-", set()),
        ("a-b", set()),
        ("-1", set()),
    ),
)
def test_lists_of_cores(text, cores):
    assert placement.read_cpulist(text) == cores


def test_near_cores(tmp_path):
    folder = tmp_path / "bus/pci/devices/0000:3b:00.0"
    folder.mkdir(parents=True)
    (folder / "local_cpulist").write_text("0-1,4-5\n")
    assert placement.near_cores("0000:3B:00.0", tmp_path) == {0, 1, 4, 5}
    assert placement.near_cores("0000:3c:00.0", tmp_path) == set()


@pytest.mark.parametrize(
    ("mine", "job", "near", "kept"),
    (
        ({0, 1, 2, 3}, {0, 1, 2, 3}, {2, 3, 8}, {2, 3}),
        ({0, 1, 2, 3}, {0, 1, 2, 3}, {8, 9}, {0, 1, 2, 3}),  # none of the node's cores is this job's
        ({0, 1, 2, 3}, {0, 1, 2, 3}, (), {0, 1, 2, 3}),
        ({0, 1}, {0, 1, 2, 3}, {1, 2}, {0, 1}),  # bound by the launcher
        ({0, 1, 2}, {0, 1}, {1}, {1}),
    ),
)
def test_cores_to_keep_to(mine, job, near, kept):
    assert placement.choose_cores(mine, job, near) == kept


@pytest.mark.parametrize(
    ("launcher", "mine", "shared", "ranks", "words"),
    (
        ("mpirun", 1, 16, 2, ("each rank to 1 core", "8 of 16", "--bind-to none")),
        ("mpirun", 1, 2, 2, ()),  # nothing is free
        ("mpirun", 8, 16, 2, ()),
        ("mpirun", 16, 16, 2, ()),
        ("srun-pmix", 2, 64, 4, ("each rank to 2 cores", "16 of 64", "--cpus-per-task=16")),
        ("none", 1, 16, 1, ()),  # taskset, by the user
    ),
)
def test_bound_too_narrow(launcher, mine, shared, ranks, words):
    sentences = placement.warn_of_binding(launcher, mine, shared, ranks)
    assert len(sentences) == bool(words) and all(word in sentences[0] for word in words)


@pytest.mark.parametrize(
    ("cores", "gpus", "words"),
    ((4, 1, ""), (3, 1, "3 cores per GPU"), (1, 1, "1 core per GPU"), (6, 4, "1.5 cores per GPU"), (1, 0, "")),
)
def test_few_cores(cores, gpus, words):
    sentences = placement.warn_of_few_cores(cores, gpus)
    assert len(sentences) == bool(words) and all(sentence.startswith(words) for sentence in sentences)


def workers(*places):
    return [
        {"host": host, "card": card and {"id": f"{host}-{card}", "name": "A100", "bus_id": card}}
        for host, card in places
    ]


@pytest.mark.parametrize(
    ("places", "words"),
    (
        ((("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")), ()),
        ((("a", None), ("a", None)), ()),
        ((("a", "1"),), ()),
        (
            (("a", "1"), ("a", "2"), ("a", "1"), ("a", "2")),
            ("4 ranks on a have 2 GPUs between them", "ranks 0, 2: A100 at 1", "ranks 1, 3: A100 at 2", "here 2"),
        ),
        ((("a", "1"), ("b", "1"), ("b", "1")), ("2 ranks on b have 1 GPU between", "ranks 1-2: A100 at 1", "here 1")),
        # A stray CUDA_VISIBLE_DEVICES; the other cards of the host nobody has asked for.
        ((("a", "7"), ("a", "7")), ("ranks 0-1: A100 at 7", "CUDA_VISIBLE_DEVICES", "MIG")),
    ),
)
def test_one_card_for_two_ranks(places, words):
    sentence = placement.shared_cards(workers(*places))
    assert (sentence is None) == (not words) and all(word in sentence for word in words)
