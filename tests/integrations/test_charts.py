"""Specifications become drawings, and reach for nothing else."""

from __future__ import annotations

import asyncio

import pytest

from core.errors import TooLarge, Unavailable
from integrations import charts

pytestmark = pytest.mark.anyio

LINE = {
    "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
    "data": {"values": [{"a": 1, "b": 2}, {"a": 2, "b": 3}]},
    "mark": "line",
    "encoding": {
        "x": {"field": "a", "type": "quantitative", "title": "Tool <calls> & more"},
        "y": {"field": "b", "type": "quantitative"},
    },
}


async def test_a_specification_is_drawn_as_svg_and_as_pdf_several_at_a_time() -> None:
    drawn = await asyncio.gather(*(charts.svg(LINE) for _ in range(4)))
    assert len(set(drawn)) == 1
    assert drawn[0].startswith("<svg")
    assert "Tool &lt;calls&gt; &amp; more" in drawn[0]
    assert (await charts.pdf(LINE)).startswith(b"%PDF")


async def test_nothing_is_fetched_and_what_cannot_be_drawn_is_said() -> None:
    for data in ({"url": "http://127.0.0.1:1/data.json"}, {"url": "file:///etc/passwd"}, {"url": "/etc/passwd"}):
        try:
            assert "root:" not in await charts.svg(LINE | {"data": data})
        except Unavailable:
            pass
    with pytest.raises(Unavailable):
        await charts.svg({"mark": "nonsense"})
    with pytest.raises(TooLarge):
        await charts.svg(LINE | {"description": "x" * 6_000_000})
