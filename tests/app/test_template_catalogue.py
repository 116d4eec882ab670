"""The organisation's catalogue: what is in it, how it is searched, counted and ordered, and what people say of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from tests.app.conftest import People
from tests.app.newcomers import newcomer
from tests.app.test_template_starting import start, until_done
from tests.app.test_templates import refusal
from tests.clients_of_graph import Client, Refused
from tests.talking import FORK, eventually
from tests.templating import GET, change_template, make_template, publish_untested

pytestmark = pytest.mark.anyio

CATALOGUE = """
query (
  $query: String, $filter: TemplateCatalogueFilter, $orderBy: TemplateCatalogueOrder, $first: Int, $after: String
) {
  templateCatalogue(query: $query, filter: $filter, orderBy: $orderBy, first: $first, after: $after) {
    totalCount nodes { id title } pageInfo { hasNextPage endCursor }
    facets {
      categories { value title count } labels { name value count } tools { value count } servers { value count }
    }
  }
}
"""
LIST = """
mutation ($input: SessionTemplateInput!) {
  listSessionTemplate(input: $input) { template { listedAt organizationLevel } }
}
"""
UNLIST = """
mutation ($input: SessionTemplateInput!) {
  unlistSessionTemplate(input: $input) { template { listedAt organizationLevel } }
}
"""
MAKE_CATEGORY = """
mutation ($input: CreateTemplateCategoryInput!) {
  createTemplateCategory(input: $input) { categories { key title categoryId } }
}
"""
REMOVE_CATEGORY = """
mutation ($input: RemoveTemplateCategoryInput!) {
  removeTemplateCategory(input: $input) { categories { key } }
}
"""


class Shelf:
    """Four templates that are listed, with a label that no other test's have."""

    def __init__(self) -> None:
        self.word = uuid4().hex[:10]
        self.ids: dict[str, str] = {}

    @property
    def label(self) -> dict[str, str]:
        return {"name": "shelf", "value": self.word}

    def named(self, nodes: list[dict[str, str]]) -> list[str]:
        names = {id_: name for name, id_ in self.ids.items()}
        return [names[node["id"]] for node in nodes]


@pytest.fixture(scope="module")
async def shelf(people: People) -> AsyncIterator[Shelf]:
    made, member, admin = Shelf(), people.member.client, people.admin.client
    rows: dict[str, dict[str, Any]] = {
        "review": {
            "title": f"Code review {made.word}",
            "category": "development",
            "spec": {"mcpServers": [{"server": "git", "tools": ["git_log", "git_diff"]}]},
        },
        "audit": {
            "title": "Security audit",
            "summary": f"Reviews dependencies {made.word}",
            "category": "security-audit",
            "labels": [made.label, {"name": "team", "value": "red"}],
            "spec": {"mcpServers": [{"server": "git", "tools": ["git_log"]}, {"server": "scan"}]},
        },
        "load": {
            "title": "Load test",
            "category": "performance-testing",
            "spec": {
                "parameters": {
                    "type": "object",
                    "properties": {"rate": {"type": "integer", "description": f"requests per second {made.word}"}},
                },
                "options": {"allowedTools": ["shell", "k6.*"]},
            },
        },
        "private": {"title": f"Only some may see it {made.word}", "category": "development", "spec": {}},
    }
    for name, fields in rows.items():
        template = await make_template(member, **({"labels": [made.label]} | fields))
        made.ids[name] = template["id"]
        await publish_untested(admin, template["id"])
        await member(LIST, input={"templateId": template["id"]})
    hide = """
    mutation ($input: SetSessionTemplateVisibilityInput!) {
      setSessionTemplateVisibility(input: $input) { template { id } }
    }
    """
    await member(hide, input={"templateId": made.ids["private"], "organizationLevel": None})
    return made


async def find(client: Client, shelf: Shelf, query: str | None = None, **filter: Any) -> dict[str, Any]:
    order = filter.pop("order", None)
    filter["labels"] = [shelf.label, *filter.get("labels", [])]
    return (await client(CATALOGUE, query=query, filter=filter, orderBy=order))["templateCatalogue"]  # type: ignore[no-any-return]


