"""GraphiQL, for a person with a browser."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import HTMLResponse, Response

STATIC = Path(__file__).parent.parent / "static"

# Everything comes from our own host; the editor styles itself and runs its workers.
POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)


def graphiql() -> Response:
    """The page; its parts are below /static/graphiql."""
    page = STATIC / "graphiql" / "index.html"
    return HTMLResponse(
        page.read_bytes(),
        headers={
            "content-security-policy": POLICY,
            "referrer-policy": "same-origin",
            "cache-control": "no-cache",
            "vary": "accept",
        },
    )
