"""A real SMTP server that does as a test says: takes mail, refuses it for now or for good, wants a password, hangs."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AbstractContextManager
from email import message_from_bytes, policy
from email.message import EmailMessage
from types import TracebackType
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = "quarterdeck", "a password: with @ and /"


class MailServer(AbstractContextManager["MailServer"]):
    """Listens on a port of this machine, in a thread of its own. `mails` are those that it took, in order."""

    def __init__(
        self, port: int = 0, *, auth: bool = False, tls: ssl.SSLContext | None = None, implicit: bool = False
    ) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.attempts = 0
        """How many mails were handed in, taken or not."""
        self.answers: list[str] = []
        """What to say to the next mails instead of taking them."""
        self.refused_recipients: dict[str, str] = {}
        self.hang = False
        """Whether to say nothing once a mail is there."""
        self._controller = _Controller(self, port, auth=auth, tls=tls, implicit=implicit)
        self._running = False

    @property
    def port(self) -> int:
        assert self._controller.server is not None
        return int(self._controller.server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if answer := self.refused_recipients.get(address):
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.attempts += 1
        if self.hang:
            await asyncio.sleep(3600)
        if self.answers:
            return self.answers.pop(0)
        assert isinstance(envelope.content, bytes)
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[arg-type]
        self.recipients += envelope.rcpt_tos
        return "250 Taken"

    def __enter__(self) -> Self:
        self._controller.start()
        self._running = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Listen no more; again has no effect."""
        if self._running:
            self._running = False
            self._controller.stop(no_assert=True)


class _Controller(Controller):
    def __init__(
        self, handler: MailServer, port: int, *, auth: bool, tls: ssl.SSLContext | None, implicit: bool
    ) -> None:
        settings: dict[str, Any] = {"enable_SMTPUTF8": True}
        if auth:
            settings |= {
                "auth_required": True,
                "authenticator": _authenticate,
                "auth_require_tls": tls is not None and not implicit,
            }
        if tls is not None and not implicit:
            settings |= {"tls_context": tls, "require_starttls": True}
        super().__init__(handler, hostname="127.0.0.1", port=port, ssl_context=tls if implicit else None, **settings)

    def _trigger_server(self) -> None:
        """The library looks whether the server answers, and would look for it at port 0."""
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


def _authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: Any) -> AuthResult:
    assert isinstance(given, LoginPassword)
    return AuthResult(success=given == LoginPassword(USER.encode(), PASSWORD.encode()), handled=False)
