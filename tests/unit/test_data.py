import codecs
import contextlib
import dataclasses
import encodings.aliases
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model import normalised_file, rows, sources
from model.config import DataOptions, Split
from model.data import fingerprint, normalise
from model.data_warnings import data_warnings
from model.dataset_summary import DataSummary
from model.errors import InputError
from model.lines import check_encoding, read_lines
from model.normalised_file import read_examples

FOUR_ROWS = "text,label\nthe app hangs,bug\nplease add dark mode,wish\nit crashed,bug\nhi,wish\n"


def write(folder: Path, content: str | bytes, name: str = "train.csv") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def summarise(
    folder: Path,
    content: str | bytes,
    options: DataOptions | None = None,
    *,
    name: str = "train.csv",
    **others: str,
) -> DataSummary:
    files: dict[Split, Path] = {"train": write(folder, content, name)}
    splits: tuple[Split, ...] = ("validation", "test")
    for split in splits:
        if split in others:
            files[split] = write(folder, others[split], f"{split}.csv")
    return normalise(files, options or DataOptions(), folder / "out")


def refusal(
    folder: Path,
    content: str | bytes,
    options: DataOptions | None = None,
    *,
    name: str = "train.csv",
    **others: str,
) -> InputError:
    with pytest.raises(InputError) as caught:
        summarise(folder, content, options, name=name, **others)
    assert not (folder / "out").exists(), "an error left files behind"
    assert [path for path in folder.iterdir() if path.is_dir()] == []
    return caught.value


def test_a_csv_becomes_a_parquet_file_of_numbered_rows(tmp_path: Path) -> None:
    summary = summarise(tmp_path, FOUR_ROWS)
    table = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert table[1] == {"row": 2, "text_a": "please add dark mode", "text_b": None, "label": "wish"}
    assert [row["row"] for row in table] == [1, 2, 3, 4]
    assert summary.task == "single_label"
    assert summary.columns == {"text_a": "text", "text_b": None, "label": "label"}
    assert summary.labels == ("bug", "wish")
    assert summary.label_counts == {"train": {"bug": 2, "wish": 2}}


def test_the_summary_states_the_hash_and_size_of_each_file_and_is_plain_json(
    tmp_path: Path,
) -> None:
    summary = summarise(tmp_path, FOUR_ROWS, test="text,label\nit hangs,bug\n")
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        content = (tmp_path / "out" / f"{split}.parquet").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        assert summary.files[split] == {"sha256": digest, "bytes": len(content)}
    assert json.loads(json.dumps(dataclasses.asdict(summary)))["rows"] == {"train": 4, "test": 1}


def test_equal_rows_give_equal_bytes_whatever_format_they_came_in(tmp_path: Path) -> None:
    records = [{"text": f'text {i} “ü”, "x"\n', "label": str(i % 3)} for i in range(60)]
    escaped = (record["text"].replace('"', '""') for record in records)
    csv_rows = [f'"{text}",{r["label"]}' for text, r in zip(escaped, records, strict=True)]
    numeric = [record | {"label": int(record["label"])} for record in records]
    floats = pa.array([float(record["label"]) for record in records])
    table = pa.table({"text": [r["text"] for r in records], "label": floats})
    pq.write_table(table, tmp_path / "train.parquet")
    files = {
        "csv": write(tmp_path, "text,label\n" + "\n".join(csv_rows), "train.csv"),
        "tsv": write(
            tmp_path, "text\tlabel\n" + "\n".join(csv_rows).replace('",', '"\t'), "train.tsv"
        ),
        "jsonl": write(tmp_path, "\n".join(map(json.dumps, numeric)), "train.jsonl"),
        "again": tmp_path / "train.csv",
        "parquet": tmp_path / "train.parquet",
    }
    hashes = {
        name: normalise({"train": path}, DataOptions(), tmp_path / name).files["train"]["sha256"]
        for name, path in files.items()
    }
    assert len(set(hashes.values())) == 1, hashes


