"""Rows as they leave a source turned into the rows a model may see, or refused by name."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from model.cells import Where, as_text, at, half_a_pair
from model.columns import Columns
from model.config import DataOptions, Split
from model.dates import DateReader
from model.errors import InputError
from model.labels.label_reader import LabelReader
from model.numeric_labels import many_numbers
from model.sources import Source
from model.split_tally import SplitTally
from model.text_repair import TextRepair

MAX_CLASSES = 2000
"""A label column with more different values is the wrong column."""
MAX_LABEL_CHARS = 200


class Row(NamedTuple):
    """One normalised row; ``row`` is its 1-based number among the source's data rows."""

    row: int
    text_a: str
    text_b: str | None
    label: str
    """In the canonical form of the task's `LabelReader`."""
    group: int | None = None
    """A hash: equal for equal groups, and tells nobody who they are."""
    date: int | None = None
    """Microseconds since 1970, UTC."""
    more: tuple[str, ...] = ()
    """The third text and those after it, of a data set with so many text columns."""

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text_a, *(() if self.text_b is None else (self.text_b,)), *self.more)


@dataclass(frozen=True, slots=True)
class RowReader:
    """Reads the rows of each file of a data set in the same way."""

    columns: Columns
    labels: LabelReader
    options: DataOptions
    dates: DateReader
    _repair: TextRepair = field(default_factory=TextRepair)

    def rows(
        self, source: Source, split: Split, tally: SplitTally, known_labels: frozenset[str] | None
    ) -> Iterator[Row]:
        """Yield the rows to keep; count them, and what was found in them, in ``tally``.

        ``known_labels`` are those of train, None while train itself is read. Raises `InputError`
        ``missing_value``, ``unseen_label``, ``bad_label``, ``too_many_classes``, ``bad_row``,
        ``bad_date``, ``bad_json`` or ``nul_byte``, and what the task's reader raises.
        """
        names = tuple(self.columns.wanted(split, source.columns()))
        for number, (place, values) in enumerate(source.rows(names), 1):
            where = (split, f"{source.unit} {place}")
            if source.seems_merged(values):
                tally.merged.append(place)
            try:
                row = self._read(number, dict(zip(names, values, strict=True)), where, tally)
                if row is None or not self._known(row.label, where, tally, known_labels):
                    continue
                tally.add(row.row, row.texts, row.label, row.group, row.date)
            except UnicodeEncodeError as error:
                raise half_a_pair(where) from error
            self.labels.count(tally, row.label)
            yield row

    def _read(
        self, number: int, values: Mapping[str, object], where: Where, tally: SplitTally
    ) -> Row | None:
        """None where a value is missing and its row is dropped."""
        texts, field_missing = self._texts(values, where)
        label = self.labels.label(self._label_cells(values), where)
        tally.repaired.update(self._repair.take_found())
        columns, split = self.columns, where[0]
        group = None if columns.group is None else _group(values.get(columns.group), where)
        needs_date = columns.date is not None and split == "train"
        date = None if columns.date is None else self.dates.read(values.get(columns.date), where)
        lacks = {
            "text": not all(texts),
            "label": label is None,
            "group": columns.group is not None and split == "train" and group is None,
            "date": needs_date and date is None,
        }
        tally.missing.update(what for what, missing in lacks.items() if missing)
        if len(texts) > 1:
            tally.missing_texts.update(k for k, text in enumerate(texts) if not text)
        tally.missing["label"] += label == ""  # of several labels none may be meant: counted, kept
        tally.missing["field"] += field_missing and not lacks["text"]
        if any(lacks.values()):
            self._check_allowed(lacks, texts, where)
            if label is None or any(lacks[what] for what in ("group", "date")) or self._drops_texts:
                tally.dropped["missing"] += 1
                return None
            texts = [text or self.options.placeholder or "" for text in texts]
        assert label is not None
        self.labels.check(texts, label, where)
        second = texts[1] if len(texts) > 1 else None
        return Row(number, texts[0], second, label, group, date, tuple(texts[2:]))

    @property
    def _drops_texts(self) -> bool:
        return self.options.missing in ("drop", "error")

    def _check_allowed(self, lacks: Mapping[str, bool], texts: Sequence[str], where: Where) -> None:
        if self.options.missing != "error":
            return
        what = next(what for what in ("label", "text", "group", "date") if lacks[what])
        if what == "text" and len(texts) > 1:
            what += f" in {self.columns.texts[[bool(text) for text in texts].index(False)].shown!r}"
        detail = f"{at(where)} has no {what}. Fill it, or set options.missing to drop such rows."
        raise InputError("missing_value", detail, where)

    def _texts(self, values: Mapping[str, object], where: Where) -> tuple[list[str], bool]:
        """The repaired texts, "" where one is missing; and whether a field of one is."""
        placeholder = self.options.placeholder
        cells: list[object] = []
        field_missing = False
        for recipe in self.columns.texts:
            if recipe.plain:
                cells.append(values[recipe.columns[0]])
            else:
                text, missing = recipe.text(values, where, placeholder)
                cells.append(text)
                field_missing |= missing
        texts = self.labels.texts(cells, where)
        if self.options.normalise:
            texts = [self.labels.repaired(text, self._repair.repair) for text in texts]
            texts = ["" if text.isspace() else text for text in texts]
        return texts, field_missing

    def _label_cells(self, values: Mapping[str, object]) -> object:
        """What the reader of labels takes: a cell, or one by each head."""
        separator = self.options.label_separator
        if self.columns.label is not None:
            return self._label_cell(values[self.columns.label], separator)
        return {
            head: self._label_cell(
                values[column], separator if self.labels.heads[head] == "multi_label" else None
            )
            for head, column in self.columns.heads.items()
        }

    def _label_cell(self, cell: object, separator: str | None) -> object:
        """The cell repaired, and cut where the options state what stands between labels."""
        if self.options.normalise:
            if isinstance(cell, str):
                cell = self._repair.repair(cell)
            elif isinstance(cell, list | tuple):
                cell = [self._repair.repair(x) if isinstance(x, str) else x for x in cell]
        return cell.split(separator) if separator and isinstance(cell, str) else cell

    def _known(
        self, label: str, where: Where, tally: SplitTally, known_labels: frozenset[str] | None
    ) -> bool:
        """Whether the row stays. Raises `InputError` for a class that cannot be one."""
        for name in self.labels.classes_in(label):
            if name in tally.labels:
                continue
            if known_labels is not None and name not in known_labels:
                if self.options.unseen == "drop":
                    tally.dropped["unseen_label"] += 1
                    return False
                raise _unseen_label(name, where)
            _check_class(name, where, tally)
        return True


def _group(cell: object, where: Where) -> int | None:
    text = as_text(cell, where).strip()
    if not text:
        return None
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _unseen_label(label: str, where: Where) -> InputError:
    detail = (
        f"{at(where)} has the label {label[:80]!r}, which no train row has, so no model can learn "
        "it. Add rows of it to train, or set options.unseen to drop."
    )
    return InputError("unseen_label", detail, where)


def _check_class(label: str, where: Where, tally: SplitTally) -> None:
    if len(label) > MAX_LABEL_CHARS:
        length = len(label)
        detail = f"{at(where)} has a label of {length} characters, more than {MAX_LABEL_CHARS}"
        raise InputError("bad_label", detail + _column_hint(tally), where)
    if len(tally.labels) == MAX_CLASSES:
        detail = f"{at(where)} has the {MAX_CLASSES + 1}th different label"
        raise InputError("too_many_classes", detail + _column_hint(tally), where)


def _column_hint(tally: SplitTally) -> str:
    hint = "; is this the label column? Name it in options.label."
    if many_numbers(tally.labels):
        hint += " They are numbers: to predict a number, set options.task to regression."
    return hint
