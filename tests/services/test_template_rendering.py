"""Values in the texts of templates: data, whatever they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadInput
from integrations.agents.playbook import Script, parse, substitute, with_values
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


PLAYBOOK = """
playbook: Look at {{ branch }}
variables: {depth: 1, own: mine}
steps:
  - say: "{{ branch }} {{ depth }} {{ own }}"
  - tool: git.git_log
    arguments: {repo_path: "{{ path }}", max_count: "{{ depth }}"}
    save: log
  - say: "{{ log }}"
"""


def values_of(text: str) -> Script:
    script = parse(text)
    assert script is not None
    return script


def test_a_playbook_gets_values_as_its_variables() -> None:
    given_ = {"branch": "main", "depth": 5, "path": ".", "unused": "SECRET"}
    rendered = with_values(PLAYBOOK, given_)
    assert rendered is not None
    assert "SECRET" not in rendered
    script = values_of(rendered)
    assert script.variables == {"depth": 5, "own": "mine", "branch": "main", "path": "."}
    assert [step.tool for step in script.steps] == [None, "git.git_log", None]
    assert substitute(script.steps[1].arguments, script.variables) == {"repo_path": ".", "max_count": 5}


def test_a_tool_call_gets_values_as_data() -> None:
    rendered = with_values(
        '/tool write_file {"path": "a", "content": "{{ text }}"}', {"text": '"}, {{ path }} \n- x: 1'}
    )
    assert rendered is not None
    script = values_of(rendered)
    (step,) = script.steps
    assert substitute(step.arguments, script.variables) == {"path": "a", "content": '"}, {{ path }} \n- x: 1'}


def test_a_program_that_refers_to_what_is_not_there_is_refused_and_mere_text_is_none() -> None:
    with pytest.raises(BadInput, match="nothing named path"):
        with_values(PLAYBOOK, {"branch": "main"})
    with pytest.raises(BadInput, match="nothing named x"):
        with_values('/tool write_file {"path": "{{ x }}"}', {})
    with pytest.raises(BadInput, match="aliases"):
        with_values("playbook: &a x\nsteps: [{say: *a}]", {})
    assert with_values("Please look at {{ branch }}.", {"branch": "playbook: x"}) is None


HOSTILE = st.text() | st.sampled_from(
    [
        "- a: b",
        "yes",
        "null",
        "1e3",
        "2026-01-01",
        "*alias",
        "&anchor",
        "!!python/object/apply:os.system [id]",
        "{{ own }}",
        "| block",
        "# no comment",
        "a: b\n  - c",
        " leading and trailing ",
        "\u2028\x85\ufeff\U0001f600",
        "'\"`",
        "\t%TAG",
    ]
)


@given(HOSTILE, st.lists(HOSTILE, max_size=3), st.floats(allow_nan=False, allow_infinity=False), st.integers())
def test_values_come_out_of_a_playbook_as_they_went_in(text: str, many: list[str], ratio: float, count: int) -> None:
    given_ = {"branch": text, "path": many, "depth": count, "own": ratio}
    rendered = with_values(PLAYBOOK, given_)
    assert rendered is not None
    script = values_of(rendered)
    assert script.variables == given_
    assert len(script.steps) == 3
    assert substitute("{{ branch }}", script.variables) == text
    assert substitute("<{{ branch }}>", script.variables) == f"<{text}>"