async def test_what_is_listed_is_for_everybody_to_use(people: People) -> None:
    template = await make_template(people.member.client)
    listing = {"templateId": template["id"]}
    assert (await refusal(people.member.client, LIST, input=listing))["code"] == "CONFLICT"  # no version yet
    await publish_untested(people.admin.client, template["id"])
    assert (await refusal(people.colleague.client, LIST, input=listing))["code"] == "NOT_FOUND"
    made = (await people.member.client(LIST, input=listing))["listSessionTemplate"]["template"]
    assert made["listedAt"]
    assert made["organizationLevel"] == "USE"
    seen = (await people.colleague.client(GET, id=template["id"]))["sessionTemplate"]
    assert seen["access"] == {"level": "USE", "via": [{"kind": "ORGANIZATION", "level": "USE"}]}
    gone = (await people.member.client(UNLIST, input=listing))["unlistSessionTemplate"]["template"]
    assert gone == {"listedAt": None, "organizationLevel": "USE"}

    # What was said of everybody stays.
    careful = await make_template(people.member.client, organizationLevel="VIEW")
    await publish_untested(people.admin.client, careful["id"])
    made = (await people.member.client(LIST, input={"templateId": careful["id"]}))["listSessionTemplate"]["template"]
    assert made["organizationLevel"] == "VIEW"


async def test_words_find_templates_by_all_that_is_said_of_them(people: People, shelf: Shelf) -> None:
    client = people.colleague.client
    for words, expected in (
        (f"reviews {shelf.word}", ["review", "audit"]),  # in any form; the title before the summary
        ("git_log", ["audit", "review"]),
        ("log", ["audit", "review"]),
        ("scan", ["audit"]),
        ("second", ["load"]),
        ("performance", ["load"]),
        ('"code review"', ["review"]),
        ("review -code", ["audit"]),
        ("nothing-has-this", []),
        ("the", []),
        ("'); DROP TABLE session_templates; --", []),
    ):
        found = shelf.named((await find(client, shelf, words))["nodes"])
        assert sorted(found) == sorted(expected), words
    assert shelf.named((await find(client, shelf, f"review {shelf.word}"))["nodes"])[0] == "review"
    assert (await refusal(client, CATALOGUE, query="x" * 1001))["code"] == "BAD_INPUT"
    assert (await refusal(client, CATALOGUE, orderBy="RELEVANCE"))["code"] == "BAD_INPUT"


async def test_facets_count_what_the_filter_takes_and_one_may_see(people: People, shelf: Shelf) -> None:
    found = await find(people.colleague.client, shelf)
    assert found["totalCount"] == 3
    facets = found["facets"]
    assert {each["value"]: each["count"] for each in facets["categories"]} == {
        "development": 1,
        "performance-testing": 1,
        "security-audit": 1,
    }
    assert {"name": "team", "value": "red", "count": 1} in facets["labels"]
    assert facets["tools"] == [
        {"value": "git.git_log", "count": 2},
        {"value": "git.git_diff", "count": 1},
        {"value": "shell", "count": 1},
    ]
    assert facets["servers"] == [{"value": "git", "count": 2}, {"value": "scan", "count": 1}]

    # The owner sees the one that is hidden from others.
    own = await find(people.member.client, shelf)
    assert own["totalCount"] == 4
    assert {each["value"]: each["count"] for each in own["facets"]["categories"]}["development"] == 2

    narrow = await find(people.colleague.client, shelf, server=["git"], tool=["git.git_diff"])
    assert shelf.named(narrow["nodes"]) == ["review"]
    assert narrow["facets"]["tools"] == [{"value": "git.git_diff", "count": 1}, {"value": "git.git_log", "count": 1}]
    by_owner = await find(people.colleague.client, shelf, ownerId=[people.colleague.id])
    assert (by_owner["totalCount"], by_owner["facets"]["categories"]) == (0, [])
    both = await find(people.colleague.client, shelf, category=["development", "security-audit"])
    assert sorted(shelf.named(both["nodes"])) == ["audit", "review"]
    assert (await find(people.stranger.client, shelf))["totalCount"] == 0


