"""Who a request comes from, and whether a browser sent it on its user's behalf or on another site's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

from starlette.requests import cookie_parser

from core.errors import Forbidden
from core.permissions import Actor, Origin
from services.identity.actors import actor_of_bearer, actor_of_cookie
from services.parts import parts

CSRF_HEADER = "x-quarterdeck-csrf"
"""Any value. Other sites' pages cannot send it: browsers ask us first, and we do not answer such questions."""

Credential = Literal["bearer", "cookie"]


def cookie_name() -> str:
    """`__Host-` where the public URL has TLS: then no subdomain and no plain HTTP can have set it."""
    return "__Host-quarterdeck" if is_secure() else "quarterdeck"


def is_secure() -> bool:
    """Whether browsers reach us by TLS."""
    return parts().settings.base_url.lower().startswith("https://")


def origin_of_request(headers: Mapping[str, str], client_ip: str | None) -> Origin:
    """Where a request came from, for the audit log. Names of headers are lower case."""
    user_agent, request_id = headers.get("user-agent"), headers.get("x-request-id")
    return Origin(
        ip=client_ip[:64] if client_ip else None,
        user_agent=user_agent[:400] if user_agent else None,
        request_id=request_id[:100] if request_id else None,
    )


async def actor_of_request(headers: Mapping[str, str], origin: Origin) -> tuple[Actor | None, Credential | None]:
    """Who asks, and by which kind of credential. Names of headers are lower case.

    A request that brings a token is judged by it alone: (None, "bearer") where it is not good, whatever the cookie.
    """
    authorization = headers.get("authorization")
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            return None, "bearer"
        return await actor_of_bearer(token, origin), "bearer"
    cookie = headers.get("cookie")
    secret = cookie_parser(cookie).get(cookie_name()) if cookie else None
    if secret:
        return await actor_of_cookie(secret, origin), "cookie"
    return None, None


def origin_allowed(origin: str | None, host: str | None) -> bool:
    """Whether a page of this origin may use the cookie: our own host, the public URL, or one of the settings."""
    if not origin or origin == "null":
        return False
    origin = origin.lower().rstrip("/")
    try:
        netloc = urlsplit(origin).netloc
    except ValueError:
        return False
    if host and netloc == host.lower():
        return True
    settings = parts().settings
    return origin in {_origin_of(url) for url in (settings.base_url, *settings.allowed_origins)}


def check_same_site(headers: Mapping[str, str]) -> None:
    """Raises Forbidden for what a browser sends for another site's page.

    Source: the algorithm of Go's net/http CrossOriginProtection. What has neither header comes from no browser of
    this decade, and so with nobody's cookie by accident.
    """
    if headers.get("sec-fetch-site") in ("same-origin", "none"):
        return
    origin = headers.get("origin")
    if origin is None and headers.get("sec-fetch-site") is None:
        return
    if not origin_allowed(origin, headers.get("host")):
        raise Forbidden(
            "A page of another site may not do this with your cookie. An operator can allow its origin with "
            "QUARTERDECK_ALLOWED_ORIGINS."
        )


def check_cookie_operation(headers: Mapping[str, str]) -> None:
    """Raises Forbidden for an operation of the graph that comes with a cookie but without the sign that our own,
    or an allowed, page sent it."""
    check_same_site(headers)
    if CSRF_HEADER not in headers:
        raise Forbidden("Requests with a cookie need the header X-Quarterdeck-CSRF, with any value; or send a token.")


def _origin_of(url: str) -> str:
    parts = urlsplit(url.lower())
    return f"{parts.scheme}://{parts.netloc}"