def test_content_decides_where_row_groups_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(normalised_file, "_CHUNK_ROWS", 3)
    monkeypatch.setattr(normalised_file, "_CHUNK_CHARS", 1000)
    long = "x" * 1000
    lines = "".join(f"{text},{k % 2}\n" for k, text in enumerate(["a", "b", "c", long, "e", "f"]))
    summarise(tmp_path, "text,label\n" + lines)
    with pq.ParquetFile(tmp_path / "out" / "train.parquet") as file:
        sizes = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
        assert sizes == [3, 1, 2]
        assert file.read()["text_a"].to_pylist() == ["a", "b", "c", long, "e", "f"]


def test_line_ends_inside_quotes_belong_to_the_text_and_crlf_and_a_mark_do_not(
    tmp_path: Path,
) -> None:
    content = '\ufefftext,label\r\n"two\r\nlines",a\r\n\r\nplain,b\r\nmore,a\r\nmore,b\r\n'
    summarise(tmp_path, content)
    examples = read_examples(tmp_path / "out" / "train.parquet")
    assert examples.text_a == ["two\nlines", "plain", "more", "more"]
    assert examples.labels == ["a", "b", "a", "b"]


def test_a_field_of_several_megabytes_is_kept_whole(tmp_path: Path) -> None:
    long = "word " * 600_000
    summary = summarise(tmp_path, f"text,label\n{long},a\nb,b\nc,a\nd,b\n")
    assert summary.words["max"] == 600_000
    assert read_examples(tmp_path / "out" / "train.parquet").text_a[0] == long


def test_pairs_are_read_from_text_a_and_text_b(tmp_path: Path) -> None:
    summary = summarise(tmp_path, "label,text_b,text_a\nyes,B,A\nno,D,C\nyes,F,E\nno,H,G\n")
    examples = read_examples(tmp_path / "out" / "train.parquet")
    assert (examples.text_a, examples.text_b) == (["A", "C", "E", "G"], ["B", "D", "F", "H"])
    assert summary.columns["text_b"] == "text_b"


STRAY = (
    'text\tlabel\n"bad quote starts\ta\nsecond row ends"\tb\nhe said "no" to it\ta\n"whole"\tb\n'
)


def test_quotes_are_characters_like_any_other_where_the_options_say_so(tmp_path: Path) -> None:
    none = DataOptions(quoting="none", validation_fraction=0.5)
    summarise(tmp_path, STRAY, none, name="train.tsv")
    rows = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert [(row["row"], row["text_a"], row["label"]) for row in rows] == [
        (1, '"bad quote starts', "a"),
        (2, 'second row ends"', "b"),
        (3, 'he said "no" to it', "a"),
        (4, '"whole"', "b"),
    ]
    error = refusal(tmp_path / "none", 'text,label\n"a,b",x\n', none, name="train.csv")
    assert (error.code, error.where) == ("bad_row", ("train", "line 2"))


def test_rows_that_stray_quotes_seem_to_have_merged_are_told_with_the_first_line(
    tmp_path: Path,
) -> None:
    more = STRAY + "plain\ta\n" + '"two\nlines"\tb\n' + STRAY.partition("\n")[2].replace("s", "z")
    summary = summarise(tmp_path, more, name="train.tsv")
    assert summary.merged == {"train": {"rows": 2, "line": 2}}
    told = data_warnings(dataclasses.asdict(summary), task="single_label", keeps=False)
    assert any("2 rows of train" in said and "at line 2;" in said for said in told)
    none = DataOptions(quoting="none", validation_fraction=0.5)
    assert summarise(tmp_path, STRAY, none, name="train.tsv").merged == {}
    mails = 'text,label\n"Hello,\nbye",a\n"Dear,\nbye",b\nx,a\ny,b\n'
    assert summarise(tmp_path, mails).merged == {}


