"""One current result for each benchmark and machine: git keeps the others."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
NAME = re.compile(r"(?P<machine>[a-z0-9]+(-2core)?)-(?P<date>\d{4}-\d\d-\d\d)-(?P<benchmark>[a-z0-9-]*[a-z][a-z0-9]*)")


def test_one_result_for_each_benchmark_and_machine() -> None:
    names = [NAME.fullmatch(path.stem) for path in RESULTS.iterdir()]
    assert names and all(names)
    counts = Counter((name["machine"], name["benchmark"]) for name in names if name)
    assert max(counts.values()) == 1, [key for key, count in counts.items() if count > 1]


def test_results_are_json() -> None:
    for path in RESULTS.iterdir():
        json.loads(path.read_text())
