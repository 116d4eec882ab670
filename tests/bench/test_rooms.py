"""The bench of people in one session runs from end to end, and its numbers can be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_people_together_are_measured_beside_a_plain_stream(tmp_path: Path) -> None:
    written = tmp_path / "numbers.json"
    command = [
        *(sys.executable, "-m", "bench", "--scale", "small", "--seconds", "0.3"),
        *("--only", "rooms", "--people", "4", "--json", str(written)),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(written.read_text())["rooms"]
    assert set(found) == {"sessionEvents", "workspace"}
    for result in found.values():
        assert result["people"] == 4
        assert 0 < result["p50"] <= result["p99"]
    assert found["sessionEvents"]["presencePerSecond"] == 0
    assert 0 < found["workspace"]["presencePerSecond"] <= 4.5
    assert "people in one session" in done.stdout