async def test_every_order_goes_on_where_its_page_ended(people: People, shelf: Shelf) -> None:
    for order in ("MOST_USED", "BEST_RATED", "NEWEST", "NAME", "RELEVANCE"):
        seen: list[str] = []
        after = None
        while True:
            page = (
                await people.colleague.client(
                    CATALOGUE,
                    query=shelf.word if order == "RELEVANCE" else None,
                    filter={"labels": [shelf.label]},
                    orderBy=order,
                    first=1,
                    after=after,
                )
            )["templateCatalogue"]
            seen += shelf.named(page["nodes"])
            after = page["pageInfo"]["endCursor"]
            if not page["pageInfo"]["hasNextPage"]:
                break
        assert sorted(seen) == ["audit", "load", "review"], order
        if order == "NEWEST":
            assert seen == ["load", "audit", "review"]
        if order != "NAME":
            bad = await refusal(people.colleague.client, CATALOGUE, orderBy="NAME", after=after)
            assert bad["code"] == "BAD_INPUT", order


async def test_what_changes_is_found_anew_and_what_is_removed_is_not(people: People) -> None:
    member, word = people.member.client, uuid4().hex[:10]
    template = await make_template(member)
    await publish_untested(people.admin.client, template["id"])
    await member(LIST, input={"templateId": template["id"]})

    async def found(words: str) -> int:
        return (await member(CATALOGUE, query=words))["templateCatalogue"]["totalCount"]  # type: ignore[no-any-return]

    await change_template(member, template["id"], title=f"About {word}")
    assert await found(word) == 1
    # The draft's tools count when they are published.
    await change_template(member, template["id"], spec={"mcpServers": [{"server": f"s{word}"}]})
    assert await found(f"s{word}") == 0
    await publish_untested(people.admin.client, template["id"])
    assert await found(f"s{word}") == 1
    remove = "mutation ($input: SessionTemplateInput!) { removeSessionTemplate(input: $input) { template { id } } }"
    await member(remove, input={"templateId": template["id"]})
    assert await found(word) == 0


async def test_an_organisation_makes_categories_and_removes_those_that_are_not_used(people: People) -> None:
    admin, key = people.admin.client, f"c-{uuid4().hex[:8]}"
    assert (await refusal(people.member.client, MAKE_CATEGORY, input={"key": key, "title": "Cooking"}))["code"] == (
        "FORBIDDEN"
    )
    made = (await admin(MAKE_CATEGORY, input={"key": key, "title": "Cooking"}))["createTemplateCategory"]["categories"]
    assert [each["key"] for each in made[:4]] == [
        "development",
        "production-analysis",
        "security-audit",
        "performance-testing",
    ]
    [own] = [each for each in made if each["key"] == key]
    for taken in (key, "development"):
        assert (await refusal(admin, MAKE_CATEGORY, input={"key": taken, "title": "X"}))["code"] == "CONFLICT"
    template = await make_template(people.member.client, category=key)
    assert template["categoryTitle"] == "Cooking"
    refused = await refusal(admin, REMOVE_CATEGORY, input={"categoryId": own["categoryId"]})
    assert (refused["code"], refused["templates"]) == ("CONFLICT", 1)
    await change_template(people.member.client, template["id"], category="development")
    left = (await admin(REMOVE_CATEGORY, input={"categoryId": own["categoryId"]}))["removeTemplateCategory"]
    assert key not in {each["key"] for each in left["categories"]}


async def test_a_category_is_not_removed_while_a_template_gets_into_it(people: People) -> None:
    admin, key = people.admin.client, f"c-{uuid4().hex[:8]}"
    made = (await admin(MAKE_CATEGORY, input={"key": key, "title": "T"}))["createTemplateCategory"]["categories"]
    [own] = [each["categoryId"] for each in made if each["key"] == key]
    done = await asyncio.gather(
        make_template(people.member.client, category=key),
        admin(REMOVE_CATEGORY, input={"categoryId": own}),
        return_exceptions=True,
    )
    assert [isinstance(each, Refused) for each in done].count(True) == 1


