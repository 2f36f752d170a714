"""What the ranks found, as people read it and as JSON: a row per fact, a line per value with its ranks."""

from collections.abc import Callable, Sequence

from distributed.in_words import in_runs, ranks_in_words
from launch.diagnosis.findings import Finding

SHOWN = 8  # values of a row; more are counted


def _gb(size: float | None) -> str | None:
    return None if size is None else f"{size / 1e9:,.1f} GB"


def _cores(rank: dict) -> str:
    nodes = f", NUMA node {in_runs(rank['numa'])}" if rank["numa"] else ""
    return f"{rank['threads']} to use; bound to {in_runs(rank['cores'])} of {rank['cores_of_host']}{nodes}"


def _device(rank: dict) -> str | None:
    if rank.get("device_kind") == "GPU":
        place = f" at {rank['card']['bus_id']}" if rank["card"] else ""
        return f"{rank['gpu']}{place}, compute capability {rank['compute_capability']}; {rank['gpus_seen']} seen"
    return f"CPU: {rank['cpu']}"


def _cards(rank: dict) -> str | None:
    if not rank["cards"]:
        return rank["cards_problem"] or "none that nvidia-smi shows"
    shown = [f"driver {rank['cards'][0]['driver_version']}"]
    shown += [f"{card['index']}: {card['name']}, {_gb(card['memory.total'])}" for card in rank["cards"]]
    return "; ".join(shown)


def _pairs(values: dict | None) -> str | None:
    return ", ".join(f"{name} {value}" for name, value in values.items()) if values else None


def _cuda(rank: dict) -> str | None:
    if "built" not in rank:
        return None
    loaded = {name: f"{library['version']} ({library['file']})" for name, library in rank["loaded"].items()}
    return f"built with {_pairs(rank['built']) or 'no CUDA'}; loaded: {_pairs(loaded) or 'none'}"


def _horovod(rank: dict) -> str | None:
    if "horovod" not in rank:
        return None
    parts = {"mpi": "MPI", "gloo": "Gloo", "nccl": f"NCCL {rank['horovod']['nccl']}"}
    return f"{rank['horovod']['version']} with {', '.join(parts[name] for name in parts if rank['horovod'][name])}"


def _tf32(rank: dict) -> str | None:
    return None if rank.get("tf32") is None else "on" if rank["tf32"] else "off"


def _limit(value: int | None) -> str:
    return "no limit" if value is None else f"{value:,}"


# Facts: row -> what one rank has to say, or None.
FACTS: dict[str, Callable[[dict], str | None]] = {
    "host": lambda rank: rank["host"],
    "launcher": lambda rank: f"{rank['launcher']}; ranks: {rank['size']}, on this host {rank['local_size']}",
    "cores": _cores,
    "memory": lambda rank: f"{_gb(rank['memory'])}, {_gb(rank['memory_available'])} available",
    "device": _device,
    "cards": _cards,
    "CUDA": _cuda,
    "TF32": _tf32,
    "versions": lambda rank: _pairs(rank.get("versions")),
    "Horovod": _horovod,
    "MPI": lambda rank: rank.get("mpi"),
    "Slurm": lambda rank: _pairs(rank["slurm"]),
    "variables": lambda rank: _pairs(rank["variables"]),
    "open files": lambda rank: _limit(rank["open_files"]),
    "shared memory": lambda rank: _gb(rank["shared_memory"]),
    "locked memory": lambda rank: _limit(rank["locked_memory"]),
}


def _exchange(name: str) -> Callable[[dict], str | None]:
    def shown(rank):
        measured = rank.get(name)
        if not measured:
            return None
        rate = measured["bytes_per_s"]
        return (
            f"{measured['latency_s'] * 1e3:.2f} ms, {f'{rate / 1e6:,.0f} MB/s' if rate else 'too fast to be measured'}"
        )

    return shown


def _decoding(rank: dict) -> str | None:
    return f"{rank['jpeg_per_second']:,.0f} images/s per core" if "jpeg_per_second" in rank else None


def _read(rank: dict) -> str | None:
    if not (reads := rank.get("read")):
        return None
    return (
        f"{reads['bytes_per_second'] / 1e6:,.0f} MB/s, {reads['files_per_second']:,.0f} files/s, "
        f"{reads['opening'] * 1e3:.2f} ms to open one"
    )


