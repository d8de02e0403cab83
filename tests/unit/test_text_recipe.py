from pathlib import Path

import pytest

from model.config import DataOptions
from model.data import normalise
from model.errors import InputError
from model.normalised_file import read_examples

TICKETS = (
    '{"body": "it hangs", "priority": "high", "meta": {"sender": "ann"}, "label": "bug"}\n'
    '{"body": "thanks", "priority": null, "meta": "{\\"sender\\": \\"bob\\"}", "label": "wish"}\n'
    '{"body": "it fails", "priority": 2, "meta": {}, "label": "bug"}\n'
    '{"body": "more", "priority": "low", "meta": null, "label": "wish"}\n'
)


def texts(folder: Path, options: DataOptions, content: str = TICKETS) -> list[str]:
    path = folder / "train.jsonl"
    path.write_text(content)
    normalise({"train": path}, options, folder / "out")
    return read_examples(folder / "out" / "train.parquet").text_a


def test_a_template_joins_columns_and_looks_into_json_objects_and_texts(tmp_path: Path) -> None:
    template = "[priority] {priority} [from] {meta.sender} [text] {{{body}}}"
    assert texts(tmp_path, DataOptions(template=template)) == [
        "[priority] high [from] ann [text] {it hangs}",
        "[priority]  [from] bob [text] {thanks}",
        "[priority] 2 [from]  [text] {it fails}",
        "[priority] low [from]  [text] {more}",
    ]


def test_the_token_policy_marks_the_missing_fields_of_a_template(tmp_path: Path) -> None:
    options = DataOptions(template="{priority}: {body}", missing="token", missing_token="[none]")
    assert texts(tmp_path, options)[:2] == ["high: it hangs", "[none]: thanks"]


def test_several_columns_are_joined_and_a_missing_one_leaves_no_gap(tmp_path: Path) -> None:
    options = DataOptions(text=("priority", "body"), separator=" / ")
    assert texts(tmp_path, options)[:2] == ["high / it hangs", "thanks"]


def test_a_row_is_missing_its_text_when_every_field_is(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(TICKETS + '{"body": " ", "priority": null, "label": "bug"}\n')
    summary = normalise(
        {"train": path}, DataOptions(template="{priority}: {body}"), tmp_path / "out"
    )
    assert summary.missing == {"train": {"text": 1, "label": 0, "field": 1}}
    assert summary.dropped == {"train": {"missing": 1}}
    assert summary.columns["text_a"] == "{priority}: {body}"


@pytest.mark.parametrize(
    ("template", "code"),
    [
        ("no field", "invalid_value"),
        ("{body", "invalid_value"),
        ("{body!r}", "invalid_value"),
        ("{}", "invalid_value"),
        ("{gone}", "missing_column"),
        ("{label} {body}", "invalid_value"),
        ("{body.x}", "bad_json"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused_by_name(
    tmp_path: Path, template: str, code: str
) -> None:
    with pytest.raises(InputError) as caught:
        texts(tmp_path, DataOptions(template=template))
    assert caught.value.code == code
    assert not (tmp_path / "out").exists()


def test_json_too_deep_for_a_text_is_refused_with_its_row(tmp_path: Path) -> None:
    for depth in (700, 3000):  # of which the parser takes the first
        deep = f'{"[" * depth}"x"{"]" * depth}'
        content = TICKETS + f'{{"body": "deep", "meta": {deep}, "label": "bug"}}\n'
        with pytest.raises(InputError) as caught:
            texts(tmp_path, DataOptions(template="{body} {meta}"), content)
        assert (caught.value.code, caught.value.where) == ("bad_json", ("train", "line 5"))