def test_how_quotes_are_read_is_no_part_of_the_id(tmp_path: Path) -> None:
    none = DataOptions(quoting="none")
    plain = fingerprint(summarise(tmp_path, FOUR_ROWS), DataOptions())
    assert fingerprint(summarise(tmp_path, FOUR_ROWS, none), none) == plain


def test_other_column_names_a_delimiter_and_an_encoding_go_through_options(tmp_path: Path) -> None:
    content = "id;Betreff;Klasse\n1;Größe;ä\n2;Maß;ö\n3;Fuß;ä\n4;Öl;ö\n".encode("cp1252")
    options = DataOptions(text="Betreff", label="Klasse", delimiter=";", encoding="cp1252")
    summary = summarise(tmp_path, content, options)
    assert summary.columns == {"text_a": "Betreff", "text_b": None, "label": "Klasse"}
    assert summary.labels == ("ä", "ö")


def test_a_stated_format_wins_over_the_ending(tmp_path: Path) -> None:
    summary = summarise(tmp_path, FOUR_ROWS, DataOptions(format="csv"), name="upload-7")
    assert summary.rows == {"train": 4}


def test_labels_are_stripped_and_numbers_become_their_usual_text(tmp_path: Path) -> None:
    labels = [" a ", "a", 1, 1.0, "1", 2.5, True]
    lines = [json.dumps({"text": f"t{k}", "label": label}) for k, label in enumerate(labels)]
    summary = summarise(tmp_path, "\n".join(lines), name="train.jsonl")
    assert summary.label_counts["train"] == {"1": 3, "2.5": 1, "a": 2, "true": 1}


def test_rows_with_missing_values_are_dropped_and_counted_and_keep_their_numbers(
    tmp_path: Path,
) -> None:
    summary = summarise(tmp_path, "text,label\na,x\n  ,x\nb,\nc,y\n,\nd,x\ne,y\n")
    examples = read_examples(tmp_path / "out" / "train.parquet")
    assert examples.rows.tolist() == [1, 4, 6, 7]
    assert summary.missing == {"train": {"text": 2, "label": 2}}
    assert summary.rows == {"train": 4}


def test_a_first_record_may_lack_what_later_ones_have(tmp_path: Path) -> None:
    """Many writers of JSON leave out what is null."""
    records: list[dict[str, Any]] = [{"title": "first"}]
    records += [{"title": f"title {k}", "label": "xy"[k % 2]} for k in range(8)]
    records[3]["tags"] = {"area": "app"}
    options = DataOptions(template="[{tags.area}] {title}", missing="empty")
    lines = "\n".join(map(json.dumps, records))
    summary = summarise(tmp_path, lines, options, name="train.jsonl")
    assert summary.missing["train"] == {"field": 8, "label": 1, "text": 0}
    examples = read_examples(tmp_path / "out" / "train.parquet")
    assert examples.text_a[:3] == ["[] title 0", "[] title 1", "[app] title 2"]


def test_policy_empty_keeps_rows_without_text_but_never_without_label(tmp_path: Path) -> None:
    lines = [
        {"text_a": None, "text_b": "b", "label": "x"},
        {"text_b": "b", "label": "y"},
        {"text_a": "a", "text_b": "b", "label": None},
        {"text_a": "a", "text_b": " ", "label": "x"},
        {"text_a": "a", "text_b": "b", "label": "y"},
    ]
    content = "\n".join(map(json.dumps, lines))
    summary = summarise(tmp_path, content, DataOptions(missing="empty"), name="train.jsonl")
    examples = read_examples(tmp_path / "out" / "train.parquet")
    assert examples.text_a == ["", "", "a", "a"]
    assert examples.text_b == ["b", "b", "", "b"]
    assert summary.missing == {"train": {"text": 3, "label": 1}}


