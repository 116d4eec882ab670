"""The bench runs from end to end on a small database, and what it reports can be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from bench.cases import Case, Speaks, copies, requests
from bench.load import Measured
from bench.measure import DifferentAnswer, Result, StreamResult, check_same, quantile, ratio
from bench.peers.postgraphile import meaning
from bench.streams import Streamed

ROOT = Path(__file__).parents[2]
# Some ten processes are started one after the other, which takes a while where other work has the cores.
pytestmark = pytest.mark.timeout(240)
PYTHON_PEERS = {"Quarterdeck", "bare ASGI + asyncpg", "stock Strawberry"}


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a short run wrote."""
    written = tmp_path_factory.mktemp("bench") / "numbers.json"
    command = [
        *(sys.executable, "-m", "bench", "--scale", "small", "--rounds", "1", "--seconds", "0.1"),
        *("--subscribers", "4", "--json", str(written)),
        *("--only", "reads,growth,documents,writes,statements,streams,separate"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=220)
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


def test_growth_is_measured_in_steps(numbers: dict) -> None:
    # A small database has fewer long sessions than the largest page would take.
    assert list(numbers["growth"]) == ["10", "100", "1000"]
    assert list(numbers["documents"]) == ["1", "10", "100"]
    for results in numbers["documents"].values():
        assert results["Quarterdeck"]["memory"] > 10_000_000


def test_statements_do_not_grow_with_rows(numbers: dict) -> None:
    assert len(numbers["statements"]) == 5
    for what, small, large in numbers["statements"]:
        assert 1 <= small == large, what


def test_every_event_reaches_every_subscriber(numbers: dict) -> None:
    # The run fails where one is missing; here is only that there were some.
    assert numbers["notes"] == []
    assert list(numbers["streams"]) == ["subscribers of one session", "subscribers of one session each"]
    for sizes in numbers["streams"].values():
        assert set(sizes["4"]) == {"Quarterdeck", "bare ASGI + asyncpg"}
        for result in sizes["4"].values():
            assert result["perSecond"] > 0
            assert 0 < result["p50"] <= result["p99"]
    separate = numbers["streams"]["subscribers of one session each"]["4"]
    assert all(result["paced"]["200"]["p99"] > 0 for result in separate.values())


def test_the_tables_say_what_was_measured(numbers: dict) -> None:
    for title in ("Q1 one session by id", "M1 send a message", "subscribers of one session each", "documents in turn"):
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


def test_an_answer_in_other_words_is_compared_by_what_it_means() -> None:
    ours = {"nodes": [{"id": "msg_01jghzyyk1f0zr0n5y5bb3wz2t", "seq": 3, "createdAt": "2025-01-01T03:45:00+00:00"}]}
    theirs = {
        "nodes": [
            {"id": str(meaning(ours)["nodes"][0]["id"]), "seq": "3", "createdAt": "2025-01-01T03:45:00.000000+00:00"}
        ]
    }
    check_same("Q3", "Quarterdeck", [meaning(ours)], "postgraphile", [meaning(theirs)])
    for name, value in (("seq", "4"), ("createdAt", "2025-01-01T03:45:01+00:00"), ("id", str(UUID(int=1)))):
        different = {"nodes": [theirs["nodes"][0] | {name: value}]}
        with pytest.raises(DifferentAnswer, match="Quarterdeck and postgraphile differ"):
            check_same("Q3", "Quarterdeck", [meaning(ours)], "postgraphile", [meaning(different)])


def test_copies_of_a_document_are_different_texts() -> None:
    case = copies(Case("Q1", "", "/one", "query One($id: ID!) { session(id: $id) { id } }", ({"id": "ses_1"},)), 3)
    following = requests(case, "token", 1, Speaks.GRAPHQL)
    documents = [json.loads(following().partition(b"\r\n\r\n")[2])["query"] for _ in range(4)]
    assert len(set(documents)) == 3
    assert documents[0] == documents[3] == "query One0($id: ID!) { session(id: $id) { id } }"


def test_who_is_late_at_the_end_has_not_kept_up() -> None:
    def streamed(late: float) -> Streamed:
        return Streamed(subscribers=1, delivered=10, seconds=8.0, late_seconds=late, client_cpu_seconds=0.1)

    result = StreamResult("it", paced={20_000: [streamed(0.1), streamed(5.0), streamed(0.2)]})
    assert result.keeps(20_000)
    result.paced[20_000] += [streamed(5.0), streamed(5.0)]
    assert not result.keeps(20_000)
