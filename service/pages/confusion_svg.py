"""A confusion matrix drawn as an SVG image: rows are true labels, columns predictions.

Right cells are blue and wrong ones orange, both darker with their share of the row, so that a
rare class's confusions show as well as a common one's. One file, no script, no outside font.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

Matrix = Sequence[Sequence[int]]

FONT = "font-family='system-ui, sans-serif'"
PAPER, INK, FAINT, GRID = "#ffffff", "#1f2933", "#616e7c", "#e4e7eb"
RIGHT = ((222, 235, 247), (8, 69, 148))
WRONG = ((254, 230, 206), (166, 54, 3))
"""Colours of the smallest and the largest share of a row."""
LABEL_CHARS = 26
DARK_SHARE = 0.5
"""From this share on, a cell's count is white."""
CHAR_WIDTH = 0.6
"""Width of a character in units of the font size, about."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Sizes in pixels for a number of classes."""

    size: int
    cell: int
    label_font: int
    left: int
    top: int

    @property
    def width(self) -> int:
        return self.left + self.size * self.cell + 64

    @property
    def height(self) -> int:
        return self.top + self.size * self.cell + 64


def confusion_svg(labels: Sequence[str], matrix: Matrix, *, title: str, unit: str = "rows") -> str:
    """The image as SVG text; ``matrix`` is square, in the order of ``labels``, of ``unit``s.

    Counts stand in the cells where they fit; every cell above zero also has a tooltip.
    """
    layout = _layout(labels)
    parts = [
        _head(layout, title, matrix, unit),
        *_axes(layout),
        *(_row(layout, labels, matrix[index], index) for index in range(layout.size)),
        *(_column_label(layout, label, index) for index, label in enumerate(labels)),
        _legend(layout),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _layout(labels: Sequence[str]) -> _Layout:
    size = len(labels)
    cell = 46 if size <= 12 else 30 if size <= 30 else 18 if size <= 60 else 13
    label_font = 13 if size <= 30 else 11 if size <= 60 else 10
    longest = max((len(_short(label)) for label in labels), default=0)
    room = round(longest * label_font * CHAR_WIDTH)
    return _Layout(size, cell, label_font, left=room + 44, top=room + 84)


def _head(layout: _Layout, title: str, matrix: Matrix, unit: str) -> str:
    total = sum(map(sum, matrix))
    right = sum(row[index] for index, row in enumerate(matrix))
    share = f" ({right / total:.1%})" if total else ""
    summary = f"{total:,} {unit}, {right:,}{share} right"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' role='img' aria-labelledby='title desc' "
        f"width='{layout.width}' height='{layout.height}' "
        f"viewBox='0 0 {layout.width} {layout.height}' {FONT}>\n"
        f"<title id='title'>{_xml(title)}</title>\n"
        f"<desc id='desc'>Confusion matrix of {layout.size} classes; rows are true labels, "
        f"columns are predictions; {summary}.</desc>\n"
        f"<rect width='100%' height='100%' fill='{PAPER}'/>\n"
        f"<text x='16' y='26' font-size='16' font-weight='600' fill='{INK}'>{_xml(title)}</text>\n"
        f"<text x='16' y='46' font-size='13' fill='{FAINT}'>{summary}</text>"
    )


def _axes(layout: _Layout) -> list[str]:
    middle = layout.size * layout.cell / 2
    x, y = layout.left + middle, layout.top + middle
    style = f"font-size='12' fill='{FAINT}' text-anchor='middle'"
    side = layout.size * layout.cell
    recall_x = layout.left + side + 30
    return [
        f"<text x='{x:g}' y='66' {style}>predicted</text>",
        f"<text transform='translate(18 {y:g}) rotate(-90)' {style}>true</text>",
        f"<text x='{recall_x}' y='{layout.top - 8}' {style}>recall</text>",
        f"<rect x='{layout.left}' y='{layout.top}' width='{side}' height='{side}' "
        f"fill='none' stroke='{GRID}'/>",
    ]


