"""Whatever bytes and options come, the reader refuses by name or keeps its promises."""

import contextlib
import csv
import dataclasses
import io
import json
import tempfile
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.config import (
    TASKS,
    DataOptions,
    DuplicatePolicy,
    MissingPolicy,
    Quoting,
    Split,
    Task,
    UnseenPolicy,
)
from model.data import fingerprint, normalise
from model.data_warnings import data_warnings, rows_read
from model.division import divide_train, wanted_fractions
from model.errors import InputError
from model.labels.readers import texts_reader
from model.normalised_file import read_examples
from model.splits import SplitRows, split_positions
from model.texts_file import read_texts_file

COLUMNS = ("text", "label", "who", "when", "meta")
CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(["a", "b", "a", "b", "1", "1.0", "O", "B-x I-x", "a|b", " ", "\ufeffa", "Ã¼"]),
    st.sampled_from(["\ud800 a", '"a', 'a"', "a\tb"]),
)
DEEP = {f"{depth} deep": "[" * depth + "1" + "]" * depth for depth in (9, 300, 700, 900, 3000)}
"""JSON by a name that stands for it, as the encoder would not write the deepest."""
DATES = st.one_of(
    CELLS,
    st.sampled_from(["2026-03-29", "2026-03-29T02:30:00", "2026-01-01T00:00:00+14:00", "20260101"]),
)
META = st.one_of(CELLS, st.sampled_from(['{"from": {"name": "x"}}', "{", *DEEP.values()]))
ENCODINGS = ("utf-8", "latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-7", "cp037", "shift_jis",
             "idna", "punycode", "unicode_escape", "undefined", "nope")  # fmt: skip
OPTIONS = st.builds(
    DataOptions,
    text=st.sampled_from([None, "text", ("text", "who"), ("text",), (), "gone"]),
    separator=st.sampled_from([" ", "", "\0"]),
    text_columns=st.sampled_from(
        [None, None, None, ("text", "who"), ("meta", "text", "who"), ("text",), ("text", "gone")]
    ),
    template=st.sampled_from(
        [
            None,
            None,
            None,
            "[who] {who} [text] {text}",
            "{meta.from.name}: {text}",
            "{meta} {text}",
            "{",
            "{}",
            "{x}",
        ]
    ),
    label=st.sampled_from([None, "label", "who"]),
    label_separator=st.sampled_from([None, ";", " "]),
    task=st.sampled_from([None, *TASKS]),
    delimiter=st.sampled_from([None, ",", ";", "\0", "||", " "]),
    quoting=st.sampled_from(get_args(Quoting)),
    encoding=st.sampled_from(ENCODINGS),
    normalise=st.booleans(),
    missing=st.sampled_from(get_args(MissingPolicy)),
    duplicates=st.sampled_from(get_args(DuplicatePolicy)),
    unseen=st.sampled_from(get_args(UnseenPolicy)),
    group=st.sampled_from([None, None, "who", "gone"]),
    date=st.sampled_from([None, None, "when", "gone"]),
    date_format=st.sampled_from([None, None, "unix", "unix_ms", "%d.%m.%Y", "%Y %Y", "%"]),
    timezone=st.sampled_from(["UTC", "Europe/Berlin", "Moon/Base", "../x", "\0"]),
    validation_fraction=st.sampled_from([0.15, 0.5, 0.0, 1.5, float("nan")]),
    test_fraction=st.sampled_from([0.0, 0.3]),
)
PLAIN = st.builds(
    DataOptions,
    text_columns=st.sampled_from([None, ("text", "who"), ("who", "text", "when")]),
    normalise=st.booleans(),
    missing=st.sampled_from(["drop", "empty", "token"]),
    duplicates=st.sampled_from(get_args(DuplicatePolicy)),
    unseen=st.just("drop"),
    group=st.sampled_from([None, "who"]),
    date=st.none(),
    validation_fraction=st.sampled_from([0.15, 0.5]),
    test_fraction=st.sampled_from([0.0, 0.3]),
)
ROWS = st.lists(st.tuples(CELLS, CELLS, CELLS, DATES, META), max_size=8)
JSON_ROWS = st.lists(
    st.dictionaries(
        st.sampled_from(COLUMNS),
        st.recursive(
            CELLS | st.sampled_from(sorted(DEEP)),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(st.text(max_size=2), inner, max_size=2)
            ),
            max_leaves=4,
        ),
    ),
    max_size=8,
)
any_input = settings(max_examples=120, deadline=None)


