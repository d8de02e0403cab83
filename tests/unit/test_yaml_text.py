"""YAML documents know their lines, and a key stands once."""

import pytest

from model.errors import InputError
from studies.yaml_text import read_yaml, read_yaml_documents


def test_documents_are_divided_and_empty_ones_left_out() -> None:
    found = read_yaml_documents("a: 5e-5\n---\n---\n# nothing\n---\nb: {c: [1, 2]}\n")
    assert [document.data for document in found] == [{"a": 5e-5}, {"b": {"c": [1, 2]}}]
    assert [document.line for document in found] == [1, 6]


def test_a_part_is_found_by_its_line_and_an_absent_one_by_what_is_around_it() -> None:
    [document] = read_yaml_documents(
        "name: a\nstudy:\n  budget:\n    n_trials: 1\n  x:\n  - 1\n  - 2\n"
    )
    assert document.line_of(("study", "budget", "n_trials")) == 4
    assert document.line_of(("study", "x", 1)) == 7
    assert document.line_of(("study", "budget", "absent")) == 3
    assert document.line_of(("absent",)) == 1


@pytest.mark.parametrize(
    ("text", "where", "detail"),
    [
        ("a: 1\nb: 2\na: 3\n", ("line 3",), "a stands here and in line 1"),
        ("s:\n  a: 1\n  a: 1\n", ("line 3",), "a stands here and in line 2"),
        ("a: 1\n---\nb: 1\n", ("line 3",), "A second document begins"),
        ("a: 2031-02-30\n", (), "day is out of range"),
        ("[" * 5000, (), "Nested too deeply"),
        ("a: 1\nb: [\n", ("line 3",), "Not YAML"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(text: str, where: tuple[str, ...], detail: str) -> None:
    with pytest.raises(InputError, match=detail) as caught:
        read_yaml(text)
    assert (caught.value.code, caught.value.where) == ("invalid_yaml", where)


def test_a_merged_mapping_may_be_overridden_and_references_may_meet_again() -> None:
    text = "base: &b {x: 1, y: 2}\none:\n  <<: *b\n  x: 3\ntwo: *b\n"
    assert read_yaml(text)["one"] == {"x": 3, "y": 2}