def _row(layout: _Layout, labels: Sequence[str], counts: Sequence[int], index: int) -> str:
    total = sum(counts)
    y = layout.top + index * layout.cell
    baseline = y + layout.cell / 2 + layout.label_font * 0.35
    style = f"font-size='{layout.label_font}' fill='{INK}'"
    recall = f"{counts[index] / total:.0%}" if total else "–"
    end = layout.left + layout.size * layout.cell
    parts = [
        f"<text x='{layout.left - 8}' y='{baseline:g}' {style} text-anchor='end'>"
        f"{_label(labels[index])}</text>",
        f"<text x='{end + 30}' y='{baseline:g}' {style} text-anchor='middle'>{recall}</text>",
    ]
    for column, count in enumerate(counts):
        if count:
            tooltip = f"{labels[index]} → {labels[column]}: {count:,} ({count / total:.1%})"
            x = layout.left + column * layout.cell
            right = column == index
            parts.append(_cell(layout, x, y, count, count / total, tooltip, right=right))
    return "\n".join(parts)


def _cell(
    layout: _Layout, x: int, y: int, count: int, share: float, tooltip: str, *, right: bool
) -> str:
    size = layout.cell
    square = (
        f"<rect x='{x}' y='{y}' width='{size}' height='{size}' stroke='{PAPER}' "
        f"fill='{_colour(share, right=right)}'><title>{_xml(tooltip)}</title></rect>"
    )
    text = f"{count}"
    font = 14 if size > 40 else 10
    if size < 24 or len(text) * font * CHAR_WIDTH > size - 2:
        return square
    ink = PAPER if share >= DARK_SHARE else INK
    return square + (
        f"<text x='{x + size / 2:g}' y='{y + size / 2 + font * 0.35:g}' font-size='{font}' "
        f"fill='{ink}' text-anchor='middle' pointer-events='none'>{text}</text>"
    )


def _column_label(layout: _Layout, label: str, index: int) -> str:
    x = layout.left + (index + 0.5) * layout.cell + layout.label_font * 0.35
    return (
        f"<text transform='translate({x:g} {layout.top - 8}) rotate(-90)' "
        f"font-size='{layout.label_font}' fill='{INK}'>{_label(label)}</text>"
    )


def _legend(layout: _Layout) -> str:
    """Two rows of swatches: shares of a row from 0 to 100 %."""
    y = layout.top + layout.size * layout.cell + 18
    shares = (0.02, 0.25, 0.5, 0.75, 1.0)
    parts = []
    for line, (name, right) in enumerate((("right", True), ("wrong", False))):
        top = y + line * 18
        parts.append(
            f"<text x='{layout.left + 78}' y='{top + 10}' font-size='11' fill='{FAINT}'>{name}"
            f"{': share of the row, 0 to 100 %' if right else ''}</text>"
        )
        parts += [
            f"<rect x='{layout.left + step * 14}' y='{top}' width='14' height='12' "
            f"fill='{_colour(share, right=right)}'/>"
            for step, share in enumerate(shares)
        ]
    return "\n".join(parts)


def _colour(share: float, *, right: bool) -> str:
    # The root lifts small shares: one confusion in twenty is worth seeing.
    depth = share**0.5
    light, dark = RIGHT if right else WRONG
    mixed = (round(a + (b - a) * depth) for a, b in zip(light, dark, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _label(label: str) -> str:
    """A label's text, cut to fit; the whole one is its tooltip."""
    short = _short(label)
    whole = f"<title>{_xml(label)}</title>" if short != label else ""
    return _xml(short) + whole


def _short(label: str) -> str:
    return label if len(label) <= LABEL_CHARS else label[: LABEL_CHARS - 1] + "…"


def _xml(text: str) -> str:
    """Escaped for an element; characters that XML cannot hold become a replacement mark."""
    allowed = (
        c if c in "\t\n" or (c >= " " and c not in "\x7f\ufffe\uffff") else "�" for c in text
    )
    return escape("".join("�" if "\ud800" <= c <= "\udfff" else c for c in allowed))
