"""Comments: what Markdown gives, what is harmless in it, and whom it mentions."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadInput, LimitExceeded, TooLarge
from core.ids import encode, new_id
from services.annotations import markdown
from services.annotations.markdown import MOST_CHARACTERS, MOST_HTML_BYTES, MOST_MENTIONS, read

HARMLESS = frozenset(
    {"a", "blockquote", "br", "code", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s"}
    | {"span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"}
)
MARKS = "<|>|script|[x](|javascript:|https://e.example|)|`|\"|'|onload=|&#|58;|*|---|@[x](usr_|!|data:|>|-|\\|[ref]:|<!--|]]>|é|🙂"


class Look(HTMLParser):
    """Finds whatever a browser could act on."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in HARMLESS:
            self.found.append(tag)
        for name, value in attrs:
            if tag == "a" and name == "href":
                if not re.match(r"(https?://|mailto:)", value or "", re.IGNORECASE):
                    self.found.append(f"href={value}")
            elif (tag, name) not in {("a", "title"), ("a", "rel"), ("ol", "start"), ("span", "data-user-id")} and not (
                (tag, name) == ("code", "class") and re.fullmatch(r"language-[\w+#.-]+", value or "")
            ):
                self.found.append(f"{tag} {name}={value}")

    def handle_comment(self, data: str) -> None:
        self.found.append("comment")

    def handle_decl(self, decl: str) -> None:
        self.found.append("declaration")


def shown(text: str) -> str:
    try:
        html = read(text).html({})
    except BadInput:
        return ""
    assert Look(html).found == [], html
    return html


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
        "<img src=x onerror=alert(1)>",
        "<svg/onload=alert(1)>",
        "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
        "<a href='javascript:alert(1)'>x</a>",
        "<!-- <script>alert(1)</script> -->",
        "<![CDATA[<script>alert(1)</script>]]>",
        "<style>*{display:none}</style>",
        "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
        "<details open ontoggle=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](java&#115;cript:alert(1))",
        "[x](java&Tab;script:alert(1))",
        "[x](<java\nscript:alert(1)>)",
        "[x](&#x6A;avascript:alert(1))",
        "[x](vbscript:msgbox(1))",
        "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
        "[x](data:image/svg+xml,<svg onload=alert(1)>)",
        "[x](file:///etc/passwd)",
        "[x](//evil.example)",
        "[x](/relative)",
        "[x](#anchor)",
        "<javascript:alert(1)>",
        "![x](https://evil.example/pixel.png)",
        "![x](javascript:alert(1))",
        "![x][ref]\n\n[ref]: data:image/png;base64,AAAA",
        "[x][ref]\n\n[ref]: javascript:alert(1) 'title'",
        "[x](https://e.example 'a\" onmouseover=\"alert(1)')",
        '[x](https://e.example/"onmouseover=alert(1))',
        "[x](https://e.example/<script>)",
        '```js" onload="alert(1)\nx\n```',
        "```<script>\nx\n```",
        "``` language-x onclick\nx\n```",
        "`<script>alert(1)</script>`",
        "    <script>alert(1)</script>",
        "| <script> | b |\n|---|---|\n| <img src=x onerror=alert(1)> | [x](javascript:1) |",
        "# <script>alert(1)</script>",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "&#60;script&#62;",
        "\\<script>",
        "<scr<script>ipt>alert(1)</scr</script>ipt>",
        "@[<script>alert(1)</script>](usr_01m84yacwrezq9epvt8spm23ex)",
        "<span data-user-id='usr_x' onclick=alert(1)>@Admin</span>",
        "\u202e<script>\u202c",
        "x" * 5000 + "<script>",
        ">" * 3000 + " <script>",
        "- " * 3000 + "<script>",
        "[" * 5000,
        "![" * 2500,
        "*a " * 3000,
        "[a](" * 2500,
        "<" * 5000,
        "|a" * 1500 + "\n" + "|-" * 1500,
    ],
)
def test_what_could_do_harm_does_none(text: str) -> None:
    assert "<script" not in shown(text).lower()


@given(
    st.lists(
        st.sampled_from([*MARKS.split("|"), "|", " ", "    ", "\n", "- ", "> "]),
        max_size=40,
    ).map("".join)
)
def test_no_mixture_of_marks_does_harm(text: str) -> None:
    shown(text)


