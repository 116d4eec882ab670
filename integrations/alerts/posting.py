"""One POST to a URL that a user gave: guarded, bounded, and told without secrets where it fails."""

from __future__ import annotations

from collections.abc import Mapping

import httpx2

from integrations.alerts.base import NotTaken
from integrations.http_guard import guarded_client

SECONDS = 15.0
LARGEST_ANSWER = 64 * 1024
_SHOWN = 200


async def post(url: str, body: bytes, headers: Mapping[str, str], *, allow_private: bool) -> int:
    """The status of an answer of success (2xx). Raises NotTaken for all else; redirects are not followed."""
    given = {
        "Content-Type": "application/json",
        "User-Agent": "Quarterdeck",
        # What comes is told to people, and must not become more than what is read.
        "Accept-Encoding": "identity",
        **headers,
    }
    try:
        async with (
            guarded_client(
                headers=given, timeout_seconds=SECONDS, allow_private=allow_private, max_bytes=LARGEST_ANSWER
            ) as client,
            client.stream("POST", url, content=body) as answer,
        ):
            if answer.is_success:
                return answer.status_code
            said = await _beginning(answer)
    except httpx2.TimeoutException:
        raise NotTaken(f"No answer within {SECONDS:g} seconds.") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise NotTaken(f"It could not be reached: {str(error)[:300] or type(error).__name__}") from None
    raise NotTaken(
        f"It answered {answer.status_code}: {said!r}", status=answer.status_code, gone=answer.status_code == 410
    )


async def _beginning(answer: httpx2.Response) -> str:
    """The first characters of an answer, as they came."""
    read = b""
    async for chunk in answer.aiter_raw():
        read += chunk
        if len(read) >= _SHOWN:
            break
    return read[:_SHOWN].decode(errors="replace")
