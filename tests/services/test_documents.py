"""Registered documents: ids that never change their meaning, releases that come and go, and a process's memory."""

from __future__ import annotations

import asyncio

import pytest

from core import db
from core.errors import BadInput, Conflict, LimitExceeded, NotFound, RateLimited
from models.audit import INSTALLATION
from services import document_memory, documents
from services.document_memory import DocumentMemory, Texts
from services.documents import check_identifier, living, register, releases, retire, sha256_of, texts_of
from services.identity.actors import system_actor
from tests.services.identity_help import audited

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("database")]

OPERATOR = system_actor(INSTALLATION)
ONE, TWO = "{ viewer { __typename } }", "{ __typename }"


async def test_documents_are_registered_by_release_and_the_same_again_changes_nothing() -> None:
    made = await register(OPERATOR, "web", "1.0.0", {"one": ONE, f"sha256:{sha256_of(TWO)}": TWO}, by="tests")
    assert (made.added, made.total) == (2, 2)
    again = await register(OPERATOR, "web", "1.0.0", {"one": ONE})
    assert (again.added, again.total) == (0, 2)
    await register(OPERATOR, "web", "1.1.0", {"one": ONE})
    assert [(row["release"], row["documents"], row["registered_by"]) for row in await releases()] == [
        ("1.1.0", 1, "operator"),
        ("1.0.0", 2, "tests"),
    ]
    assert {row["id"]: row["releases"] for row in await living()}["one"] == ["web 1.0.0", "web 1.1.0"]
    assert len(await audited("documents.register")) == 2


async def test_an_id_never_stands_for_another_document() -> None:
    await register(OPERATOR, "web", "1", {"one": ONE})
    await retire(OPERATOR, "web", "1")
    with pytest.raises(Conflict, match="one"):
        await register(OPERATOR, "mobile", "1", {"two": TWO, "one": TWO})
    assert await texts_of(["two"]) == {}
    with pytest.raises(BadInput, match="not the SHA-256"):
        await register(OPERATOR, "web", "2", {f"sha256:{sha256_of(ONE)}": TWO})


async def test_a_document_is_also_known_by_its_hash() -> None:
    await register(OPERATOR, "web", "1", {"one": ONE})
    digest = sha256_of(ONE)
    assert await texts_of(["one", digest, f"sha256:{digest}", "none"]) == {
        "one": ONE,
        digest: ONE,
        f"sha256:{digest}": ONE,
    }


async def test_a_retired_release_takes_what_no_other_uses_along_and_lives_again_when_registered() -> None:
    await register(OPERATOR, "web", "1", {"one": ONE, "two": TWO})
    await register(OPERATOR, "web", "2", {"two": TWO})
    assert await retire(OPERATOR, "web", "1") == 1
    assert await retire(OPERATOR, "web", "1") == 0
    assert await texts_of(["one", "two"]) == {"two": TWO}
    await register(OPERATOR, "web", "1", {"one": ONE, "two": TWO})
    assert set(await texts_of(["one", "two"])) == {"one", "two"}
    with pytest.raises(NotFound):
        await retire(OPERATOR, "web", "3")
    assert len(await audited("documents.retire")) == 2  # and the refusal


async def test_processes_that_register_together_agree() -> None:
    made = await asyncio.gather(
        *(register(OPERATOR, "web", str(n % 2), {"one": ONE, f"n{n}": TWO}) for n in range(6)), return_exceptions=True
    )
    assert not [error for error in made if isinstance(error, BaseException)]
    assert len(await living()) == 7


async def test_there_is_a_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MOST_DOCUMENTS", 2)
    await register(OPERATOR, "web", "1", {"one": ONE, "two": TWO})
    with pytest.raises(LimitExceeded, match="Retire"):
        await register(OPERATOR, "web", "2", {"three": "{ a: __typename }"})
    assert len(await releases()) == 1
    await retire(OPERATOR, "web", "1")
    await register(OPERATOR, "web", "2", {"three": "{ a: __typename }"})


async def test_ids_and_names_are_as_the_specification_has_them() -> None:
    for identifier in ("7", "0" * 32, "sha256:" + "0" * 64, "x-mine:1", "A-b.c_d~e"):
        assert check_identifier(identifier) == identifier
    for identifier in ("", " ", "a b", "é", "sha256:", "sha256:" + "A" * 64, "md5:1", "x-:1", "a\0", "x" * 201):
        with pytest.raises(BadInput):
            check_identifier(identifier)
    for client, release in (("", "1"), ("web", ""), ("web", "a\nb"), ("w" * 101, "1"), (" w", "1")):
        with pytest.raises(BadInput):
            await register(OPERATOR, client, release, {"one": ONE})


# -- the memory


async def asked(memory: DocumentMemory, *identifiers: str) -> list[str | None]:
    return list(await asyncio.gather(*map(memory.find, identifiers)))


async def test_what_another_process_registers_is_known_at_once() -> None:
    memory = DocumentMemory()
    await register(OPERATOR, "web", "1", {"one": ONE})
    assert await memory.find("one") == ONE
    assert await memory.find("one") is await memory.find("one")


async def test_a_flood_of_unknown_ids_is_a_few_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_memory, "UNKNOWN_SECONDS", 60.0)
    await register(OPERATOR, "web", "1", {"one": ONE})
    memory = DocumentMemory()
    seen: list[str] = []
    mark = db.queries_seen.set(seen)
    try:
        found = await asked(memory, *(f"unknown{n}" for n in range(2500)), "one")
        assert found == [None] * 2500 + [ONE]
        assert await asked(memory, *(f"unknown{n}" for n in range(2500)), "one") == found
    finally:
        db.queries_seen.reset(mark)
    assert len([sql for sql in seen if "FROM documents" in sql]) <= 4


async def test_what_was_unknown_is_looked_for_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_memory, "UNKNOWN_SECONDS", 0.05)
    memory = DocumentMemory()
    assert await memory.find("one") is None
    await register(OPERATOR, "web", "1", {"one": ONE})
    await asyncio.sleep(0.06)
    assert await memory.find("one") == ONE


async def test_what_is_retired_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_memory, "RETIREMENTS_SECONDS", 0.05)
    memory = DocumentMemory()
    await register(OPERATOR, "web", "1", {"one": ONE})
    assert await memory.find("one") == ONE
    await retire(OPERATOR, "web", "1")
    async with asyncio.timeout(10):
        while await memory.find("one") is not None:
            await asyncio.sleep(0.02)


async def test_not_everybody_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_memory, "MOST_WAITING", 3)
    memory = DocumentMemory()
    found = await asyncio.gather(*(memory.find(f"unknown{n}") for n in range(6)), return_exceptions=True)
    assert [type(each) for each in found] == [type(None)] * 3 + [RateLimited] * 3


async def test_a_failing_database_is_said_to_all_who_wait_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_: object) -> None:
        raise ConnectionError("away")

    await register(OPERATOR, "web", "1", {"one": ONE})
    memory = DocumentMemory()
    with monkeypatch.context() as broken:
        broken.setattr(document_memory, "texts_of", away)
        found = await asyncio.gather(memory.find("one"), memory.find("one"), return_exceptions=True)
    assert [type(each) for each in found] == [ConnectionError] * 2
    assert await memory.find("one") == ONE


async def test_texts_are_kept_by_their_length() -> None:
    texts: Texts[int] = Texts(10)
    for number in range(4):
        texts.put(number, "xxxx")
        texts.get(0)
    assert [texts.get(number) for number in range(4)] == ["xxxx", None, None, "xxxx"]
    assert len(texts) == 2
