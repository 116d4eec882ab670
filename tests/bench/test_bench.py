"""The bench runs from end to end on a small database, and what it reports can be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.load import Measured
from bench.measure import Result, quantile, ratio

ROOT = Path(__file__).parents[2]
PYTHON_PEERS = {"Quarterdeck", "bare ASGI + asyncpg", "stock Strawberry"}


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a short run wrote."""
    written = tmp_path_factory.mktemp("bench") / "numbers.json"
    command = [
        *(sys.executable, "-m", "bench", "--scale", "small", "--rounds", "1", "--seconds", "0.1"),
        *("--subscribers", "4", "--only", "reads,writes,statements,streams", "--json", str(written)),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(written.read_text())
    found["tables"] = done.stdout
    return found


def test_everybody_is_asked_everything(numbers: dict) -> None:
    asked = numbers["requests"]
    assert {key: set(results) for key, results in asked.items()} == {
        **dict.fromkeys(("Q1", "Q2", "Q3"), PYTHON_PEERS),
        "M1": PYTHON_PEERS - {"stock Strawberry"},
    }
    for results in asked.values():
        for result in results.values():
            assert result["perSecond"] > 0
            assert 0 < result["p50"] <= result["p99"]
        assert results["Quarterdeck"]["ratio"] == 1


def test_statements_do_not_grow_with_rows(numbers: dict) -> None:
    assert len(numbers["statements"]) == 5
    for what, small, large in numbers["statements"]:
        assert 1 <= small == large, what


def test_every_event_reaches_every_subscriber(numbers: dict) -> None:
    # The run fails where one is missing; here is only that there were some.
    for result in numbers["streams"]["4"].values():
        assert result["perSecond"] > 0
        assert result["p99"] > 0


def test_the_tables_say_what_was_measured(numbers: dict) -> None:
    for title in ("Q1 one session by id", "M1 send a message", "4 subscribers of one session"):
        assert title in numbers["tables"]


def test_ratios_are_medians_of_rounds_not_ratios_of_medians() -> None:
    def result(*per_second: int) -> Result:
        return Result("it", [Measured(number, 1.0, 0.1, [0.001] * number) for number in per_second])

    # A machine that became slow for both in the last rounds changes no ratio.
    assert ratio(result(100, 100, 10, 20, 30), result(50, 50, 5, 10, 15)) == 2
    assert result(1, 2, 90).per_second == 2


def test_quantiles_of_few_values_are_values_of_them() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert quantile([], 0.5) == 0
