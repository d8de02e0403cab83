"""A confusion matrix drawn in a terminal: rows are true labels, columns predictions.

Many classes are folded to those that are confused most, so that it fits any width, and the pairs
confused most are listed of all; without colours, or in a file, the numbers alone still say
everything.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from service.terminal.views import plain
from studies.wire.trials import ConfusionAnswer

MAX_CLASSES = 12
LABEL_WIDTH = 24
MIN_LABEL_WIDTH = 8
SHADES = (0.05, 0.2, 0.4, 0.6, 0.8)
"""Row shares at which a cell takes the next darker colour."""
RIGHT_STYLES = ("", "on #e2f2e4", "on #b9dfbf", "on #86c48f", "on #4fa35c", "on #2c7d3b")
WRONG_STYLES = ("", "on #fbe7e4", "on #f6c9c2", "on #ec9d91", "on #dd6b5b", "on #b93b2a")


MAX_PAIRS = 5
"""Pairs listed below a matrix that was folded."""


@dataclass(frozen=True, slots=True)
class Drawing:
    view: RenderableType
    width: int
    """Columns that it takes at most."""


@dataclass(frozen=True, slots=True)
class Folded:
    """The classes shown, and the rest summed up in a last row and column."""

    labels: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]
    folded: int
    """How many classes the last row and column stand for; 0 when there is no such row."""


def fold(labels: Sequence[str], matrix: Sequence[Sequence[int]], keep: int) -> Folded:
    """Keep the ``keep`` classes with the most confusions, in their order; sum up the others.

    A class's confusions are the counts off the diagonal in its row and its column. Ties go to the
    earlier class. The sum of all cells stays what it was.
    """
    size = len(labels)
    if size <= keep:
        return Folded(tuple(labels), tuple(tuple(row) for row in matrix), 0)
    wrong = [sum(matrix[i]) + sum(row[i] for row in matrix) - 2 * matrix[i][i] for i in range(size)]
    kept = sorted(sorted(range(size), key=lambda i: -wrong[i])[:keep])
    group_of = dict.fromkeys(range(size), keep) | {index: at for at, index in enumerate(kept)}
    cells = [[0] * (keep + 1) for _ in range(keep + 1)]
    for i, row in enumerate(matrix):
        for j, count in enumerate(row):
            cells[group_of[i]][group_of[j]] += count
    rest = size - keep
    name = f"+ {rest} more {'class' if rest == 1 else 'classes'}"
    return Folded((*(labels[i] for i in kept), name), tuple(tuple(row) for row in cells), rest)


def draw_confusion(confusion: ConfusionAnswer, width: int, classes: int | None = None) -> Drawing:
    """The matrix with this many ``classes``, however wide; without, folded as far as a terminal of
    ``width`` columns needs."""
    if classes is None:
        return Drawing(confusion_view(confusion, width), width)
    drawn = fold(confusion.labels, confusion.matrix, classes)
    table = _table(drawn, LABEL_WIDTH, numbered=False)
    numbered = _width(table) > width
    if numbered:
        table = _table(drawn, LABEL_WIDTH, numbered=True)
    view = Group(_title(confusion), table, *_notes(confusion, drawn, numbered))
    return Drawing(view, max(width, _width(table)))


def confusion_view(confusion: ConfusionAnswer, width: int) -> RenderableType:
    """The matrix for a terminal of ``width`` columns, folded as far as that needs."""
    keep = min(MAX_CLASSES, len(confusion.labels))
    label_width = min(LABEL_WIDTH, max(MIN_LABEL_WIDTH, width // 3))
    drawn = fold(confusion.labels, confusion.matrix, keep)
    table = _table(drawn, label_width, numbered=False)
    numbered = _width(table) > width
    while numbered:
        table = _table(drawn, label_width, numbered=True)
        if keep == 1 or _width(table) <= width:
            break
        keep -= 1
        drawn = fold(confusion.labels, confusion.matrix, keep)
    return Group(_title(confusion), table, *_notes(confusion, drawn, numbered))


def most_confused(
    labels: Sequence[str], matrix: Sequence[Sequence[int]], most: int = MAX_PAIRS
) -> list[tuple[str, str, int, int]]:
    """``(true, predicted, count, rows of the true label)`` of the largest cells off the diagonal;
    ties go to the earlier labels."""
    wrong = [
        (-count, i, j)
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return [(labels[i], labels[j], -count, sum(matrix[i])) for count, i, j in sorted(wrong)[:most]]


def _title(confusion: ConfusionAnswer) -> Text:
    right = sum(row[i] for i, row in enumerate(confusion.matrix))
    share = f", {right / confusion.rows:.1%} right" if confusion.rows else ""
    return Text(
        f"{confusion.split}, {confusion.kind}: {confusion.rows} {confusion.unit}{share}",
        style="bold",
    )


def _table(drawn: Folded, label_width: int, *, numbered: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 0, 0, 1))
    table.add_column("true \\ predicted", max_width=label_width, no_wrap=True)
    for index, label in enumerate(drawn.labels):
        header = Text(str(index + 1)) if numbered else plain(label)
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("recall", justify="right", no_wrap=True)
    for index, (label, row) in enumerate(zip(drawn.labels, drawn.matrix, strict=True)):
        name = Text.assemble(f"{index + 1} " if numbered else "", plain(label))
        cells = [_cell(count, sum(row), right=index == at) for at, count in enumerate(row)]
        if drawn.folded and index == len(drawn.labels) - 1:
            # Classes summed up hide their confusions with each other: neither right nor wrong.
            cells[index] = Text(str(row[index]), style="dim")
            table.add_row(name, *cells, "")
        else:
            table.add_row(name, *cells, f"{row[index] / sum(row):.0%}" if sum(row) else "–")
    return table


def _cell(count: int, total: int, *, right: bool) -> Text:
    if count == 0:
        return Text("·", style="dim")
    level = sum(count / total >= shade for shade in SHADES)
    style = (RIGHT_STYLES if right else WRONG_STYLES)[level]
    ink = ("black" if level < 4 else "white") if level else ""
    return Text(str(count), style=f"{ink} {style}".strip())


def _notes(confusion: ConfusionAnswer, drawn: Folded, numbered: bool) -> list[RenderableType]:
    notes = ["rows are true labels, columns predictions"]
    if numbered:
        notes.append("columns carry the numbers of the rows")
    if drawn.folded:
        notes.append("the classes confused most are shown; --classes N or --all shows more")
    caption = Text("\n".join(notes), style="dim")
    pairs = most_confused(confusion.labels, confusion.matrix) if drawn.folded else []
    if not pairs:
        return [caption]
    listed = Table.grid(padding=(0, 1))
    listed.add_column(justify="right", no_wrap=True)
    listed.add_column(overflow="fold")
    for true, predicted, count, rows in pairs:
        listed.add_row(f"{count} of {rows}", Text.assemble(plain(true), " → ", plain(predicted)))
    return [caption, "", Text("confused most, of all classes:", style="bold"), listed]


def _width(table: Table) -> int:
    """Columns of a terminal that the table takes when nothing is cut."""
    return Console(width=10_000).measure(table).maximum
