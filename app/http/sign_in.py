"""Signing in and out with a browser: one small page without scripts of anybody else."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template
from urllib.parse import parse_qs, quote, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from app.http.credentials import (
    Credential,
    actor_of_request,
    check_same_site,
    cookie_name,
    is_secure,
    origin_of_request,
)
from core import clock
from core.errors import ErrorCode, QuarterdeckError, TooLarge
from core.permissions import Actor, Origin
from services.identity.sign_in import SignedIn, sign_in_with_link, sign_in_with_password, sign_out

_PAGES = Path(__file__).with_name("pages")
_ASSETS = Path(__file__).parents[1] / "static" / "sign_in"
_AFTERWARDS = "/graphql"
_LARGEST_FORM = 8 * 1024
_STATUS = {ErrorCode.RATE_LIMITED: 429, ErrorCode.NOT_FOUND: 404, ErrorCode.TOO_LARGE: 413}

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    # Not no-referrer: it would make browsers send `Origin: null` with the form.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


async def show_form(request: Request) -> Response:
    """GET /sign-in"""
    following = _local_path(request.query_params.get("next"))
    actor, kind = await _actor(request)
    if actor is not None and kind == "cookie":
        return RedirectResponse(following, 303, _HEADERS)
    return _form(following)


async def take_form(request: Request) -> Response:
    """POST /sign-in"""
    following, email = _AFTERWARDS, ""
    try:
        check_same_site(request.headers)
        fields = await _fields(request)
        following, email = _local_path(fields.get("next")), fields.get("email", "")
        signed_in = await sign_in_with_password(email, fields.get("password", ""), _origin(request))
    except QuarterdeckError as error:
        return _form(following, email, error)
    return _welcome(signed_in, following)


async def show_link(request: Request) -> Response:
    """GET /sign-in/link/{secret}: uses nothing up, for mail scanners and previews follow links too."""
    action = f"/sign-in/link/{quote(request.path_params['secret'], safe='')}"
    return _page("link.html", 200, action=action, next=_local_path(request.query_params.get("next")))


async def take_link(request: Request) -> Response:
    """POST /sign-in/link/{secret}"""
    following = _AFTERWARDS
    try:
        check_same_site(request.headers)
        following = _local_path((await _fields(request)).get("next"))
        signed_in = await sign_in_with_link(request.path_params["secret"], _origin(request))
    except QuarterdeckError as error:
        return _form(following, "", error)
    return _welcome(signed_in, following)


async def leave(request: Request) -> Response:
    """POST /sign-out"""
    try:
        check_same_site(request.headers)
    except QuarterdeckError as error:
        return _form(_AFTERWARDS, "", error)
    actor, kind = await _actor(request)
    if actor is not None and kind == "cookie":
        await sign_out(actor)
    response = RedirectResponse("/sign-in", 303, _HEADERS)
    response.delete_cookie(cookie_name(), path="/", secure=is_secure(), httponly=True, samesite="lax")
    return response


routes: list[BaseRoute] = [
    Route("/sign-in", show_form, methods=["GET"]),
    Route("/sign-in", take_form, methods=["POST"]),
    Route("/sign-in/link/{secret}", show_link, methods=["GET"]),
    Route("/sign-in/link/{secret}", take_link, methods=["POST"]),
    Route("/sign-out", leave, methods=["POST"]),
    Mount("/sign-in/assets", StaticFiles(directory=_ASSETS)),
]


def _welcome(signed_in: SignedIn, following: str) -> Response:
    response = RedirectResponse(following, 303, _HEADERS)
    response.set_cookie(
        cookie_name(),
        signed_in.secret,
        max_age=max(0, int((signed_in.expires_at - clock.now()).total_seconds())),
        path="/",
        secure=is_secure(),
        httponly=True,
        samesite="lax",
    )
    return response


def _form(following: str, email: str = "", error: QuarterdeckError | None = None) -> Response:
    problem = "" if error is None else f'<p class="problem" role="alert">{escape(error.message)}</p>'
    status = 200 if error is None else _STATUS.get(error.code, 403)
    response = _page("form.html", status, html_problem=problem, email=email, next=following)
    if error is not None and "retryAfterSeconds" in error.details:
        response.headers["Retry-After"] = str(error.details["retryAfterSeconds"])
    return response


def _page(name: str, status: int, *, html_problem: str = "", **values: str) -> Response:
    template = Template((_PAGES / name).read_text("utf-8"))
    text = template.substitute({key: escape(value) for key, value in values.items()}, problem=html_problem)
    return HTMLResponse(text, status, _HEADERS)


def _local_path(path: str | None) -> str:
    """A path of this site; anything else would send people who have just signed in to somebody else's site."""
    if not path or not path.startswith("/") or path.startswith("//") or "\\" in path or not path.isprintable():
        return _AFTERWARDS
    try:
        parts = urlsplit(path)
    except ValueError:
        return _AFTERWARDS
    return path if not parts.scheme and not parts.netloc else _AFTERWARDS


async def _fields(request: Request) -> dict[str, str]:
    """The form's fields, each once."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_FORM:
            raise TooLarge("This form is too large.")
    found = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[-1] for name, values in found.items()}


def _origin(request: Request) -> Origin:
    return origin_of_request(request.headers, _address(request))


async def _actor(request: Request) -> tuple[Actor | None, Credential | None]:
    return await actor_of_request(request.headers, _origin(request))


def _address(request: Request) -> str | None:
    return request.client.host if request.client else None
