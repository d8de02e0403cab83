"""Two documents are told apart field by field."""

from typing import Any

import pytest

from service.terminal.differences import difference_text, differences


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}, ["~ b.c: 2 → 3"]),
        ({"a": None}, {}, []),
        ({"b": {"c": None}}, {"b": None}, []),
        ({"b": None}, {"b": {"c": 1, "d": True}}, ["+ b.c: 1", "+ b.d: true"]),
        ({"b": {"c": 1}}, {}, ["- b.c: 1"]),
        ({"e": [1, 2]}, {"e": [1, {"x": 2.5}]}, ["~ e: [1, 2] → [1, {x: 2.5}]"]),
        ({"a": {"x": 1}}, {"a": "text"}, ["~ a: {x: 1} → text"]),
        ({"low": 1}, {"low": 1.0}, []),
        ({"z": 1, "a": 1}, {"a": 2, "z": 2}, ["~ a: 1 → 2", "~ z: 1 → 2"]),
    ],
)
def test_each_field_that_differs_is_told_once(
    old: dict[str, Any], new: dict[str, Any], said: list[str]
) -> None:
    assert [difference_text(found).plain for found in differences(old, new)] == said
