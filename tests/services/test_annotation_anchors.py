"""Ranges stay on their text, whatever is redacted beside, across or around them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.annotations.anchors import CONTEXT, MARK, Quote, Redaction, merged, occurrences

TEXT = st.text(alphabet="ab c\né🙂", min_size=1, max_size=60)


@st.composite
def spans_of(draw: st.DrawFn, text: str) -> tuple[int, int]:
    start = draw(st.integers(0, len(text) - 1))
    return start, draw(st.integers(start + 1, len(text)))


@st.composite
def a_redaction(draw: st.DrawFn) -> tuple[str, list[tuple[int, int]], tuple[int, int]]:
    text = draw(TEXT)
    return text, draw(st.lists(spans_of(text), min_size=1, max_size=5)), draw(spans_of(text))


def plainly(text: str, spans: list[tuple[int, int]]) -> str:
    """What redacting means, character by character."""
    hidden = {at for start, end in spans for at in range(start, end)}
    found = []
    for at, character in enumerate(text):
        if at not in hidden:
            found.append(character)
        elif at - 1 not in hidden:
            found.append(MARK)
    return "".join(found)


@given(a_redaction())
def test_the_text_has_a_mark_for_every_part(given_: tuple[str, list[tuple[int, int]], tuple[int, int]]) -> None:
    text, spans, _ = given_
    assert Redaction(text, spans).text == plainly(text, spans)


@given(a_redaction())
def test_a_quote_is_the_text_at_its_place(given_: tuple[str, list[tuple[int, int]], tuple[int, int]]) -> None:
    text, spans, (start, end) = given_
    redaction = Redaction(text, spans)
    quote = redaction.quote(start, end)
    assert 0 <= quote.start < quote.end <= len(redaction.text)
    assert quote.text == redaction.text[quote.start : quote.end]
    assert redaction.text[: quote.start].endswith(quote.prefix)
    assert redaction.text[quote.end :].startswith(quote.suffix)
    assert len(quote.prefix) == min(CONTEXT, quote.start)


@given(a_redaction())
def test_what_is_beside_the_redacted_parts_keeps_its_text(
    given_: tuple[str, list[tuple[int, int]], tuple[int, int]],
) -> None:
    text, spans, (start, end) = given_
    quote = Redaction(text, spans).quote(start, end)
    if all(end <= from_ or to <= start for from_, to in spans):
        assert quote.text == text[start:end]
        assert not quote.gone
    else:
        # What of it was kept is still in it, and nothing of what was not.
        hidden = {at for from_, to in spans for at in range(from_, to)}
        kept = "".join(text[at] for at in range(start, end) if at not in hidden)
        assert quote.text.replace(MARK, "") == kept
        assert quote.gone == (not kept)


@given(a_redaction(), st.data())
def test_redacting_by_and_by_keeps_quotes_on_their_text(
    given_: tuple[str, list[tuple[int, int]], tuple[int, int]], data: st.DataObject
) -> None:
    text, spans, (start, end) = given_
    first = Redaction(text, spans)
    quote = first.quote(start, end)
    second = Redaction(first.text, [data.draw(spans_of(first.text))])
    again = second.quote(quote.start, quote.end)
    assert again.text == second.text[again.start : again.end]


def test_ranges_that_touch_have_one_mark() -> None:
    assert merged([(5, 7), (0, 2), (2, 4), (1, 3)]) == [(0, 4), (5, 7)]
    assert Redaction("secret word", [(0, 3), (3, 6)]).text == f"{MARK} word"


def test_the_place_of_what_is_gone_is_its_mark() -> None:
    redaction = Redaction("my secret is out", [(3, 9)])
    quote = redaction.quote(4, 8)
    assert (quote.text, quote.gone, quote.prefix, quote.suffix) == (MARK, True, "my ", " is out")
    assert redaction.quote(3, 12).text == f"{MARK} is"
    assert redaction.quote(0, 5) == Quote.of(redaction.text, 0, 3 + len(MARK))


def test_every_occurrence_is_found() -> None:
    assert occurrences("aXaXa aXa", "aXa") == [(0, 3), (6, 9)]
    assert occurrences("abc", "x") == []