def read(content: bytes, ending: str, options: DataOptions, **others: bytes) -> Any:
    """Read in a folder that must hold nothing else afterwards; None when it was refused."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files: dict[Split, Path] = {"train": folder / f"train.{ending}"}
        files["train"].write_bytes(content)
        for split, other in others.items():
            files[split] = folder / f"{split}.{ending}"  # type: ignore[index]
            files[split].write_bytes(other)  # type: ignore[index]
        read_texts_alone(files["train"], options)
        refusal = None
        try:
            summary = normalise(files, options, folder / "out")
        except InputError as error:
            refusal = error
        if refusal is not None:
            check_refusal(refusal)
            assert {path.name for path in folder.iterdir()} == {f.name for f in files.values()}
            return None
        assert {path.name for path in (folder / "out").iterdir()} == {
            f"{split}.parquet" for split in files
        }
        json.dumps(dataclasses.asdict(summary)).encode()
        keeps = options.duplicates == "keep"
        "".join(data_warnings(dataclasses.asdict(summary), task=summary.task, keeps=keeps)).encode()
        assert len(fingerprint(summary, options)) == 16
        path = folder / "out" / "train.parquet"
        assert summary.rows["train"] == len(read_examples(path).rows)
        rows = None
        wanted = wanted_fractions(options, files)
        if wanted.validation_fraction or wanted.test_fraction:
            with contextlib.suppress(
                InputError
            ):  # a seed may leave a split none where groups are few
                rows = divide_train(
                    path, summary.task, wanted, seed=1, repeated_texts=summary.repeated_texts > 0
                )
        if rows is not None:
            check_division(path, rows, options)
        return summary


def read_texts_alone(path: Path, options: DataOptions) -> None:
    """As `predict` reads a file: what comes out can be written, in as many rows of each column."""
    tasks: tuple[Task, ...] = ("single_label", "token")
    for task in tasks:
        try:
            columns = read_texts_file(path, options, texts_reader(task))
        except InputError as error:
            check_refusal(error)
            continue
        assert len({len(texts) for texts in columns}) == 1
        for text in (text for texts in columns for text in texts):
            assert b"\0" not in text.encode()


def check_refusal(refusal: InputError) -> None:
    assert refusal.code
    assert refusal.detail.encode()
    assert refusal.where


def check_division(path: Path, rows: SplitRows, options: DataOptions) -> None:
    """No row twice; no text and no group in two splits, as far as the options promise it."""
    table = pq.read_table(path).to_pylist()
    parts = [[table[k] for k in positions.tolist()] for positions in split_positions(rows)]
    numbers = [row["row"] for part in parts for row in part]
    assert len(set(numbers)) == len(numbers) <= len(table)
    texts = [
        {(row["text_a"], row["text_b"], *row.get("more", ())) for row in part} for part in parts
    ]
    if options.duplicates == "drop":
        assert not texts[0] & (texts[1] | texts[2])
    if options.group is None and options.date is None:
        assert len(numbers) == len(table)
        assert not texts[0] & texts[1] | texts[0] & texts[2] | texts[1] & texts[2]
    if "group" in table[0]:
        groups = [{row["group"] for row in part} for part in parts]
        assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    if "date" in table[0]:
        dates = [[row["date"] for row in part] for part in parts]
        for before, after in ((0, 1), (1, 2), (0, 2)):
            if dates[before] and dates[after]:
                assert max(dates[before]) < min(dates[after])


def as_csv(rows: list[Any], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([COLUMNS, *rows])
    return text.getvalue().encode("utf-8", "surrogatepass")


@any_input
@given(content=st.binary(max_size=60), ending=st.sampled_from(["csv", "jsonl"]), options=OPTIONS)
@example(content=b"text,label\n\xff", ending="csv", options=DataOptions())
def test_no_bytes_make_it_fail_but_by_name(
    content: bytes, ending: str, options: DataOptions
) -> None:
    read(content, ending, options)
    read(b"text,label,who,when,meta\n" + content, ending, options)


@any_input
@given(
    text=st.text(alphabet=st.characters() | st.sampled_from('\ufeff\n\t,"'), max_size=40),
    written=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]),
    ending=st.sampled_from(["csv", "tsv", "jsonl"]),
    options=OPTIONS,
)
def test_no_encoding_of_a_file_makes_it_fail_but_by_name(
    text: str, written: str, ending: str, options: DataOptions
) -> None:
    header = "\t".join(COLUMNS) if ending == "tsv" else ",".join(COLUMNS)
    for start in ("", "\ufeff", "\ufeff\ufeff"):
        content = f"{start}{header}\n{text}".encode(written, "surrogatepass")
        read(content, ending, options)
        read(content, ending, dataclasses.replace(options, encoding=written))


@any_input
@given(rows=ROWS, others=ROWS, options=OPTIONS)
def test_no_csv_and_no_options_make_it_fail_but_by_name(
    rows: list[Any], others: list[Any], options: DataOptions
) -> None:
    options = dataclasses.replace(options, encoding="utf-8")
    content = as_csv(rows, options.delimiter if options.delimiter in (";", " ") else ",")
    read(content, "csv", options)
    read(content, "csv", options, test=as_csv(others))


@any_input
@given(rows=JSON_ROWS, options=OPTIONS, deep=st.sampled_from(sorted(DEEP)))
def test_no_jsonl_and_no_options_make_it_fail_but_by_name(
    rows: list[Any], options: DataOptions, deep: str
) -> None:
    options = dataclasses.replace(options, encoding="utf-8")
    read(as_jsonl(rows), "jsonl", options)
    rows = [{"text": "a", "label": "b", "meta": deep}, *rows]
    read(as_jsonl(rows), "jsonl", DataOptions(template="{meta} {text}", missing=options.missing))


def as_jsonl(rows: list[Any]) -> bytes:
    content = "\n".join(map(json.dumps, rows))
    for name, deep in DEEP.items():
        content = content.replace(json.dumps(name), deep)
    return content.encode()


COLUMN_TYPES = st.sampled_from(
    [pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.large_string(), pa.binary(),
     pa.timestamp("ns"), pa.timestamp("us", tz="Europe/Berlin"), pa.date32(), pa.time64("ns"),
     pa.duration("ns"), pa.decimal128(30, 3), pa.list_(pa.string()),
     pa.struct([("from", pa.string())]), pa.dictionary(pa.int8(), pa.string()), pa.null()]
)  # fmt: skip


@any_input
@given(data=st.data(), options=OPTIONS, count=st.integers(0, 6))
def test_no_parquet_and_no_options_make_it_fail_but_by_name(
    data: st.DataObject, options: DataOptions, count: int
) -> None:
    arrays = {}
    for name in COLUMNS:
        kind = data.draw(COLUMN_TYPES)
        numbers = data.draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
        arrays[name] = pa.array([_value(kind, number) for number in numbers], kind)
    buffer = io.BytesIO()
    pq.write_table(pa.table(arrays), buffer)
    read(buffer.getvalue(), "parquet", options)


def _value(kind: pa.DataType, number: int) -> Any:
    if number == 0 or pa.types.is_null(kind):
        return None
    if pa.types.is_temporal(kind) or pa.types.is_integer(kind):
        return number * 1001
    if pa.types.is_list(kind):
        return ["a"] * number
    if pa.types.is_struct(kind):
        return {"from": str(number)}
    if pa.types.is_boolean(kind):
        return number % 2 == 0
    if pa.types.is_binary(kind):
        return b"\xff" * number
    if pa.types.is_floating(kind):
        return [0.0, 1.0, 2.5, float("nan"), float("inf"), 1e300][number]
    if pa.types.is_decimal(kind):
        return number
    return f"{number % 3}"


@any_input
@given(cut=st.integers(0, 600), byte=st.integers(0, 255), whole=st.booleans())
def test_no_broken_parquet_makes_it_fail_but_by_name(cut: int, byte: int, whole: bool) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["a", "b", "c", "d"], "label": [0, 1, 0, 1]}), buffer)
    content = bytearray(buffer.getvalue())
    cut %= len(content)
    content[cut] = byte
    read(bytes(content if whole else content[:cut]), "parquet", DataOptions())


GOOD = st.lists(
    st.tuples(
        st.sampled_from(["one", "two", "three", "four", "five six", "", "Ã¼", "a\r\nb"]),
        st.sampled_from(["x", "y", "z", ""]),
        st.sampled_from(["ann", "bob", "cid", "dan", "eve", ""]),
        st.just("2026-01-01"),
        st.just(""),
    ),
    min_size=8,
    max_size=30,
)


@any_input
@given(rows=GOOD, others=GOOD, options=PLAIN)
def test_every_row_of_a_file_is_kept_or_counted_as_dropped(
    rows: list[Any], others: list[Any], options: DataOptions
) -> None:
    for more in ({}, {"test": others}):
        files = {split: as_csv(records) for split, records in more.items()}
        summary = read(as_csv(rows), "csv", options, **files)
        if summary is not None:
            facts = dataclasses.asdict(summary)
            for split, records in {"train": rows, **more}.items():
                assert rows_read(facts, split) == len(records)
            if options.duplicates == "drop":
                kept = summary.conflicts["train"]["rows"] - summary.conflicts["train"]["texts"]
                assert summary.repeated_texts <= kept
