"""Fetching what sessions begin with from elsewhere: repositories and archives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was in an archive."""

    files: int
    bytes: int


class SeedFetcher(Protocol):
    """Fetches into an empty folder. URLs are those of users: they lead to no private network, and to https only.

    Both raise BadInput and Unavailable with words that users can act on, and leave what they have fetched so far: the
    caller takes the folder away.
    """

    async def repository(self, url: str, revision: str, into: Path) -> str:
        """Fetch a branch, tag or commit of a git repository, without its history; gives the commit's id."""
        ...

    async def archive(self, url: str, sha256: str, into: Path) -> Unpacked:
        """Fetch and unpack a tar or zip archive that has this digest."""
        ...
