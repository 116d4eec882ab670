"""Reports as PDF: pages with text that can be selected, and charts drawn from the specifications of the dashboard."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape
from zoneinfo import ZoneInfo

import reportlab
from pypdf import PdfReader, PdfWriter, Transformation
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Flowable, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from services.reports.tables import plain

MOST_ROWS = 200
"""Of a table in a PDF: who wants all of them takes CSV."""
MARGIN = 18 * mm
_WIDTH = A4[0] - 2 * MARGIN
_TALLEST = 120 * mm
_TEXT = ParagraphStyle("text", fontName="Vera", fontSize=9, leading=12)
_TITLE = ParagraphStyle("title", parent=_TEXT, fontName="VeraBd", fontSize=18, leading=24)
_HEADING = ParagraphStyle("heading", parent=_TEXT, fontName="VeraBd", fontSize=12, leading=18, spaceBefore=8)
_CELL = ParagraphStyle("cell", parent=_TEXT, fontSize=7.5, leading=9.5)
_RIGHT = ParagraphStyle("right", parent=_CELL, alignment=2)


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a report: a heading, a chart (a PDF of one page), and a table."""

    heading: str
    text: str = ""
    chart: bytes | None = None
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """What stands at the beginning."""

    title: str
    start: datetime
    end: datetime
    zone: ZoneInfo
    made_at: datetime
    notes: Sequence[str] = field(default_factory=tuple)


def write(page: Page, sections: Sequence[Section]) -> bytes:
    """The report. Takes about 50 ms a page: call it in a thread."""
    _fonts()
    story: list[Flowable] = [
        Paragraph(_said(page.title), _TITLE),
        Paragraph(
            _said(f"{_wall(page.start, page.zone)} to {_wall(page.end, page.zone)} ({page.zone.key})"),
            _TEXT,
        ),
        *(Paragraph(_said(note), _TEXT) for note in page.notes),
        Spacer(1, 6 * mm),
    ]
    charts: list[_Chart] = []
    for section in sections:
        kept: list[Flowable] = [Paragraph(_said(section.heading), _HEADING)]
        if section.text:
            kept.append(Paragraph(_said(section.text), _TEXT))
        if section.chart is not None:
            chart = _Chart(section.chart)
            charts.append(chart)
            kept.append(chart)
        story.append(KeepTogether(kept))
        if section.columns:
            story += [Spacer(1, 2 * mm), *_table(section), Spacer(1, 6 * mm)]
    buffer = io.BytesIO()
    document = SimpleDocTemplate(
        buffer,
        pagesize=A4,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=MARGIN,
        bottomMargin=MARGIN,
        title=page.title,
        author="Quarterdeck",
        invariant=1,
    )

    def foot(canvas: Any, _: Any) -> None:
        canvas.setFont("Vera", 7)
        canvas.drawString(MARGIN, MARGIN / 2, f"Made on {_wall(page.made_at, page.zone)}")
        canvas.drawRightString(A4[0] - MARGIN, MARGIN / 2, str(canvas.getPageNumber()))

    document.build(story, onFirstPage=foot, onLaterPages=foot)
    return _with_charts(buffer.getvalue(), charts)


class _Chart(Flowable):
    """Room for a chart, which remembers where it came to stand: charts are put there once all pages are made."""

    def __init__(self, pdf: bytes) -> None:
        super().__init__()
        self.page = PdfReader(io.BytesIO(pdf)).pages[0]
        box = self.page.mediabox
        self.scale = min(_WIDTH / float(box.width), _TALLEST / float(box.height), 1.0)
        self.width, self.height = float(box.width) * self.scale, float(box.height) * self.scale
        self.place: tuple[int, float, float] | None = None

    def wrap(self, *_: Any) -> tuple[float, float]:
        return self.width, self.height

    def draw(self) -> None:
        x, y = self.canv.absolutePosition(0, 0)
        self.place = (self.canv.getPageNumber() - 1, x, y)


def _with_charts(pdf: bytes, charts: Sequence[_Chart]) -> bytes:
    if not charts:
        return pdf
    writer = PdfWriter(clone_from=io.BytesIO(pdf))
    for chart in charts:
        assert chart.place is not None
        number, x, y = chart.place
        moved = Transformation().scale(chart.scale).translate(x, y)
        writer.pages[number].merge_transformed_page(chart.page, moved)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def _table(section: Section) -> list[Flowable]:
    shown = section.rows[:MOST_ROWS]
    numeric = [any(isinstance(row[n], int | float | Decimal) for row in shown) for n in range(len(section.columns))]
    cells = [[Paragraph(_said(name), _RIGHT if numeric[n] else _CELL) for n, name in enumerate(section.columns)]]
    cells += [
        [Paragraph(_said(_shown(value)), _RIGHT if numeric[n] else _CELL) for n, value in enumerate(row)]
        for row in shown
    ]
    style = TableStyle(
        [
            ("BACKGROUND", (0, 0), (-1, 0), colors.HexColor("#eef2f6")),
            ("LINEBELOW", (0, 0), (-1, -1), 0.25, colors.HexColor("#c8d0d8")),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ]
    )
    weights = [1.0 if is_number else 2.0 for is_number in numeric]
    widths = [_WIDTH * weight / sum(weights) for weight in weights]
    found: list[Flowable] = [Table(cells, colWidths=widths, repeatRows=1, style=style)]
    if len(section.rows) > MOST_ROWS:
        found.append(Paragraph(f"And {len(section.rows) - MOST_ROWS} rows more: take CSV for all of them.", _TEXT))
    return found


def _shown(value: Any) -> str:
    match value:
        case None:
            return "-"
        case Decimal():
            return plain(value)
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.0f}"
        case _:
            return str(value)


def _said(text: str) -> str:
    """As the paragraphs' markup has it. The font knows Latin letters; for others there is a question mark."""
    face: Any = vars(pdfmetrics.getFont("Vera"))["face"]
    known = "".join(char if ord(char) in face.charToGlyph or char == "\n" else "?" for char in text)
    return escape(known)


def _wall(at: datetime, zone: ZoneInfo) -> str:
    return at.astimezone(zone).strftime("%Y-%m-%d %H:%M")


def _fonts() -> None:
    folder = Path(reportlab.__file__).parent / "fonts"
    for name in ("Vera", "VeraBd"):
        if name not in pdfmetrics.getRegisteredFontNames():
            pdfmetrics.registerFont(TTFont(name, str(folder / f"{name}.ttf")))
