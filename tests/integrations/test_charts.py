"""Specifications become drawings, and reach for nothing else."""

from __future__ import annotations

import asyncio
import io

import pytest
from pypdf import PdfReader

from core.errors import TooLarge, Unavailable
from integrations import charts

pytestmark = pytest.mark.anyio

LINE = {
    "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
    "data": {"values": [{"a": 1, "b": 2}, {"a": 2, "b": 3}]},
    "mark": "line",
    "encoding": {
        "x": {"field": "a", "type": "quantitative", "title": "Tool <calls> & more"},
        "y": {"field": "b", "type": "quantitative"},
    },
}


def text_in(pdf: bytes) -> str:
    return PdfReader(io.BytesIO(pdf)).pages[0].extract_text()


async def test_a_specification_is_drawn_as_pdf_with_its_text_several_at_a_time() -> None:
    for drawn in await asyncio.gather(*(charts.pdf(LINE) for _ in range(4))):
        assert "Tool <calls> & more" in text_in(drawn)


async def test_nothing_is_fetched_and_what_cannot_be_drawn_is_said() -> None:
    for data in ({"url": "http://127.0.0.1:1/data.json"}, {"url": "file:///etc/passwd"}, {"url": "/etc/passwd"}):
        try:
            assert "root" not in text_in(await charts.pdf(LINE | {"data": data}))
        except Unavailable:
            pass
    with pytest.raises(Unavailable):
        await charts.pdf({"mark": "nonsense"})
    with pytest.raises(TooLarge):
        await charts.pdf(LINE | {"description": "x" * 6_000_000})
