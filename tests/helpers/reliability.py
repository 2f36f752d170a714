"""Write the counts of the last test run into docs/reliability.md: python tests/helpers/reliability.py FAULTS.jsonl.

The tests add a line per fault to the file that LOCKSTEP_FAULTS names (see conftest.py); make test and make test-faults
name .faults.jsonl.
"""

import json
import sys
from collections import Counter
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "reliability.md"
BEGIN, END = "<!-- counts: written by tests/helpers/reliability.py -->", "<!-- end of counts -->"


def table(lines: list[dict]) -> str:
    """A row per kind of fault, by name."""
    injected, lost = Counter(), Counter()
    for line in lines:
        injected[line["fault"]] += line["injected"]
        lost[line["fault"]] += line["lost"]
    rows = [f"| {fault} | {count} | {lost[fault]} |" for fault, count in sorted(injected.items())]
    total = f"| **all** | **{injected.total()}** | **{lost.total()}** |"
    return "\n".join(["| fault | injected | lost |", "|---|---|---|", *rows, total])


def main(faults: Path) -> None:
    lines = [json.loads(line) for line in faults.read_text().splitlines()]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(lines)}\n\n{END}{after}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