def test_policy_error_names_the_line_and_what_is_missing(tmp_path: Path) -> None:
    error = refusal(tmp_path, "text,label\na,x\n,y\n", DataOptions(missing="error"))
    assert (error.code, error.where) == ("missing_value", ("train", "line 3"))
    assert "no text" in error.detail
    error = refusal(tmp_path, "text,label\na,x\nb,\n", DataOptions(missing="error"))
    assert "no label" in error.detail


def test_duplicates_overlap_and_word_counts_are_counted_by_hand(tmp_path: Path) -> None:
    texts = ["one", "one two", "one", "one", "a b c d e"]
    train = "text,label\n" + "".join(f"{text},{k % 2}\n" for k, text in enumerate(texts))
    summary = summarise(
        tmp_path,
        train,
        validation="text,label\none,0\none,1\nnew,0\n",
        test="text,label\nnew,1\n",
    )
    assert summary.duplicates == {"train": 2, "validation": 1, "test": 0}
    assert summary.overlap == {"validation": 2, "test": 0}
    assert summary.test_in_validation == 1
    assert summary.dropped == {"train": {"held_out": 3}, "validation": {}, "test": {}}
    assert summary.words == {"p50": 2, "p90": 5, "p95": 5, "p99": 5, "max": 5}


def test_white_space_makes_no_other_text(tmp_path: Path) -> None:
    """BERT's own tokenizer does not tell them apart either."""
    train = 'text,label\none two,0\n" one  two",0\n"one\ttwo ",1\nonetwo,1\nthree,1\n'
    summary = summarise(tmp_path, train, validation="text,label\nthree ,1\nnew,0\n")
    assert summary.duplicates == {"train": 2, "validation": 0}
    assert summary.conflicts["train"] == {"texts": 1, "rows": 3, "examples": [[1, 2, 3]]}
    assert summary.overlap == {"validation": 1}
    assert summary.dropped["train"] == {"duplicate": 1, "held_out": 1}


def test_a_pair_repeats_only_when_both_texts_do(tmp_path: Path) -> None:
    content = "text_a,text_b,label\nab,c,0\na,bc,1\nab,c,1\nab,d,0\n"
    assert summarise(tmp_path, content).duplicates == {"train": 1}


def test_chosen_positions_are_read_in_their_order(tmp_path: Path) -> None:
    summarise(tmp_path, FOUR_ROWS)
    path = tmp_path / "out" / "train.parquet"
    examples = read_examples(path, np.array([2, 0], dtype=np.int64))
    assert examples.text_a == ["it crashed", "the app hangs"]
    assert examples.text_b is None
    assert examples.rows.tolist() == [3, 1]
    assert read_examples(path, np.array([], dtype=np.int64)).labels == []
    for position in (4, -1):
        with pytest.raises(IndexError, match="4 rows"):
            read_examples(path, np.array([position], dtype=np.int64))


def test_the_id_of_a_data_set_follows_its_rows_and_its_held_out_shares(tmp_path: Path) -> None:
    summary = summarise(tmp_path, FOUR_ROWS)
    plain = fingerprint(summary, DataOptions())
    assert len(plain) == 16
    assert plain == fingerprint(summary, DataOptions(text="text"))
    assert plain != fingerprint(summary, DataOptions(validation_fraction=0.5))
    other = normalise(
        {"train": write(tmp_path, FOUR_ROWS + "ho,bug\n")}, DataOptions(), tmp_path / "other"
    )
    assert plain != fingerprint(other, DataOptions())


def test_an_error_leaves_an_older_result_untouched(tmp_path: Path) -> None:
    summarise(tmp_path, FOUR_ROWS)
    before = (tmp_path / "out" / "train.parquet").read_bytes()
    with pytest.raises(InputError):
        summarise(tmp_path, FOUR_ROWS + "broken\n")
    assert (tmp_path / "out" / "train.parquet").read_bytes() == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train.parquet"]


