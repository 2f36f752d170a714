"""What the tests for GPUs share: which devices there are, and what was measured, as JSON and as a page.

``LOCKSTEP_TEST_DEVICE=CPU`` runs the same code on CPU cores with small networks: it shows that the tests themselves
work, and nothing about a GPU.  ``LOCKSTEP_GPU_RESULTS`` is the folder of results.json and results.md (default:
gpu-results); each test adds its own to what is there, so that they can be run in several slots.
"""

import contextlib
import json
import os
import time
from pathlib import Path

from conftest import ROOT

from distributed.hardware import cuda

KIND = os.environ.get("LOCKSTEP_TEST_DEVICE", "GPU")
FOLDER = Path(os.environ.get("LOCKSTEP_GPU_RESULTS", ROOT / "gpu-results"))
CARDS = cuda.cards() if KIND == "GPU" else []
COUNT = len(CARDS) if KIND == "GPU" else 2
# Baselines would else take all of the card's memory, and TensorFlow see all cards where a test is about one.
ONE = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "CUDA_VISIBLE_DEVICES": "0" if KIND == "GPU" else "-1"}
TWO = {"CUDA_VISIBLE_DEVICES": "0,1" if KIND == "GPU" else "-1"}
PRECISIONS = ("float32", "bfloat16", "float16")


def missing(devices: int = 1) -> str | None:
    """Why tests for so many devices cannot be run here, or None."""
    if devices <= COUNT:
        return None
    return "no GPU" if COUNT == 0 else f"{COUNT} GPU, and {devices} are needed"


@contextlib.contextmanager
def recorded(group: str, name: str):
    """Keep what a test puts into the dict that this gives, and whether it passed."""
    values, outcome = {}, "failed"
    began = time.time()
    try:
        yield values
        outcome = "passed"
    finally:
        entry = {"outcome": outcome, "seconds": round(time.time() - began), "when": time.strftime("%Y-%m-%d %H:%M")}
        _add(group, name, entry | {"values": values})


def _add(group: str, name: str, entry: dict) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {"groups": {}}
    results["device"] = f"{COUNT} x {CARDS[0].name}" if CARDS else "CPU cores: a dry run, which says nothing of a GPU"
    results["groups"].setdefault(group, {})[name] = entry
    for file, text in ((path, json.dumps(results, indent=1) + "\n"), (FOLDER / "results.md", page(results))):
        beside = file.with_suffix(".writing")
        beside.write_text(text)
        beside.replace(file)


def page(results: dict) -> str:
    """The results in Markdown: a table per group, a row per value."""
    lines = ["# Results of make test-gpu", "", f"Device: {results['device']}"]
    for group, tests in results["groups"].items():
        lines += ["", f"## {group}", "", "| test | outcome | value | |", "|---|---|---|---|"]
        for name, entry in tests.items():
            head = f"{name} | {entry['outcome']}, {entry['when']}, {entry['seconds']} s"
            for value, of in entry["values"].items() or [("", "")]:
                lines += [f"| {head} | {value} | {shown(of)} |"]
                head = " | "  # said once
    return "\n".join(lines) + "\n"


def shown(value) -> str:
    """A value for the page; long names are not cut."""
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value).replace("|", "/").replace("\n", " ")
