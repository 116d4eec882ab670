"""Mail through real SMTP servers: those that take it, those that do not, and those that are not there."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from core import clock
from core.errors import BadInput
from integrations.notify.base import Envelope, NotDelivered, Notice, Recipient, Undeliverable
from integrations.notify.smtp import SmtpNotifier, SmtpServer, Tls
from tests.fakes.mail_server import PASSWORD, USER, MailServer
from tests.private_servers import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")]

SENDER = "Quarterdeck <quarterdeck@tests.example>"
LINK = "https://quarterdeck.example/graphql#ses_1"


def envelope(
    *titles: str, to: str = "someone@tests.example", name: str = "Someone", body: str = "", left_out: int = 0
) -> Envelope:
    notices = [Notice(uuid4(), "MENTION", title, body, clock.now(), LINK) for title in titles or ("You are wanted",)]
    preferences = "https://quarterdeck.example/graphql#notification-preferences"
    return Envelope(UUID(int=5), Recipient(uuid4(), name, to), notices, left_out, preferences)


def notifier(url: str) -> SmtpNotifier:
    return SmtpNotifier(SmtpServer.of(url), SENDER)


async def test_a_mail_says_what_happened_as_text_and_as_html() -> None:
    with MailServer() as server:
        await notifier(server.url).send(envelope("Réviewed & <b>done</b>", body="One <script>\ntwo"))
        await notifier(server.url).send(envelope("First", "Second", left_out=3, name='Ünïcode, "quoted"'))
    single, several = server.mails
    assert single["Subject"] == "Réviewed & <b>done</b>"
    assert (single["From"], single["To"]) == (SENDER, "Someone <someone@tests.example>")
    assert single["Message-ID"] == f"<{UUID(int=5)}@tests.example>"
    assert single["List-Unsubscribe"].strip() == "<https://quarterdeck.example/graphql#notification-preferences>"
    assert single["Auto-Submitted"] == "auto-generated"
    text, html = (part.get_content().replace("\r\n", "\n") for part in single.iter_parts())  # type: ignore[attr-defined]
    assert "Réviewed & <b>done</b>\n  One <script>\n  two\nhttps://" in text
    assert "Réviewed &amp; &lt;b&gt;done&lt;/b&gt;" in html
    assert "<script>" not in html
    assert several["Subject"] == "5 things in Quarterdeck"
    assert several["To"].addresses[0].display_name == 'Ünïcode, "quoted"'
    assert "And 3 more" in several.get_body(("plain",)).get_content()  # type: ignore[union-attr]


async def test_no_title_or_name_adds_a_header_or_a_recipient() -> None:
    with MailServer() as server:
        await notifier(server.url).send(
            envelope("Hi\r\nBcc: other@tests.example\r\n\r\nbody", name="A\nBcc: x@tests.example")
        )
    [mail] = server.mails
    assert mail["Bcc"] is None
    assert mail["Subject"] == "Hi Bcc: other@tests.example body"
    assert server.recipients == ["someone@tests.example"]
    for address in ("a@tests.example\nBcc: b@tests.example", "no address", "", "a@b@c", "<a@tests.example>,b"):
        with pytest.raises(Undeliverable):
            await notifier("smtp://127.0.0.1:1").send(envelope(to=address))


async def test_refusals_are_told_apart() -> None:
    with MailServer() as server:
        mail = notifier(server.url)
        server.answers = ["451 4.3.0 Try again later", "554 5.7.1 This looks like spam"]
        with pytest.raises(NotDelivered, match="451") as later:
            await mail.send(envelope())
        assert not isinstance(later.value, Undeliverable)
        with pytest.raises(Undeliverable, match=r"554.*spam"):
            await mail.send(envelope())
        server.refused_recipients = {"gone@tests.example": "550 5.1.1 No such user", "full@tests.example": "452 Full"}
        with pytest.raises(Undeliverable, match="550"):
            await mail.send(envelope(to="gone@tests.example"))
        with pytest.raises(NotDelivered, match="452") as full:
            await mail.send(envelope(to="full@tests.example"))
        assert not isinstance(full.value, Undeliverable)
        assert server.mails == []
        await mail.send(envelope())
        assert len(server.mails) == 1


async def test_who_is_not_there_may_come_back() -> None:
    with pytest.raises(NotDelivered) as away:
        await notifier(f"smtp://127.0.0.1:{free_port()}").send(envelope())
    assert not isinstance(away.value, Undeliverable)
    with pytest.raises(NotDelivered):
        await notifier("smtp://nowhere.invalid:25").send(envelope())


async def test_a_password_is_sent_and_a_wrong_one_is_tried_again_later() -> None:
    with MailServer(auth=True) as server:
        given = f"{USER}:{quote(PASSWORD, safe='')}"
        await notifier(server.url.replace("//", f"//{given}@")).send(envelope())
        assert len(server.mails) == 1
        for wrong in (f"{USER}:hush@", ""):
            with pytest.raises(NotDelivered) as refused:
                await notifier(server.url.replace("//", f"//{wrong}")).send(envelope())
            assert "hush" not in str(refused.value)
        assert isinstance(refused.value, NotDelivered)
        assert len(server.mails) == 1


async def test_tls_is_used_checked_and_where_there_is_a_password_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, authority = certificate(tmp_path)
    given = f"{USER}:{quote(PASSWORD, safe='')}"
    with (
        MailServer(auth=True, tls=context, implicit=True) as implicit,
        MailServer(auth=True, tls=context) as starttls,
        MailServer(auth=True) as plain,
    ):
        wanted = SmtpServer("localhost", starttls.port, USER, PASSWORD, Tls.REQUIRED)
        smtps = f"smtps://{given}@localhost:{implicit.port}"
        for mail in (SmtpNotifier(wanted, SENDER), notifier(smtps)):
            with pytest.raises(NotDelivered, match=r"(?i)certificate"):
                await mail.send(envelope())
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        await SmtpNotifier(wanted, SENDER).send(envelope())
        await notifier(smtps).send(envelope())
        assert (len(starttls.mails), len(implicit.mails)) == (1, 1)
        without = SmtpServer("localhost", plain.port, USER, PASSWORD, Tls.REQUIRED)
        with pytest.raises(NotDelivered, match="STARTTLS"):
            await SmtpNotifier(without, SENDER).send(envelope())
        assert plain.mails == []


@pytest.mark.parametrize(
    ("url", "host", "port", "username", "password", "tls"),
    [
        ("smtp://mail.example", "mail.example", 25, None, None, Tls.OFFERED),
        ("smtp://a%40b:p%2Fw@mail.example", "mail.example", 587, "a@b", "p/w", Tls.REQUIRED),
        ("smtps://u:p@mail.example", "mail.example", 465, "u", "p", Tls.IMPLICIT),
        ("smtp://localhost:1025", "localhost", 1025, None, None, Tls.NONE),
        ("smtp://[::1]:1025", "::1", 1025, None, None, Tls.NONE),
    ],
)
async def test_addresses_of_servers(
    url: str, host: str, port: int, username: str | None, password: str | None, tls: Tls
) -> None:
    assert SmtpServer.of(url) == SmtpServer(host, port, username, password, tls)


@pytest.mark.parametrize("url", ["", "mail.example", "http://mail.example", "smtp://", "smtp://h:x", "smtp://h:99999"])
async def test_what_is_no_address_of_a_server(url: str) -> None:
    with pytest.raises(BadInput):
        SmtpServer.of(url)


@pytest.mark.parametrize("sender", ["", "Quarterdeck", "a@b\nBcc: c@d", "@x", "a@", "ä@tests.example"])
async def test_what_is_no_sender(sender: str) -> None:
    with pytest.raises(BadInput):
        SmtpNotifier(SmtpServer.of("smtp://localhost"), sender)


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS for `localhost`, and the file of the authority that vouches for it: itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority, secret = folder / "authority.pem", folder / "key.pem"
    authority.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority, secret)
    return context, authority