async def test_differences_are_told_between_versions_and_the_draft(people: People) -> None:
    admin = people.admin.client
    template = await make_template(admin, spec={"systemPrompt": "One\nTwo", "mcpServers": [{"server": "git"}]})
    await publish_untested(admin, template["id"])
    await change_template(admin, template["id"], spec={"systemPrompt": "One\n2", "mcpServers": [{"server": "time"}]})
    document = """
    query ($id: ID!, $from: Int, $to: Int) {
      sessionTemplateDifference(templateId: $id, from: $from, to: $to) {
        fromDigest toDigest truncated changes { path kind before after textDifference }
      }
    }
    """
    found = (await admin(document, id=template["id"], **{"from": 1}))["sessionTemplateDifference"]
    assert found["fromDigest"] == template["draft"]["digest"] != found["toDigest"]
    changes = {each["path"]: each for each in found["changes"]}
    assert changes.keys() == {"/systemPrompt", "/mcpServers/git", "/mcpServers/time"}
    assert changes["/systemPrompt"]["textDifference"].endswith("-Two\n+2")
    assert changes["/mcpServers/time"] == {
        "path": "/mcpServers/time",
        "kind": "ADDED",
        "before": None,
        "after": {"server": "time"},
        "textDifference": None,
    }
    missing = await refusal(admin, document, id=template["id"], to=7)
    assert (missing["code"], missing["field"]) == ("NOT_FOUND", "to")
    assert (await refusal(people.stranger.client, document, id=template["id"]))["code"] == "NOT_FOUND"


async def test_who_never_started_a_session_from_a_template_does_not_review_it(people: People, shelf: Shelf) -> None:
    one = await newcomer(people.admin.client)
    document = """
    mutation ($input: ReviewSessionTemplateInput!) { reviewSessionTemplate(input: $input) { review { id } } }
    """
    refused = await refusal(one.client, document, input={"templateId": shelf.ids["load"], "rating": 5})
    assert refused["code"] == "FORBIDDEN"
    assert "Start one first" in refused["message"]
    bad = await refusal(one.client, document, input={"templateId": shelf.ids["load"], "rating": 6, "text": "x" * 4001})
    assert {each["field"] for each in bad["fields"]} == {"rating", "text"}
    hidden = await refusal(one.client, document, input={"templateId": shelf.ids["private"], "rating": 5})
    assert hidden["code"] == "NOT_FOUND"


USAGE = """
query ($id: ID!) {
  sessionTemplate(id: $id) {
    usage { sessionCount userCount endedRuns finishedRuns successRate costUsd averageCostUsd lastUsedAt }
    rating ratingCount myReview { id rating text version } reviews { totalCount nodes { rating author { name } } }
    versions { nodes { number usage { sessionCount userCount successRate costUsd } } }
  }
}
"""
REVIEW = """
mutation ($input: ReviewSessionTemplateInput!) {
  reviewSessionTemplate(input: $input) { review { id rating text version } template { rating ratingCount } }
}
"""
MINE = """
{ viewer {
  recentSessionTemplates(most: 2) { id } mostUsedSessionTemplates { id }
} }
"""
WORKS = "playbook: It works\nsteps:\n  - say: Done"
FAILS = """\
playbook: It fails
steps:
  - tool: read_file
    arguments: {path: nothing-here}
    expect: {isError: false}
"""


