"""The commands `template …`: templates in files, from a repository to a server.

They talk to the graph over HTTP with an access token, as any client does, since they run on machines of CI that have
nothing else of the product.

Exit codes: 0 done; 1 refused, or a test failed; 2 used wrongly; 3 the server could not be reached.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import click
import httpx2

REFUSED, UNREACHABLE = 1, 3
DEFAULT_URL = "http://127.0.0.1:8000"

_SUFFIXES = (".yaml", ".yml")
_TIMEOUT = httpx2.Timeout(60.0, connect=10.0)
_POLL_SECONDS = 0.5
_WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts, while a test is followed, to reach a server that has been there before."""
_OVER = {"PASSED", "FAILED", "CANCELLED"}
_MARKS = {"PASSED": "ok", "FAILED": "FAILED", "SKIPPED": "skipped", "RUNNING": "running"}
F = TypeVar("F", bound=Callable[..., Any])

_APPLY = """
mutation ($input: ApplySessionTemplateInput!) { applySessionTemplate(input: $input) {
  dryRun results { name action digest changed template { id latestVersion draft { revision digest } } }
} }
"""
_FIND = """
query ($name: String!) { sessionTemplate(name: $name) { id name latestVersion draft { digest revision } } }
"""
_EXPORT = """
query ($id: ID!, $version: Int) { exportSessionTemplate(templateId: $id, version: $version) {
  name text digest findings { path message }
} }
"""
_LIST = """
query ($after: String) { sessionTemplates(first: 100, after: $after, orderBy: CREATED_OLDEST_FIRST) {
  nodes { id name title category latestVersion deprecatedAt draft { digest revision } publishedVersion { digest } }
  pageInfo { hasNextPage endCursor }
} }
"""
_TEST = """
mutation ($input: TestSessionTemplateInput!) { testSessionTemplate(input: $input) { test { id digest } } }
"""
_REPORT = """
query ($id: ID!) { templateTest(id: $id) { id status digest checks { key title status message } } }
"""
_PUBLISH = """
mutation ($input: PublishSessionTemplateInput!) { publishSessionTemplate(input: $input) {
  version { id number digest }
} }
"""