@pytest.mark.parametrize(
    ("content", "code", "place"),
    [
        ("", "empty_file", None),
        ("\n\r\n", "empty_file", None),
        ("text,label\n", "no_rows", None),
        ("text,label\n,a\nb,\n", "no_rows", None),
        ("text,label\na,x\nb,x\n", "one_class", None),
        ("text,label\na,x\nb,y\n", "too_few_rows", None),
        ("text,label\na,x\nb,y,z\n", "bad_row", "line 3"),
        ('text,label\n"a\nb",x\nc\n', "bad_row", "line 4"),
        ('text,label\na,x\n"never closed,y\nc,x\n', "bad_row", "line 3"),
        ('text,label\na,x\n"closed" early,y\n', "bad_row", "line 3"),
        (b"text,label\na,x\n\nb\xe9,y\n", "not_utf8", "line 4"),
        (b"text,label\r\na,x\r\n\xc3", "not_utf8", "line 3"),
        (b"text,label\na,x\nb\0,y\n", "nul_byte", "line 3"),
        ("text,label\nab,x\nab,y\n".encode("utf-16"), "not_utf8", "line 1"),
        ("text,label,label\na,x,y\n", "duplicate_column", "header"),
        ("text,labels\na,\nb,\n", "one_class", None),
        ("text,labels\na,x|y\nb,∅|y\n", "bad_label", "line 3"),
        (f"text,label\na,{'y' * 201}\n", "bad_label", "line 2"),
    ],
)
def test_a_bad_csv_is_refused_by_name_and_place(
    tmp_path: Path, content: str | bytes, code: str, place: str | None
) -> None:
    error = refusal(tmp_path, content)
    assert error.code == code, error.detail
    assert error.where == (("train",) if place is None else ("train", place))


@pytest.mark.parametrize(
    ("content", "code", "place"),
    [
        ("\n \n", "empty_file", None),
        ('{"text": "a", "label": "x"}\n{"text": "b",\n', "bad_json", "line 2"),
        ('{"text": "a", "label": NaN}\n', "bad_json", "line 1"),
        ('\n["a", "x"]\n', "bad_json", "line 2"),
        ('{"text": "a", "label": "x", "label": "y"}\n', "duplicate_column", "line 1"),
        ('{"text": "a", "label": "x"}\n{"text": ["b"], "label": "y"}\n', "bad_row", "line 2"),
        ('{"text": "a", "label": ["x", "y"]}\n', "bad_row", "line 1"),
        ('{"text": "\\u0000", "label": "x"}\n', "nul_byte", "line 1"),
        ('{"text": "\\ud800", "label": "x"}\n', "bad_row", "line 1"),
        ('{"text": "a", "label": "\\ud800"}\n', "bad_row", "line 1"),
        (
            '{"text_a": "a", "label": "x"}\n{"text_a": "a", "text_b": "b", "label": "y"}\n',
            "bad_row",
            "line 2",
        ),
        ("[" * 200_000, "bad_json", "line 1"),
    ],
)
def test_a_bad_jsonl_is_refused_by_name_and_place(
    tmp_path: Path, content: str, code: str, place: str | None
) -> None:
    error = refusal(tmp_path, content, name="train.jsonl")
    assert error.code == code, error.detail
    assert error.where == (("train",) if place is None else ("train", place))


def test_a_missing_column_error_lists_the_columns_there_are(tmp_path: Path) -> None:
    error = refusal(tmp_path, "body,label\na,x\n")
    assert (error.code, error.where) == ("missing_column", ("options", "text"))
    assert "'body', 'label'" in error.detail
    error = refusal(tmp_path, "text,class\na,x\n", DataOptions(label="category"))
    assert (error.code, error.where) == ("missing_column", ("options", "label"))
    assert "'category'" in error.detail
    error = refusal(tmp_path, "text;label\na;x\n")
    assert "options.delimiter" in error.detail