def _written(rank: dict) -> str | None:
    if not (written := rank.get("write")):
        return None
    return f"{written['bytes_per_second'] / 1e6:,.0f} MB/s onto the disk, a flush {written['flush'] * 1e3:.1f} ms"


def _products(precision: str) -> Callable[[dict], str | None]:
    def shown(rank):
        rate = rank.get("matmul_tflops", {}).get(precision)
        if rate is None:
            return None
        return f"{rate:.3g} TFLOP/s" if rate >= 1 else f"{1000 * rate:.3g} GFLOP/s"

    return shown


# What was measured.
MEASURED: dict[str, Callable[[dict], str | None]] = {
    **{f"{precision} products": _products(precision) for precision in ("float32", "tf32", "bfloat16", "float16")},
    "all-reduce": _exchange("allreduce"),
    "all-gather": _exchange("allgather"),
    "JPEG decoding": _decoding,
    "data folder": _read,
    "run folder": _written,
    "free space": lambda rank: _gb(rank["write"]["free"]) if "write" in rank else None,
    "clock": lambda rank: (
        f"{rank['clock'] * 1e3:+.1f} ms beside rank 0's" if "clock" in rank and rank["size"] > 1 else None
    ),
}


def lines(ranks: Sequence[dict], findings: Sequence[Finding]) -> list[str]:
    """The whole table, and the verdict.  ``!`` marks what will be slow, ``x`` what will fail; what to do stands below
    it."""
    shown = []
    rows = FACTS | MEASURED
    for row in dict.fromkeys([*rows, *(finding.row for finding in findings)]):
        about = [finding for finding in findings if finding.row == row]
        mark = "x" if any(finding.fatal for finding in about) else "!" if about else " "
        values = _by_value(ranks, rows.get(row, lambda rank: None))
        if not values and about:
            values = {"-": sorted({rank for finding in about for rank in finding.ranks})}
        for number, (value, who) in enumerate(list(values.items())[:SHOWN]):
            title = f"{mark} {row if number == 0 else '':17}"
            shown.append(f"{title} {value}{_whose(who, len(ranks))}")
        if len(values) > SHOWN:
            shown.append(f"{mark} {'':17} ... and {len(values) - SHOWN} more")
        shown += [f"  {'':17} -> {finding.text}{_whose(finding.ranks, len(ranks))}" for finding in about]
    return [*shown, "", *verdict(findings, len(ranks))]


def verdict(findings: Sequence[Finding], ranks: int) -> list[str]:
    """The last lines: ``ready``, or what to mend."""
    fatal = [finding for finding in findings if finding.fatal]
    if fatal:
        return ["to mend:", *(f"  {finding.row}: {finding.text}{_whose(finding.ranks, ranks)}" for finding in fatal)]
    slow = len(findings)
    return [f"ready; {slow} {'line' if slow == 1 else 'lines'} marked ! will cost time" if slow else "ready"]


def _by_value(ranks: Sequence[dict], say: Callable[[dict], str | None]) -> dict[str, list[int]]:
    values = {}
    for rank in ranks:
        if (value := say(rank)) is not None:
            values.setdefault(value, []).append(rank["rank"])
    return values


def _whose(who: Sequence[int], ranks: int) -> str:
    if ranks == 1:
        return ""
    return "  [all]" if len(who) == ranks else f"  [{ranks_in_words(who)}]"


def numbers(ranks: Sequence[dict], findings: Sequence[Finding]) -> dict:
    """The JSON object that ``--json`` writes; rates are those of the slowest rank, whom all wait for."""
    measured = [rank["matmul_tflops"] for rank in ranks if "matmul_tflops" in rank]
    precisions = measured[0] if measured else ()
    return {
        "ranks": len(ranks),
        "per_host": max(rank["local_size"] for rank in ranks),
        "device": ranks[0].get("gpu") or ranks[0]["cpu"],
        "matmul_tflops": {precision: min(rates[precision] for rates in measured) for precision in precisions},
        "allreduce": ranks[0].get("allreduce"),
        "allgather": ranks[0].get("allgather"),
        "jpeg_per_second": min((rank["jpeg_per_second"] for rank in ranks if "jpeg_per_second" in rank), default=None),
        "ready": not any(finding.fatal for finding in findings),
        "findings": [vars(finding) for finding in findings],
        "facts": list(ranks),
    }