class Server:
    """The graph of a server, for one token."""

    def __init__(self, url: str, token: str | None) -> None:
        base = url.rstrip("/")
        self.url = base if base.endswith("/graphql") else f"{base}/graphql"
        self._headers = {"Accept": "application/graphql-response+json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def __call__(self, document: str, **variables: Any) -> dict[str, Any]:
        """The data of an operation; raises Refused, and Unreachable where the server gives no answer."""
        try:
            response = httpx2.post(
                self.url, json={"query": document, "variables": variables}, headers=self._headers, timeout=_TIMEOUT
            )
            body = response.json()
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise Unreachable(f"{self.url} cannot be reached: {error or type(error).__name__}.") from None
        except ValueError:
            body = None
        if not isinstance(body, dict) or not (body.get("errors") or isinstance(body.get("data"), dict)):
            raise Unreachable(f"{self.url} answers with {response.status_code} and no GraphQL. Is it the right one?")
        if body.get("errors"):
            raise Refused(body["errors"][0])
        return body["data"]  # type: ignore[no-any-return]

    def template(self, name: str) -> dict[str, Any]:
        """The template of a name. Raises Failed where there is none."""
        found = self(_FIND, name=name)["sessionTemplate"]
        if found is None:
            raise Failed(f"There is no template {name!r} that you may see.", code="NOT_FOUND")
        return found  # type: ignore[no-any-return]


class Failed(click.ClickException):
    """What a person is told, and `--output json` gives."""

    exit_code = REFUSED

    def __init__(self, message: str, *, code: str, fields: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.code, self.fields = code, fields or []

    def show(self, file: Any = None) -> None:
        click.echo(f"quarterdeck: {self.message}", err=True)

    def told(self) -> dict[str, Any]:
        """The error as JSON."""
        found: dict[str, Any] = {"code": self.code, "message": self.message}
        return found | ({"fields": self.fields} if self.fields else {})


class Refused(Failed):
    """The server says no."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        extensions = error.get("extensions") or {}
        code = str(extensions.get("code", "INTERNAL"))
        message = str(error.get("message"))
        if code == "UNAUTHENTICATED":
            message += " The commands take the token from QUARTERDECK_TOKEN."
        if error_id := extensions.get("errorId"):
            message += f" ({error_id})"
        super().__init__(message, code=code, fields=extensions.get("fields"))


class Unreachable(Failed):
    """There is no answer."""

    exit_code = UNREACHABLE

    def __init__(self, message: str) -> None:
        super().__init__(message, code="UNREACHABLE")


def _connected(command: F) -> F:
    """The options of all commands that ask a server."""
    for option in (
        click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True),
        click.option(
            "--token",
            envvar="QUARTERDECK_TOKEN",
            help="An access token; rather set QUARTERDECK_TOKEN, which no list of processes shows.",
        ),
        click.option(
            "--url", envvar="QUARTERDECK_URL", default=DEFAULT_URL, show_default=True, help="Or set QUARTERDECK_URL."
        ),
    ):
        command = option(command)
    return command


@click.group()
def template() -> None:
    """Session templates in files, and on a server: docs/template-files.md.

    Set QUARTERDECK_URL and QUARTERDECK_TOKEN. Exit codes: 0 done, 1 refused or failed, 2 used wrongly, 3 the server
    could not be reached.
    """


@template.command()
@click.option(
    "-f",
    "--file",
    "paths",
    multiple=True,
    required=True,
    type=click.Path(exists=True, allow_dash=True, path_type=Path),
    help="A file, a folder with .yaml and .yml files, or - for the standard input. May be given several times.",
)
@click.option("--dry-run", is_flag=True, help="Change nothing, and say what would become of it.")
@_connected
def apply(paths: tuple[Path, ...], dry_run: bool, url: str, token: str | None, output: str) -> None:
    """Make templates and their drafts as files say. Each file is done as a whole or not at all; what is so already is
    left alone."""
    server, results, failed = Server(url, token), list[dict[str, Any]](), False
    for name, content in _files(paths):
        with _told(output):
            try:
                found = server(_APPLY, input={"content": content, "dryRun": dry_run})["applySessionTemplate"]["results"]
            except Refused as error:
                failed = True
                results.append({"file": name, "error": error.told()})
                if output == "text":
                    _tell(name, error)
                continue
        for each in found:
            results.append({"file": name, **each})
            if output == "text":
                changed = f"  {', '.join(each['changed'])}" if each["action"] == "UPDATED" else ""
                click.echo(f"{each['name']}: {each['action'].lower()}{' (dry run)' if dry_run else ''}{changed}")
    if output == "json":
        _print_json({"dryRun": dry_run, "results": results})
    if failed:
        raise SystemExit(REFUSED)


@template.command()
@click.argument("name")
@click.option("--version", type=int, help="The number of a version; the draft where left out.")
@_connected
def export(name: str, version: int | None, url: str, token: str | None, output: str) -> None:
    """Print a template as a file. Warnings about what looks like a credential go to the standard error."""
    with _told(output):
        server = Server(url, token)
        found = server(_EXPORT, id=server.template(name)["id"], version=version)["exportSessionTemplate"]
    if output == "json":
        _print_json(found)
        return
    for finding in found["findings"]:
        click.echo(f"warning: {finding['path']}: {finding['message']}", err=True)
    click.echo(found["text"], nl=False)


@template.command("list")
@_connected
def list_(url: str, token: str | None, output: str) -> None:
    """List the templates that you may see."""
    with _told(output):
        found = list(_all(Server(url, token)))
    if output == "json":
        _print_json(found)
        return
    width = max((len(each["name"]) for each in found), default=0)
    for each in found:
        published = each["publishedVersion"]
        state = "no version" if published is None else f"version {each['latestVersion']}"
        if published is not None and published["digest"] != each["draft"]["digest"]:
            state += ", draft differs"
        if each["deprecatedAt"]:
            state += ", deprecated"
        click.echo(f"{each['name']:<{width}}  {each['category']:<20}  {state:<28}  {each['title']}")


@template.command()
@click.argument("name")
@click.option("--timeout", type=click.IntRange(1), default=3600, show_default=True, help="Seconds to wait.")
@_connected
def test(name: str, timeout: int, url: str, token: str | None, output: str) -> None:
    """Test a template's draft, wait for the end, and print what was looked at. Exits with 1 where it did not pass."""
    told = set[tuple[str, str]]()
    with _told(output):
        server = Server(url, token)
        asked = {"templateId": server.template(name)["id"], "idempotencyKey": uuid4().hex}
        id_ = _patiently(server, _TEST, input=asked)["testSessionTemplate"]["test"]["id"]
        deadline = time.monotonic() + timeout
        while True:
            found = _patiently(server, _REPORT, id=id_)["templateTest"]
            if found is None:
                raise Failed(f"The test {id_} is gone, or you may not see the template any more.", code="NOT_FOUND")
            if output == "text":
                _tell_checks(found["checks"], told)
            if found["status"] in _OVER:
                break
            if time.monotonic() > deadline:
                raise Failed(f"The test {id_} is not over after {timeout} seconds.", code="TIMEOUT")
            time.sleep(_POLL_SECONDS)
    if output == "json":
        _print_json(found)
    else:
        click.echo(f"{name}: {found['status'].lower()}  {found['digest']}")
    if found["status"] != "PASSED":
        raise SystemExit(REFUSED)


@template.command()
@click.argument("name")
@click.option("-m", "--message", required=True, help="What is different.")
@click.option("--digest", help="Which draft you mean; the one that is there now where left out.")
@_connected
def publish(name: str, message: str, digest: str | None, url: str, token: str | None, output: str) -> None:
    """Publish a template's draft, of which a test has passed, as its next version."""
    with _told(output):
        server = Server(url, token)
        found = server.template(name)
        wanted = digest or found["draft"]["digest"]
        version = server(_PUBLISH, input={"templateId": found["id"], "digest": wanted, "message": message})
        made = version["publishSessionTemplate"]["version"]
    if output == "json":
        _print_json(made)
    else:
        click.echo(f"{name}: published version {made['number']}  {made['digest']}")


@template.command()
def schema() -> None:
    """Print the JSON Schema of templates in files; no server is asked."""
    from services.templates.files import json_schema_text

    click.echo(json_schema_text(), nl=False)


def _files(paths: tuple[Path, ...]) -> Iterator[tuple[str, str]]:
    for path in paths:
        if path.is_dir():
            found = sorted(each for each in path.rglob("*") if each.suffix in _SUFFIXES and each.is_file())
            if not found:
                raise click.UsageError(f"{path} has no .yaml or .yml file.")
            for each in found:
                yield _named(each)
        else:
            yield ("<stdin>", _decoded("<stdin>", sys.stdin.buffer.read())) if str(path) == "-" else _named(path)


def _named(path: Path) -> tuple[str, str]:
    try:
        return str(path), _decoded(str(path), path.read_bytes())
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}.") from None


def _decoded(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise click.UsageError(f"{name} is not text in UTF-8.") from None


def _tell(name: str, error: Failed) -> None:
    """Problems of a file, one a line, as compilers say them."""
    located = [field for field in error.fields if "line" in field]
    if not located:
        click.echo(f"{name}: {error.message}", err=True)
    for field in located:
        place = ".".join(field["field"].split(".")[2:])
        said = f"{place}: {field['message']}" if place else field["message"]
        click.echo(f"{name}:{field['line']}:{field['column']}: {said}", err=True)


def _patiently(server: Server, document: str, **variables: Any) -> dict[str, Any]:
    """An operation that may be repeated, on a server that may be replaced meanwhile."""
    for wait in _WAITS:
        try:
            return server(document, **variables)
        except Unreachable:
            time.sleep(wait)
    return server(document, **variables)


def _tell_checks(checks: list[dict[str, Any]], told: set[tuple[str, str]]) -> None:
    for check in checks:
        if check["status"] != "RUNNING" and (check["key"], check["status"]) not in told:
            told.add((check["key"], check["status"]))
            message = f"  {check['message']}" if check["message"] else ""
            click.echo(f"  {_MARKS.get(check['status'], check['status']):<8} {check['title']}{message}")


def _all(server: Server) -> Iterator[dict[str, Any]]:
    after = None
    while True:
        page = server(_LIST, after=after)["sessionTemplates"]
        yield from page["nodes"]
        if not page["pageInfo"]["hasNextPage"]:
            return
        after = page["pageInfo"]["endCursor"]


@contextmanager
def _told(output: str) -> Iterator[None]:
    """With `--output json` an error is JSON on the standard output, too."""
    try:
        yield
    except Failed as error:
        if output == "json":
            _print_json({"error": error.told()})
        raise


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
