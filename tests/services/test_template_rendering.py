"""Values in the texts of templates: data, whatever they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadInput
from services.templates.rendering import check_declared, references, render


def test_names_stand_for_values_texts_as_they_are_all_else_as_json() -> None:
    text = "{{name}} {{ count }} {{ strict }} {{ tags }} {{ none }}|{{ count }}"
    values = {"name": 'a "b"', "count": 3, "strict": True, "tags": ["é", 1]}
    assert render(text, values) == 'a "b" 3 true ["é", 1] |3'
    assert references(text) == {"name", "count", "strict", "tags", "none"}


def test_what_is_no_name_stays_as_it_is() -> None:
    text = "{{ a.b }} {{ 1 }} {{}} { { a } } {{ a | upper }} {% for %} ${a} {{{a}}}"
    assert render(text, {"a": "X"}) == text.replace("{{{a}}}", "{X}")


def test_names_that_are_no_parameters_are_told_all_at_once() -> None:
    with pytest.raises(BadInput) as raised:
        check_declared([("spec.systemPrompt", "{{ a }} {{ b }} {{ c }}"), ("spec.messages.0", "{{ d }}")], ["a"])
    assert [each["field"] for each in raised.value.details["fields"]] == ["spec.systemPrompt", "spec.messages.0"]
    assert "b, c" in str(raised.value)


@given(st.text(), st.text(), st.text())
def test_a_value_is_never_a_template(before: str, value: str, after: str) -> None:
    before, after = before.replace("{", ""), after.replace("}", "")
    hostile = f"{{{{ secret }}}}{value}{{{{ x }}}}"
    assert render(f"{before}{{{{ x }}}}{after}", {"x": hostile, "secret": "HUNTER2"}) == before + hostile + after
