"""Templates as YAML: written one way, read back the same, and valid by the schema that is published."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import BadInput, TooLarge
from services.templates.credentials import findings
from services.templates.files import LARGEST_FILE, json_schema, json_schema_text, read_file, write_file
from services.templates.spec import TemplateSpec, check_spec

VALIDATOR = jsonschema.Draft202012Validator(json_schema())
HEAD = "apiVersion: quarterdeck/v1\nkind: SessionTemplate\nmetadata:\n  name: a\n  title: A\n  category: development\n"

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
LINES = st.lists(TEXT | st.just(""), min_size=1, max_size=5).map("\n".join).filter(bool)
SAFE = 2**53 - 1
"""Greater integers are refused: not every reader of JSON has them."""
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(1 - 2**53, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "runtime": st.sampled_from(["script", "pydantic_ai"]),
        "model": TEXT,
        "permissionMode": st.sampled_from(["PLAN", "DONT_ASK"]),
        "systemPrompt": LINES,
        "parameters": st.dictionaries(TEXT, JSON, max_size=3),
        "mcpServers": st.lists(
            st.fixed_dictionaries({"server": TEXT}, optional={"tools": st.lists(TEXT, max_size=3)}),
            max_size=3,
            unique_by=lambda server: server["server"],
        ),
        "options": st.fixed_dictionaries(
            {},
            optional={
                "allowedTools": st.lists(TEXT, max_size=3),
                "maxTurns": st.integers(1, 1000),
                "maxBudgetUsd": st.decimals(min_value="0.01", max_value=1000, places=2).map(str),
                "extra": st.dictionaries(TEXT, JSON, max_size=3),
            },
        ),
        "approvalRules": st.lists(
            st.fixed_dictionaries({"tool": TEXT, "decision": st.sampled_from(["ALLOW", "ASK", "DENY"])}), max_size=3
        ),
        "messages": st.lists(LINES, max_size=3),
        "seed": st.fixed_dictionaries({"files": st.just([{"path": "a/b.txt", "content": " x \n\ty\n"}])}),
        "budget": st.fixed_dictionaries({"maxCostUsd": st.decimals(min_value="0.01", max_value=9, places=3).map(str)}),
        "title": TEXT,
        "labels": st.dictionaries(TEXT, TEXT | st.just(""), max_size=3),
        "overridable": st.lists(st.sampled_from(["TITLE", "MODEL", "BUDGET"]), max_size=3, unique=True),
        "test": st.fixed_dictionaries(
            {"parameters": st.dictionaries(TEXT, JSON, max_size=2), "checks": st.just([{"answerContains": "no"}])}
        ),
    },
)


def row(**more: Any) -> Any:
    known = {"name": "a", "title": "A", "summary": "", "icon": None, "category": "development", "labels": {}}
    return known | more


def exported(spec: TemplateSpec, **more: Any) -> str:
    return write_file(row(**more), spec.stored(), spec.digest()).text


def refused(text: str) -> list[dict[str, Any]]:
    with pytest.raises(BadInput) as caught:
        read_file(text)
    return list(caught.value.details["fields"])


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(SPECS, st.dictionaries(st.sampled_from(["team", "a.b/c"]), TEXT, max_size=2), TEXT)
def test_export_import_export_gives_the_same_bytes(
    given_: dict[str, Any], labels: dict[str, str], summary: str
) -> None:
    spec = check_spec(given_)
    text = exported(spec, labels=labels, summary=summary)
    [read] = read_file(text)
    assert read.spec == spec
    assert read.spec.digest() == spec.digest()
    assert (read.metadata.labels, read.metadata.summary) == (labels, summary)
    assert exported(read.spec, labels=read.metadata.labels, summary=read.metadata.summary) == text
    VALIDATOR.validate(yaml.safe_load(text))


def test_keys_are_in_the_documented_order_whatever_the_database_made_of_it() -> None:
    spec = check_spec(
        {
            "test": {"timeoutSeconds": 10},
            "labels": {"b": "1", "a": "2"},
            "systemPrompt": "Be brief.\n\nAnd kind.\n",
            "parameters": {
                "required": ["target"],
                "properties": {"target": {"default": "main", "maxLength": 9, "title": "Target", "type": "string"}},
                "type": "object",
            },
            "runtime": "script",
        }
    )
    assert exported(spec, labels={"z": "1", "k": "2"}) == (
        "apiVersion: quarterdeck/v1\nkind: SessionTemplate\n"
        'metadata:\n  name: a\n  title: A\n  category: development\n  labels:\n    k: "2"\n    z: "1"\n'
        "spec:\n  runtime: script\n  systemPrompt: |\n    Be brief.\n\n    And kind.\n"
        "  parameters:\n    type: object\n    properties:\n      target:\n        type: string\n        title: Target\n"
        "        default: main\n        maxLength: 9\n    required:\n      - target\n"
        '  labels:\n    a: "2"\n    b: "1"\n  test:\n    timeoutSeconds: 10\n'
    )


def test_the_schema_is_one_and_says_no_to_what_reading_says_no_to() -> None:
    VALIDATOR.check_schema(json_schema())
    assert json_schema_text().endswith("}\n")
    document = yaml.safe_load(HEAD + "spec: {}\n")
    VALIDATOR.validate(document)
    for change in (
        {"apiVersion": "quarterdeck/v2"},
        {"kind": "Other"},
        {"more": 1},
        {"metadata": {"name": "Not A Name", "title": "A", "category": "development"}},
        {"spec": {"options": {"maxTurns": 0}}},
        {"spec": {"unknown": 1}},
    ):
        assert not VALIDATOR.is_valid(document | change)
        assert refused(yaml.safe_dump(document | change))


def test_all_problems_are_told_with_line_column_and_place() -> None:
    found = refused(
        HEAD.replace("title: A", "title: 12")
        + "  labels: {version: 1.10, on_call: x}\nspec:\n  options:\n    maxTurn: 3\n    maxTurns: 0\n"
        + "  messages: [hello, true]\n  visibility: PUBLIC\n"
    )
    assert [(each["field"], each["line"], each["column"]) for each in found] == [
        ("documents.0.metadata.title", 5, 3),
        ("documents.0.metadata.labels.version", 7, 12),
        ("documents.0.spec.options.maxTurn", 10, 5),
        ("documents.0.spec.options.maxTurns", 11, 5),
        ("documents.0.spec.messages.1", 12, 21),
        ("documents.0.spec.visibility", 13, 3),
    ]
    assert "1.10" in found[1]["message"]
    assert "quotes" in found[1]["message"]
    assert "no such key" in found[2]["message"]


def test_several_documents_are_read_and_each_name_once() -> None:
    text = "---\n".join(HEAD.replace("name: a", f"name: {name}") + "spec: {}\n" for name in ("a", "b")) + "---\n"
    assert [read.metadata.name for read in read_file(text)] == ["a", "b"]
    [problem] = refused(text.replace("name: b", "name: a"))
    assert (problem["field"], problem["line"]) == ("documents.1.metadata.name", 12)
    assert "twice" in problem["message"]


def test_what_is_written_can_be_read_again_however_large_it_is() -> None:
    spec = check_spec({"seed": {"files": [{"path": "a", "content": "a\n" * 300_000}]}})
    text = exported(spec)
    assert 'content: "a\\na\\n' in text
    assert read_file(text)[0].spec == spec
    for extra in (
        {"many": [1] * 60_000},
        {"deep": {"a": [[[[[[[[1]]]]]]]]}, "long": ["a b"] * 45_000, "x": ["é"] * 9000},
    ):
        with pytest.raises(TooLarge):
            exported(check_spec({"options": {"extra": extra}}))


def test_files_of_other_systems_are_the_same() -> None:
    spec = check_spec({"systemPrompt": "One\n\n  two \n", "messages": ["a\nb"]})
    text = exported(spec)
    for other in (text.replace("\n", "\r\n"), "\ufeff" + text, "# a comment\n\n" + text + "\n\n"):
        [read] = read_file(other)
        assert read.spec.digest() == spec.digest()


def test_what_is_no_file_of_templates_is_refused() -> None:
    with pytest.raises(BadInput):
        read_file("# nothing\n")
    with pytest.raises(TooLarge):
        read_file("#" * (LARGEST_FILE + 1))
    assert refused("[]")
    assert refused("text")
    assert "quarterdeck/v1" in refused(HEAD.replace("/v1", "/v7") + "spec: {new: 1}\n")[0]["message"]
    assert refused(HEAD)[0]["message"] == "it is missing"
    assert "aliases" in refused(HEAD + "spec:\n  title: &t x\n  model: *t\n")[0]["message"]
    [problem] = refused(HEAD + "spec:\n  systemPrompt: yes\n")
    assert (problem["field"], problem["line"], problem["column"]) == ("documents.0.spec.systemPrompt", 8, 17)


def test_errors_repeat_little_of_what_they_are_about() -> None:
    many = "x" * 100_000
    for text in (f"!{many} a", f"a: &{many} b", f"{HEAD}{many}: 1\nspec: {{}}\n", f"? 1{'1' * 100_000}\n: 1\n"):
        with pytest.raises(BadInput) as caught:
            read_file(text)
        assert len(str(caught.value.extensions())) + len(caught.value.message) < 3000


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"systemPrompt": "Use Bearer abcdefgh12345678 there"}, "spec.systemPrompt"),
        ({"messages": ["hello", "git clone https://me:hunter2@example.com/x"]}, "spec.messages.1"),
        ({"options": {"extra": {"headers": [{"apiKey": "anything"}]}}}, "spec.options.extra.headers.0.apiKey"),
        (
            {"seed": {"files": [{"path": "k", "content": "-----BEGIN PRIVATE KEY-----\nMII"}]}},
            "spec.seed.files.0.content",
        ),
        (
            {
                "seed": {
                    "files": [{"path": "k", "content": "c2stYWJjZGVmZ2hpamtsbW5vcHFyc3R1dg==", "encoding": "base64"}]
                }
            },
            "spec.seed.files.0.content",
        ),
        ({"systemPrompt": "key AKIAIOSFODNN7EXAMPLE"}, "spec.systemPrompt"),
    ],
)
def test_what_looks_like_a_credential_is_found_with_its_place(spec: dict[str, Any], path: str) -> None:
    assert [finding.path for finding in findings(check_spec(spec).stored())] == [path]


def test_words_about_secrets_are_no_findings() -> None:
    spec = {
        "systemPrompt": "Basic knowledge of bearer tokens; see https://example.com/a:b@c and {{ apiToken }}.",
        "options": {"environment": ["GITHUB_TOKEN"], "extra": {"token": "{{ apiToken }}"}},
        "parameters": {"type": "object", "properties": {"apiToken": {"type": "string", "description": "The token"}}},
        "test": {"parameters": {"apiToken": "GITHUB_TOKEN"}},
    }
    assert not list(findings(check_spec(spec).stored()))
