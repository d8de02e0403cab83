"""A study is refused for what its model cannot do, before any trial runs."""

from typing import Any

import pytest

from model.errors import InputError
from studies.model_limits import check_model_limits
from studies.resolution import ResolvedStudy, resolve
from studies.spec import StudySpec


def resolved(**spec: Any) -> ResolvedStudy:
    document = StudySpec.model_validate({"name": "tickets", "dataset": "tickets"} | spec)
    return resolve(document, task="single_label", max_positions=512)


LAYERS = {"freeze_layers": {"type": "int", "low": 0, "high": 3}}
DECAY = {"layer_decay": {"type": "categorical", "choices": [1.0, 0.9]}}


@pytest.mark.parametrize(
    ("spec", "model_type", "where"),
    [
        ({"training": {"freeze_layers": 3}}, "bert", ("training", "freeze_layers")),
        ({"search_space": LAYERS}, "bert", ("search_space", "freeze_layers", "high")),
        ({"search_space": DECAY}, "albert", ("search_space", "layer_decay", "choices", 1)),
        ({"training": {"layer_decay": 0.9}}, "albert", ("training", "layer_decay")),
    ],
)
def test_what_the_model_cannot_do_is_named(
    spec: dict[str, Any], model_type: str, where: tuple[str | int, ...]
) -> None:
    with pytest.raises(InputError) as raised:
        check_model_limits(resolved(**spec), model_type=model_type, layers=2)
    assert (raised.value.code, raised.value.where) == ("invalid_value", where)


def test_what_it_can_do_passes() -> None:
    check_model_limits(resolved(), model_type="albert", layers=2)
    check_model_limits(resolved(search_space=LAYERS | DECAY), model_type="bert", layers=3)


def test_steps_stated_alone_have_as_many_epochs_as_they_need() -> None:
    assert resolved(training={"max_steps": 500}).training["epochs"] == 1000
    both = resolved(training={"max_steps": 500, "epochs": 2})
    assert (both.training["epochs"], both.training["max_steps"]) == (2, 500)
    searched = {"max_steps": {"type": "int", "low": 10, "high": 90}}
    assert resolved(search_space=searched).training["epochs"] == 1000


def test_hyperband_must_know_how_long_a_run_is() -> None:
    steps, pruner = {"max_steps": 500}, {"name": "hyperband"}
    with pytest.raises(InputError, match="max_resource or epochs") as raised:
        resolved(training=steps, pruner=pruner)
    assert raised.value.where == ("pruner", "max_resource")
    resolved(training=steps | {"epochs": 9}, pruner=pruner)
    resolved(training=steps, pruner=pruner | {"max_resource": 5})
