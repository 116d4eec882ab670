"""Fetching by git, confined as tools are, and by HTTP through the guard."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx2

from core import net, processes
from core.errors import BadInput, Unavailable
from core.settings import Settings
from integrations.http_guard import guarded_client
from integrations.sandbox.base import Sandbox
from integrations.seeds.archives import unpack
from integrations.seeds.base import Unpacked

LARGEST = 1024 * 1024 * 1024
"""Bytes of a repository with its working files, or of an archive's content."""
LARGEST_DOWNLOAD = 512 * 1024 * 1024
LONGEST_SECONDS = 300.0
_MOST_REDIRECTS = 5
_LOOK_SECONDS = 0.5
_SAID_BYTES = 16 * 1024


class Fetcher:
    """The fetcher of this program."""

    def __init__(self, settings: Settings, sandbox: Sandbox) -> None:
        self._settings = settings
        self._sandbox = sandbox

    async def repository(self, url: str, revision: str, into: Path) -> str:
        host, port = self._checked(url)
        addresses = await net.resolve(host, port, allow_private=self._settings.allow_private_networks)
        # git connects to the addresses that were checked, and to no others: names can be rebound.
        pinned = ",".join(f"[{each}]" if each.version == 6 else str(each) for each in addresses)
        git = ["git", *_GIT, "-c", f"http.curloptResolve={host}:{port}:{pinned}"]
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                await self._run([*git, "init", "-q", "."], into)
                await self._run([*git, "remote", "add", "origin", url], into)
                await self._run([*git, "fetch", "-q", "--depth", "1", "--no-tags", "origin", revision], into)
                await self._run([*git, "checkout", "-q", "--detach", "FETCH_HEAD"], into)
                return (await self._run([*git, "rev-parse", "HEAD"], into)).strip()
        except TimeoutError:
            raise Unavailable(f"The repository was not fetched within {LONGEST_SECONDS:g} s.") from None

    async def archive(self, url: str, sha256: str, into: Path) -> Unpacked:
        self._checked(url)
        descriptor, name = tempfile.mkstemp(prefix=".archive-", dir=into.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                try:
                    async with asyncio.timeout(LONGEST_SECONDS):
                        found = await self._download(url, file.write)
                except TimeoutError:
                    raise Unavailable(f"The archive was not fetched within {LONGEST_SECONDS:g} s.") from None
            if found != sha256:
                raise BadInput(f"The archive has the SHA-256 {found}, not {sha256}: it is not what it should be.")
            return await asyncio.to_thread(unpack, Path(name), into, LARGEST)
        finally:
            os.unlink(name)

    def _checked(self, url: str) -> tuple[str, int]:
        host, port = net.check_url(url)
        if urlsplit(url).scheme != "https" and not self._settings.allow_private_networks:
            raise BadInput("Repositories and archives are fetched by https:// only.")
        return host, port

    async def _download(self, url: str, write: Callable[[bytes], object]) -> str:
        """Fetch to the end of the redirects; gives the SHA-256."""
        digest = hashlib.sha256()
        async with guarded_client(
            headers={"accept": "*/*", "accept-encoding": "identity", "user-agent": "quarterdeck"},
            timeout_seconds=60,
            allow_private=self._settings.allow_private_networks,
            max_bytes=LARGEST_DOWNLOAD,
        ) as client:
            try:
                for _ in range(_MOST_REDIRECTS + 1):
                    async with client.stream("GET", url) as response:
                        if response.is_redirect:
                            url = urljoin(url, response.headers.get("location", ""))
                            self._checked(url)
                            continue
                        if response.status_code != 200:
                            raise Unavailable(
                                f"The archive was not fetched: {_plain(url)} said {response.status_code}."
                            )
                        size = 0
                        async for chunk in response.aiter_bytes():
                            # Compressed nevertheless, it may become more than what came over the wire.
                            size += len(chunk)
                            if size > LARGEST_DOWNLOAD:
                                raise BadInput(f"The archive has more than {LARGEST_DOWNLOAD} bytes.")
                            digest.update(chunk)
                            write(chunk)
                        return digest.hexdigest()
            except httpx2.HTTPError as error:
                raise Unavailable(f"The archive was not fetched: {error or type(error).__name__}") from None
        raise Unavailable(f"The archive was not fetched: more than {_MOST_REDIRECTS} redirects.")

    async def _run(self, command: Sequence[str], directory: Path) -> str:
        """What a command says, confined; ended where it makes the folder too large. Raises Unavailable, BadInput."""
        wrapped = self._sandbox.wrap(command, workspace=directory, environment=_ENVIRONMENT, network=True)
        try:
            process = await processes.spawn(
                wrapped.argv, environment=wrapped.environment, directory=wrapped.directory, merge_stderr=True
            )
        except OSError as error:
            raise Unavailable(f"git cannot be started: {error.strerror}.") from None
        assert process.stdout is not None
        said = bytearray()
        reading = asyncio.create_task(_collect(process.stdout, said))
        try:
            while not reading.done():
                await asyncio.wait([reading], timeout=_LOOK_SECONDS)
                if not reading.done() and await asyncio.to_thread(_size, directory) > LARGEST:
                    raise BadInput(f"The repository has more than {LARGEST} bytes.")
            await processes.exited(process)
        finally:
            await processes.end(process)
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
        text = said.decode(errors="replace")
        if process.returncode != 0:
            reason = " ".join(re.sub(r"^(fatal|error|remote): ?", "", line) for line in text.strip().splitlines()[-3:])
            raise Unavailable(
                f"The repository was not fetched: {reason[:500] or f'git ended with {process.returncode}'}"
            )
        return text


_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "https:http",
}
_GIT = [
    *("-c", "http.followRedirects=false"),
    *("-c", "http.proxy="),
    *("-c", "http.lowSpeedLimit=100"),
    *("-c", "http.lowSpeedTime=30"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "submodule.recurse=false"),
    *("-c", "init.defaultBranch=main"),
    *("-c", "advice.detachedHead=false"),
    *("-c", "gc.auto=0"),
]


async def _collect(stream: asyncio.StreamReader, said: bytearray) -> None:
    while chunk := await stream.read(65536):
        said += chunk[: max(_SAID_BYTES - len(said), 0)]


def _size(directory: Path) -> int:
    total = 0
    for folder, _, files in os.walk(directory):
        for name in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _plain(url: str) -> str:
    """The URL without its query, which may be a signature."""
    return url.partition("?")[0][:200]