def test_every_file_must_have_the_columns_of_the_train_file(tmp_path: Path) -> None:
    error = refusal(tmp_path, FOUR_ROWS, validation="text,class\na,bug\n")
    assert error.code == "missing_column"
    assert "validation" in error.detail
    error = refusal(tmp_path, FOUR_ROWS, test="text,text,label\na,b,bug\n")
    assert (error.code, error.where) == ("duplicate_column", ("test", "header"))


def test_a_held_out_label_that_train_lacks_is_named_with_its_line(tmp_path: Path) -> None:
    error = refusal(tmp_path, FOUR_ROWS, test="text,label\na,bug\nb,praise\n")
    assert (error.code, error.where) == ("unseen_label", ("test", "line 3"))
    assert "'praise'" in error.detail


def test_a_label_column_with_too_many_values_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_CLASSES", 3)
    content = "text,label\na,1\nb,2\nc,3\nd,3\n"
    assert len(summarise(tmp_path, content + "e,2\nf,1\n").labels) == 3
    with pytest.raises(InputError, match="4th different label") as caught:
        summarise(tmp_path, content + "e,4\n")
    assert (caught.value.code, caught.value.where) == ("too_many_classes", ("train", "line 6"))


@pytest.mark.parametrize(
    ("options", "code", "field"),
    [
        (DataOptions(encoding="utf-9"), "unknown_encoding", "encoding"),
        (DataOptions(encoding="hex"), "unknown_encoding", "encoding"),
        (DataOptions(encoding="IDNA"), "unknown_encoding", "encoding"),
        (DataOptions(encoding="unicode_escape"), "unknown_encoding", "encoding"),
        (DataOptions(delimiter="||"), "invalid_value", "delimiter"),
        (DataOptions(validation_fraction=1.0), "invalid_value", "validation_fraction"),
        (DataOptions(test_fraction=-0.1), "invalid_value", "test_fraction"),
        (DataOptions(test_fraction=0.9), "invalid_value", "validation_fraction"),
    ],
)
def test_a_bad_option_is_named(tmp_path: Path, options: DataOptions, code: str, field: str) -> None:
    error = refusal(tmp_path, FOUR_ROWS, options)
    assert (error.code, error.where) == (code, ("options", field))


def test_one_column_cannot_be_both_text_and_label(tmp_path: Path) -> None:
    assert refusal(tmp_path, FOUR_ROWS, DataOptions(label="text")).code == "invalid_value"


def test_a_stated_encoding_that_does_not_fit_names_the_line(tmp_path: Path) -> None:
    error = refusal(tmp_path, "text,label\na,x\né,y\n", DataOptions(encoding="ascii"))
    assert (error.code, error.where) == ("wrong_encoding", ("train", "line 3"))
    error = refusal(tmp_path, "text,label\na,x\n", DataOptions(encoding="utf-16"))
    assert error.code == "wrong_encoding"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-be"])
def test_byte_order_marks_before_the_first_line_are_no_text(tmp_path: Path, encoding: str) -> None:
    json_lines = "".join(f'{{"text": "text {k}", "label": "{"ab"[k % 2]}"}}\n' for k in range(4))
    for marks in ("\ufeff", "\ufeff\ufeff"):
        for name, content in (("train.csv", FOUR_ROWS), ("train.jsonl", json_lines)):
            options = DataOptions(encoding=encoding)
            summary = summarise(tmp_path, (marks + content).encode(encoding), options, name=name)
            assert (summary.rows, summary.repaired) == ({"train": 4}, {"train": {}})
    assert refusal_of_marks_alone(tmp_path, encoding) == "empty_file"


def refusal_of_marks_alone(folder: Path, encoding: str) -> str:
    path = write(folder, "\ufeff\ufeff".encode(encoding))
    with pytest.raises(InputError) as caught:
        normalise({"train": path}, DataOptions(encoding=encoding), folder / "none")
    return caught.value.code


