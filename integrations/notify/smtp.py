"""E-mail by SMTP (RFC 5321), with STARTTLS or implicit TLS (RFC 8314)."""

from __future__ import annotations

import html
import ipaddress
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from enum import Enum
from urllib.parse import unquote, urlsplit

import aiosmtplib

from core import clock
from core.errors import BadInput
from integrations.notify.base import Envelope, NotDelivered, Notice, Undeliverable

TIMEOUT_SECONDS = 20.0
"""For each answer of the server."""

_SERIOUS = (
    aiosmtplib.SMTPRecipientRefused,
    aiosmtplib.SMTPSenderRefused,
    aiosmtplib.SMTPDataError,
    aiosmtplib.SMTPNotSupported,
)


class Tls(Enum):
    """How a connection is protected."""

    IMPLICIT = "from its first byte"
    REQUIRED = "by STARTTLS, or not at all used"
    OFFERED = "by STARTTLS where the server offers it"
    NONE = "not at all"


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where mail is handed in."""

    host: str
    port: int
    username: str | None
    password: str | None
    tls: Tls

    @classmethod
    def of(cls, url: str) -> SmtpServer:
        """From `smtp://user:password@host:587`, or `smtps://…` for TLS from the first byte.

        With smtp, credentials are only sent over STARTTLS; a server on this machine needs none. Raises BadInput.
        """
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname or port == 0:
            raise BadInput("QUARTERDECK_SMTP_URL is smtp://user:password@host:587, or smtps://… for TLS at once.")
        username = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        if parts.scheme == "smtps":
            return cls(parts.hostname, port or 465, username, password, Tls.IMPLICIT)
        beyond = Tls.REQUIRED if username else Tls.OFFERED
        tls = Tls.NONE if _is_here(parts.hostname) else beyond
        return cls(parts.hostname, port or (587 if username else 25), username, password, tls)


class SmtpNotifier:
    """The channel `email`: one connection for each mail."""

    name = "email"

    def __init__(self, server: SmtpServer, sender: str) -> None:
        self._server, self._sender = server, sender_address(sender)

    async def send(self, envelope: Envelope) -> None:
        """Hand a mail in at the server."""
        message = self._message(envelope)
        server = self._server
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            username=server.username,
            password=server.password,
            timeout=TIMEOUT_SECONDS,
            use_tls=server.tls is Tls.IMPLICIT,
            start_tls={Tls.REQUIRED: True, Tls.OFFERED: None}.get(server.tls, False),
            # The name of this machine is nobody's business; mails get theirs from the sender's domain.
            local_hostname=self._sender.domain,
        )
        try:
            await client.connect()
            await client.send_message(message)
        except (aiosmtplib.SMTPException, OSError) as error:
            raise _failure(error) from None
        finally:
            # It is taken over, or not: what the server says at the end changes nothing.
            with suppress(Exception):
                await client.quit()
            client.close()

    def _message(self, envelope: Envelope) -> EmailMessage:
        """Plain text and HTML. EmailMessage refuses line breaks in headers, and escapes what else is odd."""
        message = EmailMessage()
        try:
            message["From"] = self._sender
            message["To"] = Address(_line(envelope.recipient.name), addr_spec=envelope.recipient.address)
            message["Subject"] = _subject(envelope)
            message["Date"] = format_datetime(clock.now())
            message["Message-ID"] = f"<{envelope.id}@{self._sender.domain}>"
            message["Auto-Submitted"] = "auto-generated"
            message["List-Unsubscribe"] = f"<{envelope.preferences_link}>"
        except (ValueError, IndexError, MessageError) as error:
            raise Undeliverable(f"The mail cannot be written: {error}") from None
        message.set_content(_text(envelope))
        message.add_alternative(_html(envelope), subtype="html")
        return message


def sender_address(text: str) -> Address:
    """`Name <name@example.com>`, checked; raises BadInput."""
    name, address = parseaddr(text)
    try:
        found = Address(_line(name), addr_spec=address)
    except (ValueError, IndexError, MessageError):
        found = Address()
    if not found.username or not found.domain or not address.isascii() or not text.isprintable():
        raise BadInput("QUARTERDECK_SMTP_FROM is an address like Quarterdeck <quarterdeck@example.com>.")
    return found


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _failure(error: Exception) -> NotDelivered:
    """A refusal of the recipient, the sender or the message for good (5xx) is final. All else may be mended meanwhile,
    a wrong password too."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        error = error.recipients[0]
    said = _line(f"{getattr(error, 'code', '')} {getattr(error, 'message', '') or error}")[:500]
    if isinstance(error, _SERIOUS) and getattr(error, "code", 500) >= 500:
        return Undeliverable(said)
    return NotDelivered(said or type(error).__name__)


def _subject(envelope: Envelope) -> str:
    if len(envelope.notices) == 1 and not envelope.left_out:
        return _line(envelope.notices[0].title)[:300]
    return f"{len(envelope.notices) + envelope.left_out} things in Quarterdeck"


def _text(envelope: Envelope) -> str:
    blocks = [
        "\n".join([notice.title, *([_indented(notice.body)] if notice.body else []), notice.link])
        for notice in envelope.notices
    ]
    return "\n\n".join([*blocks, *_more(envelope), f"-- \nWhat you are told by mail: {envelope.preferences_link}\n"])


def _html(envelope: Envelope) -> str:
    more = "".join(f"<p>{html.escape(line)}</p>" for line in _more(envelope))
    return (
        "<!doctype html><html><body style='font-family: sans-serif'>"
        f"{''.join(_paragraphs(envelope.notices))}{more}"
        f"<p style='color: #666'><a href='{html.escape(envelope.preferences_link)}'>What you are told by mail</a></p>"
        "</body></html>"
    )


def _paragraphs(notices: Sequence[Notice]) -> list[str]:
    return [
        f"<p><a href='{html.escape(notice.link)}'><b>{html.escape(notice.title)}</b></a></p>"
        + (f"<p style='white-space: pre-wrap'>{html.escape(notice.body)}</p>" if notice.body else "")
        for notice in notices
    ]


def _more(envelope: Envelope) -> list[str]:
    return [f"And {envelope.left_out} more in your inbox."] if envelope.left_out else []


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _line(text: str) -> str:
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
