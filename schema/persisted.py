"""Which document a request means: by its text, by its id, or by Apollo's automatic persisted queries.

Sources: the appendix on persisted documents of GraphQL over HTTP; the protocol of Apollo's automatic persisted queries.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import BadInput, Forbidden, PersistedQueryNotFound
from core.settings import Settings
from services.document_memory import DocumentMemory, Texts
from services.documents import SHA256, sha256_of

AUTOMATIC_CHARACTERS = 1_000_000
"""Of all documents together that clients had this process remember by their hash."""

_APOLLOS_WORDS = "PersistedQueryNotFound"
"""By which its clients know that they have to send the text."""


@dataclass(frozen=True, slots=True)
class Reference:
    """How a request names its document."""

    identifier: str
    automatic: bool = False
    """By Apollo's protocol, in which the client sends the text where we do not know it."""

    @property
    def sha256(self) -> str | None:
        """The hash that the document must have; None where the id says nothing of it."""
        return self.identifier.removeprefix(SHA256) if self.automatic or self.identifier.startswith(SHA256) else None


class PersistedDocuments:
    """The documents that can be asked for by an id."""

    def __init__(self, settings: Settings) -> None:
        self.only_registered = settings.documents == "registered"
        self.registered = DocumentMemory()
        self.automatic: Texts[str] = Texts(AUTOMATIC_CHARACTERS)

    async def find(self, text: str, reference: Reference | None) -> tuple[str, bool]:
        """The document's text, and whether it is a registered one. `text` is empty where only an id was sent.

        Raises PersistedQueryNotFound, BadInput where text and id do not fit, Forbidden where the document would have
        to be registered.
        """
        if text and reference is not None and reference.sha256 != sha256_of(text):
            raise BadInput(
                "The hash is not that of `query`: provided sha does not match query."
                if reference.sha256 is not None
                else "Send `query` or `documentId`: with both, the id is sha256: and the hash of the query.",
                field="extensions.persistedQuery.sha256Hash" if reference.automatic else "documentId",
            )
        if text and not self.only_registered:
            return text, False
        found = await self.registered.find(reference.identifier if reference else SHA256 + sha256_of(text))
        if found is not None:
            return found, True
        if text:
            raise Forbidden(
                "Only registered documents are executed here, and this is none. An operator registers those of a "
                "client: quarterdeck documents register --client NAME --release VERSION FILE."
            )
        assert reference is not None
        remembered = self.automatic.get(reference.sha256) if reference.sha256 and not self.only_registered else None
        if remembered is None:
            raise PersistedQueryNotFound(_APOLLOS_WORDS if reference.automatic else _unknown(reference.identifier))
        return remembered, False

    def remember(self, text: str, reference: Reference) -> None:
        """A valid document that was sent with its hash: the next time the hash is enough."""
        if reference.sha256 is not None and not self.only_registered:
            self.automatic.put(reference.sha256, text)


def _unknown(identifier: str) -> str:
    return (
        f"There is no registered document {identifier}. An operator registers it with a release of its client, "
        "or has retired that."
    )
