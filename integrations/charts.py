"""Vega-Lite specifications drawn without a browser, by the libraries that a browser would draw them with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from core.errors import TooLarge, Unavailable

VERSION = "6.4"
"""Of Vega-Lite, among those that vl-convert brings along."""
AT_ONCE = 2
"""Each takes a core and some 50 MB while it draws."""
LARGEST_BYTES = 5_000_000

_drawing = asyncio.Semaphore(AT_ONCE)


async def pdf(spec: Mapping[str, Any]) -> bytes:
    """A chart as a page of PDF of its own size. Raises TooLarge, and Unavailable where it cannot be drawn."""
    text = orjson.dumps(spec)
    if len(text) > LARGEST_BYTES:
        raise TooLarge(f"A chart has {len(text):,} bytes of data; at most {LARGEST_BYTES:,} are drawn. Take fewer.")
    async with _drawing:
        try:
            return await asyncio.to_thread(_pdf, text.decode())
        except ValueError as error:
            raise Unavailable(f"The chart cannot be drawn: {str(error).partition(chr(10))[0][:200]}") from None


# Loaded when the first chart is drawn: it takes a second. Nothing is fetched: no address is allowed.
def _pdf(text: str) -> bytes:
    import vl_convert

    return vl_convert.vegalite_to_pdf(text, vl_version=VERSION, allowed_base_urls=[])