async def test_usage_is_counted_of_real_sessions_and_those_who_started_one_review(people: People) -> None:
    admin = people.admin.client
    one, other = await newcomer(admin), await newcomer(admin)
    template = await make_template(
        people.member.client,
        spec={"runtime": "script", "playbook": WORKS, "overridable": ["MESSAGES"]},
        organizationLevel="USE",
    )
    await publish_untested(admin, template["id"])
    unused = (await admin(USAGE, id=template["id"]))["sessionTemplate"]
    assert unused["usage"] == {
        "sessionCount": 0,
        "userCount": 0,
        "endedRuns": 0,
        "finishedRuns": 0,
        "successRate": None,
        "costUsd": None,
        "averageCostUsd": None,
        "lastUsedAt": None,
    }
    first = await start(one.client, template["id"])
    await start(one.client, template["id"], overrides={"messages": [FAILS]})
    await until_done(one.client, first["session"]["id"])
    await one.client(FORK, input={"sessionId": first["session"]["id"]})  # is nothing that was started
    await change_template(
        people.member.client, template["id"], spec={"runtime": "script", "playbook": WORKS + " again"}
    )
    await publish_untested(admin, template["id"])
    await start(other.client, template["id"])

    async def all_ended() -> bool:
        nonlocal used
        used = (await admin(USAGE, id=template["id"]))["sessionTemplate"]
        return bool(used["usage"]["endedRuns"] == 3)

    used: dict[str, Any] = {}
    await eventually(all_ended)
    assert (used["usage"]["sessionCount"], used["usage"]["userCount"]) == (3, 2)
    assert used["usage"]["finishedRuns"] == 2
    assert used["usage"]["successRate"] == pytest.approx(2 / 3)
    assert used["usage"]["costUsd"] is None  # a script costs nothing that is known
    assert [each["usage"] for each in used["versions"]["nodes"]] == [
        {"sessionCount": 2, "userCount": 1, "successRate": 0.5, "costUsd": None},
        {"sessionCount": 1, "userCount": 1, "successRate": 1.0, "costUsd": None},
    ]

    said = {"templateId": template["id"], "rating": 5, "text": "Good"}
    made = (await one.client(REVIEW, input=said))["reviewSessionTemplate"]
    assert (made["review"]["version"], made["template"]) == (1, {"rating": 5.0, "ratingCount": 1})
    made = (await one.client(REVIEW, input=said | {"rating": 2, "text": "Not so good"}))["reviewSessionTemplate"]
    assert made["template"] == {"rating": 2.0, "ratingCount": 1}
    both = await asyncio.gather(*(other.client(REVIEW, input=said | {"rating": 4}) for _ in range(3)))
    assert {each["reviewSessionTemplate"]["template"]["ratingCount"] for each in both} == {2}
    read = (await one.client(USAGE, id=template["id"]))["sessionTemplate"]
    assert (read["rating"], read["ratingCount"], read["myReview"]["text"]) == (3.0, 2, "Not so good")
    assert [each["rating"] for each in read["reviews"]["nodes"]] == [2, 4]
    remove = """
    mutation ($input: RemoveTemplateReviewInput!) {
      removeTemplateReview(input: $input) { template { rating ratingCount } }
    }
    """
    mine = {"reviewId": read["myReview"]["id"]}
    assert (await refusal(other.client, remove, input=mine))["code"] == "FORBIDDEN"
    left = (await one.client(remove, input=mine))["removeTemplateReview"]["template"]
    assert left == {"rating": 4.0, "ratingCount": 1}
    assert (await refusal(one.client, remove, input=mine))["code"] == "NOT_FOUND"


async def test_everybody_has_their_own_recent_and_most_used_templates(people: People) -> None:
    one = await newcomer(people.admin.client)
    ids = []
    for _ in range(3):
        template = await make_template(people.member.client, organizationLevel="USE", spec={"runtime": "script"})
        await publish_untested(people.admin.client, template["id"])
        ids.append(template["id"])
    a, b, c = ids
    for id_ in (b, b, a, c):
        await start(one.client, id_)
    mine = (await one.client(MINE))["viewer"]
    assert [each["id"] for each in mine["recentSessionTemplates"]] == [c, a]
    assert [each["id"] for each in mine["mostUsedSessionTemplates"]] == [b, c, a]
    hide = """
    mutation ($input: SetSessionTemplateVisibilityInput!) {
      setSessionTemplateVisibility(input: $input) { template { id } }
    }
    """
    await people.member.client(hide, input={"templateId": c, "organizationLevel": "VIEW"})
    mine = (await one.client(MINE))["viewer"]
    assert [each["id"] for each in mine["recentSessionTemplates"]] == [a, b]  # what one may use now
    document = "{ viewer { recentSessionTemplates(most: 51) { id } } }"
    assert (await refusal(one.client, document))["code"] == "BAD_INPUT"