def test_links_lead_away_without_a_way_back() -> None:
    html = shown("[x](https://e.example/?a=1&b=2) <https://f.example> and mailto <mailto:a@e.example>")
    assert html.count('rel="noopener noreferrer nofollow"') == 3
    assert 'href="https://e.example/?a=1&amp;b=2"' in html
    assert shown("plain https://e.example stays text") == "<p>plain https://e.example stays text</p>"


def test_markdown_gives_what_people_expect() -> None:
    html = shown("# T\n\n**b** *i* ~~s~~ `c`\n\n1. one\n2. two\n\n```python\nx < 1\n```\n\n|a|\n|-|\n|b|\n\n> q")
    for piece in (
        "<h1>T</h1>",
        "<strong>b</strong> <em>i</em> <s>s</s> <code>c</code>",
        "<ol>\n<li>one</li>",
        '<pre><code class="language-python">x &lt; 1\n</code></pre>',
        "<th>a</th>",
        "<td>b</td>",
        "<blockquote>\n<p>q</p>\n</blockquote>",
    ):
        assert piece in html


def test_plain_text_has_the_words_alone() -> None:
    text = (
        "# Title\n\nSome **bold** [link](https://e.example)\nnext\n\n- `code`\n\n```\nblock\n```\n\n|a|b|\n|-|-|\n|c|d|"
    )
    assert read(text).plain({}) == "Title\nSome bold link\nnext\ncode\nblock\na\nb\nc\nd"


def test_mentions_are_read_once_each_and_not_in_code() -> None:
    one, two = new_id(), new_id()
    a, b = encode("usr", one), encode("usr", two)
    other = encode("usr", new_id())
    text = f"@[x]({b}) **@[y]({a})** @[x]({b}) `@[z]({other})` \\@[z]({other}) a@[q]({a})"
    written = read(text)
    assert written.mentions == (two, one)
    html = written.html({one: "Ada <b>", two: "Bo"})
    assert f'<span data-user-id="{a}">@Ada &lt;b&gt;</span>' in html
    assert Look(html).found == []
    assert written.plain({one: "Ada", two: "Bo"}).startswith("@Bo @Ada @Bo @[z](")


def test_names_go_to_mentions_alone_and_nothing_is_rendered_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    one = new_id()
    span = f'<span data-user-id="{encode("usr", one)}">@x</span>'
    written = read(f"{span} `{span}` [a](https://e.example '{span}') @[x & <y>]({encode('usr', one)})")
    # With the session held, it is too late for that.
    monkeypatch.delattr(markdown, "nh3")
    monkeypatch.delattr(markdown, "_MARKDOWN")
    html = written.html({one: "Ada & <b>"})
    assert html.count("Ada &amp; &lt;b&gt;") == html.count("<span") == 1
    assert Look(html).found == []
    assert "@x &amp; &lt;y&gt;</span>" in written.html({}), "whoever has no name keeps the one that was written"


def test_a_short_comment_that_becomes_much_html_is_refused() -> None:
    cells = "|a" * 500 + "|\n" + "|-" * 500 + "|\n"
    assert len(read(cells + "a\n" * 5).html({})) < MOST_HTML_BYTES == 200_000
    with pytest.raises(TooLarge, match="As HTML"):
        read(cells + "a\n" * 1000)
    one = new_id()
    written = read(f"@[x]({encode('usr', one)}) " * 500)
    with pytest.raises(TooLarge, match="As HTML"):
        written.html({one: "é" * 200})


def test_what_cannot_be_a_comment_is_refused() -> None:
    for text in ("", " \n\t", "---", "[a]: https://e.example", "a\0", "@[x](usr_nothing)"):
        with pytest.raises(BadInput):
            read(text)
    with pytest.raises(TooLarge):
        read("x" * (MOST_CHARACTERS + 1))
    crowd = " ".join(f"@[x]({encode('usr', new_id())})" for _ in range(MOST_MENTIONS + 1))
    with pytest.raises(LimitExceeded):
        read(crowd)
    assert len(read("x" * MOST_CHARACTERS).html({})) == MOST_CHARACTERS + 7
