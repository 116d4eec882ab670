"""Comments as their authors write them, Markdown, and what is made of it: HTML that harms nobody, and plain text.

CommonMark with tables and strikethrough (GitHub's extensions), and people who are mentioned as `@[name](usr_…)`.
Nothing is loaded from elsewhere: no HTML of the author's own, no images. What the parser makes goes through an
allow-list besides, so that a mistake in one of them is not enough.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from uuid import UUID

import nh3
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from core.errors import BadInput, LimitExceeded, TooLarge
from core.ids import decode

MOST_CHARACTERS = 20_000
"""Of a comment."""
MOST_MENTIONS = 20
"""Different people in one comment."""
MOST_HTML_BYTES = 200_000
"""Of what is made of a comment: a few marks can stand for much, as the empty cells of a table."""
_MOST_LEVELS = 20
"""Of quotes and lists within each other; what is deeper is left out."""

_TAGS = frozenset(
    {"a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre"}
    | {"s", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"}
)
_ATTRIBUTES = {"a": {"href", "title"}, "code": {"class"}, "ol": {"start"}, "span": {"data-user-id"}}
_SCHEMES = frozenset({"http", "https", "mailto"})
_LINK = re.compile(r"(?:https?://|mailto:)", re.IGNORECASE)
_LANGUAGE = re.compile(r"language-[A-Za-z0-9_+#.-]{1,40}")
_MENTION_HTML = '<span data-user-id="{}">@{}</span>'
# As the allow-list leaves what `_render_mention` makes. Nothing else of a comment looks like it: what an author writes
# has its `<` escaped in text, and its quotes in attributes.
_RENDERED_MENTION = re.compile(r'<span data-user-id="([^"<>]+)">@([^<]*)</span>')
_MENTION = re.compile(r"@\[([^\[\]\n]{1,200})\]\((usr_[^()\s]{0,60})\)")


@dataclass(frozen=True, slots=True)
class Written:
    """A comment that was read: what it says, and whom it names."""

    markdown: str
    mentions: tuple[UUID, ...]
    """In the order of the text, each once."""
    _tokens: Sequence[Token]
    _html: str
    """Sanitised, with the names that its author wrote."""

    def html(self, names: Mapping[UUID, str]) -> str:
        """Sanitised HTML. Mentions are `<span data-user-id="usr_…">@Name</span>`, by the names given here. It has been
        rendered already: this is done while others wait for the session. Raises TooLarge for names that are too long.
        """

        def named(mention: re.Match[str]) -> str:
            name = names.get(decode("usr", mention[1]))
            return mention[0] if name is None else _MENTION_HTML.format(mention[1], escape(name, quote=False))

        return _no_larger(_RENDERED_MENTION.sub(named, self._html))

    def plain(self, names: Mapping[UUID, str]) -> str:
        """The words alone, block by line: for search, and for who is told."""
        lines: list[str] = []
        for token in self._tokens:
            if token.type == "inline":
                lines.append("".join(_plain(child, names) for child in token.children or ()))
            elif token.type in ("fence", "code_block"):
                lines.append(token.content)
        return "\n".join(line.strip() for line in lines if line.strip())


def read(markdown: str, *, field: str = "text") -> Written:
    """Parse, and render: the work of a comment, for a thread. Raises BadInput for what is empty or names nobody's id,
    TooLarge, also for what is made of it, and LimitExceeded for too many mentions."""
    if not markdown.strip():
        raise BadInput("The comment is empty.", field=field)
    if len(markdown) > MOST_CHARACTERS:
        raise TooLarge(
            f"The comment has {len(markdown):,} characters; at most {MOST_CHARACTERS:,} are taken.", field=field
        )
    if "\0" in markdown:
        raise BadInput("The comment holds a NUL character, which cannot be stored.", field=field)
    tokens = _MARKDOWN.parse(markdown)
    if not Written(markdown, (), tokens, "").plain({}):
        raise BadInput("Nothing of this comment can be read: write some words.", field=field)
    mentions: dict[UUID, None] = {}
    for token in _mentions_in(tokens):
        mentions[decode("usr", token.meta["user"], field=field)] = None
    if len(mentions) > MOST_MENTIONS:
        raise LimitExceeded(
            f"The comment mentions {len(mentions)} people; at most {MOST_MENTIONS} can be told by one.", field=field
        )
    return Written(markdown, tuple(mentions), tokens, _no_larger(_rendered(tokens), field=field))


def _rendered(tokens: Sequence[Token]) -> str:
    return nh3.clean(
        _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}),
        tags=set(_TAGS),
        attributes=_ATTRIBUTES,
        attribute_filter=_only_languages,
        url_schemes=set(_SCHEMES),
        url_relative="deny",
        link_rel="noopener noreferrer nofollow",
    ).strip()


def _no_larger(html: str, *, field: str = "text") -> str:
    size = len(html.encode())
    if size > MOST_HTML_BYTES:
        raise TooLarge(
            f"As HTML, the comment has {size:,} bytes; at most {MOST_HTML_BYTES:,} are taken. Use fewer marks, or "
            "smaller tables.",
            field=field,
        )
    return html


def _mentions_in(tokens: Sequence[Token]) -> list[Token]:
    return [child for token in tokens for child in token.children or () if child.type == "mention"]


def _plain(token: Token, names: Mapping[UUID, str]) -> str:
    if token.type in ("softbreak", "hardbreak"):
        return "\n"
    if token.type == "mention":
        return f"@{_name(token, names)}"
    return token.content


def _name(token: Token, names: Mapping[UUID, str]) -> str:
    return names.get(decode("usr", token.meta["user"]), token.content)


def _mention(state: StateInline, silent: bool) -> bool:
    """A rule of the parser: a mention, at the place where it stands."""
    found = _MENTION.match(state.src, state.pos)
    if found is None:
        return False
    if not silent:
        token = state.push("mention", "span", 0)
        token.content, token.meta = found[1], {"user": found[2]}
    state.pos = found.end()
    return True


def _render_mention(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    mention = tokens[index]
    return _MENTION_HTML.format(mention.meta["user"], escapeHtml(mention.content))


def _only_languages(tag: str, attribute: str, value: str) -> str | None:
    if attribute == "class":
        return value if _LANGUAGE.fullmatch(value) else None
    return value


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False, "maxNesting": _MOST_LEVELS})
    parser.enable(["table", "strikethrough"])
    parser.disable(["image", "html_block", "html_inline"])
    # Links to nowhere else but the web and mail; a path would lead into whatever page shows the comment.
    parser.validateLink = lambda url: bool(_LINK.match(url))  # type: ignore[method-assign]
    parser.inline.ruler.before("link", "mention", _mention)
    parser.add_render_rule("mention", _render_mention)
    return parser


_MARKDOWN: Any = _parser()