@pytest.mark.parametrize(
    ("written", "stated", "advice"),
    [
        ("utf-16", "utf-8", "to utf-16."),
        ("utf-32", "utf-8", "to utf-32."),
        ("utf-8-sig", "utf-16", "to utf-8."),
        ("utf-16", "ascii", "to utf-16."),
        ("latin-1", "utf-8", "(latin-1 and cp1252 are common)."),
        ("latin-1", "ascii", "; check options.encoding."),
    ],
)
def test_the_mark_of_a_file_in_another_encoding_tells_which_one_to_state(
    tmp_path: Path, written: str, stated: str, advice: str
) -> None:
    content = FOUR_ROWS.replace("crashed", "cr\xe4shed").encode(written)
    error = refusal(tmp_path, content, DataOptions(encoding=stated))
    assert error.detail.endswith(advice)


def test_a_bad_byte_after_a_fitting_mark_is_no_other_encoding(tmp_path: Path) -> None:
    error = refusal(tmp_path, codecs.BOM_UTF8 + b"text,label\n\xe9,x\n")
    assert error.detail.endswith("(latin-1 and cp1252 are common).")


def test_no_encoding_that_python_has_fails_but_by_name(tmp_path: Path) -> None:
    names = {*encodings.aliases.aliases.values(), "idna", "punycode", "undefined", "utf_8_sig"}
    path = tmp_path / "train.csv"
    for name in sorted(names):
        for content in (b"text\xe9\n", b"\xff\xfe", b"\\d\\N{x\n", b"\n+AGE\n\xff", b"xn--\xe9-\n"):
            path.write_bytes(content)
            with contextlib.suppress(InputError):
                check_encoding(name)
                list(read_lines(path, "train", name, newline=""))


def test_an_unknown_ending_a_missing_file_and_a_missing_train_split_are_refused(
    tmp_path: Path,
) -> None:
    assert refusal(tmp_path, FOUR_ROWS, name="train.xlsx").code == "unknown_format"
    with pytest.raises(InputError) as caught:
        normalise({"train": tmp_path / "none.csv"}, DataOptions(), tmp_path / "out")
    assert caught.value.code == "no_file"
    with pytest.raises(InputError) as caught:
        normalise({"test": write(tmp_path, FOUR_ROWS)}, DataOptions(), tmp_path / "out")
    assert caught.value.code == "missing_split"


def test_broken_parquet_files_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, b"PAR1 nothing", name="train.parquet").code == "bad_parquet"
    pq.write_table(pa.table({"text": ["a"], "label": [["x"]]}), tmp_path / "lists.parquet")
    with pytest.raises(InputError) as caught:
        normalise({"train": tmp_path / "lists.parquet"}, DataOptions(), tmp_path / "out")
    assert (caught.value.code, caught.value.where) == ("bad_row", ("train", "row 1"))
    empty = pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())})
    pq.write_table(empty, tmp_path / "none.parquet")
    with pytest.raises(InputError) as caught:
        normalise({"train": tmp_path / "none.parquet"}, DataOptions(), tmp_path / "out")
    assert caught.value.code == "no_rows"


def test_parquet_is_read_in_batches_with_running_row_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_BATCH_ROWS", 2)
    table = pa.table({"label": [1, 2, None, 1, 2], "text": list("abcde")})
    pq.write_table(table, tmp_path / "train.parquet")
    normalise({"train": tmp_path / "train.parquet"}, DataOptions(), tmp_path / "out")
    examples = read_examples(tmp_path / "out" / "train.parquet")
    assert examples.rows.tolist() == [1, 2, 4, 5]
    assert examples.labels == ["1", "2", "1", "2"]


def test_no_validation_share_and_no_validation_file_leaves_nothing_to_choose_by(
    tmp_path: Path,
) -> None:
    options = DataOptions(validation_fraction=0.0, duplicates="keep")
    assert refusal(tmp_path, FOUR_ROWS, options).code == "too_few_rows"
    assert summarise(tmp_path, FOUR_ROWS, options, validation=FOUR_ROWS).overlap == {
        "validation": 4
    }
