"""What `dataset:` of a study's file may name."""

from pathlib import Path
from typing import Any

import pytest

from model.errors import InputError
from service.commands.spec_file import HubData, open_document
from studies.wire.sources import HubDataset


def test_a_data_set_of_the_hub_is_asked_for_with_the_studys_task(tmp_path: Path) -> None:
    dataset = {"hub": "org/name", "revision": "v1", "options": {"text": "sentence"}}
    document = {"name": "moods", "dataset": dataset, "task": "multi_label"}
    opened = open_document(document, tmp_path)
    options = {"task": "multi_label", "text": "sentence"}
    assert opened.data == HubData(HubDataset(hub="org/name", revision="v1", options=options))
    assert opened.spec("d1").dataset == "d1"


@pytest.mark.parametrize(
    ("dataset", "code", "where"),
    [
        ({"hub": "a b"}, "invalid_value", ("dataset", "hub")),
        ({"hub": "a/b", "revisoin": "v1"}, "unknown_field", ("dataset", "revisoin")),
        ({"hub": "a/b", "train": "t.csv"}, "unknown_field", ("dataset", "train")),
        ({"hub": "a/b", "splits": {"trian": "x"}}, "invalid_value", ("dataset", "splits", "trian")),
    ],
)
def test_what_is_no_data_set_of_a_hub_is_refused_before_a_server_is_asked(
    tmp_path: Path, dataset: dict[str, Any], code: str, where: tuple[str, ...]
) -> None:
    with pytest.raises(InputError) as refused:
        open_document({"name": "moods", "dataset": dataset}, tmp_path)
    assert (refused.value.code, refused.value.where[: len(where)]) == (code, where)
