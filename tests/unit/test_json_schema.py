"""The published JSON Schemas say what the specs themselves accept, in words for people."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from model.config import RULES
from studies.json_schema import SCHEMAS, render, schedule_schema, schema_text, study_schema
from studies.preset import load_preset, preset_names
from studies.spec import StudySpec
from studies.wire.schedules import ScheduleSpec

STUDY = Draft202012Validator(study_schema())
STUDY_FILE = Draft202012Validator(json.loads(schema_text("study")))
SCHEDULE = Draft202012Validator(json.loads(schema_text("schedule")))
BARE = {"name": "a", "dataset": "b"}


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_shipped_file_is_what_the_models_say(name: str) -> None:
    assert schema_text(name) == render(SCHEMAS[name]()), "run python -m studies.json_schema"
    Draft202012Validator.check_schema(json.loads(schema_text(name)))


def properties(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        for name, field in node.get("properties", {}).items():
            yield f"{path}/{name}", field
        for name, item in node.items():
            yield from properties(item, f"{path}/{name}")
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield from properties(item, f"{path}/{index}")


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_is_described(name: str) -> None:
    fields = dict(properties(json.loads(schema_text(name))))
    assert len(fields) > 100
    assert [path for path, field in fields.items() if not field.get("description")] == []


def test_every_training_setting_can_be_completed_wherever_one_may_stand() -> None:
    schema = study_schema()
    assert set(schema["$defs"]["Settings"]["properties"]) == set(RULES)
    assert set(schema["properties"]["search_space"]["anyOf"][0]["properties"]) == set(RULES)
    assert schema == StudySpec.json_schema()


@pytest.mark.parametrize("name", preset_names())
def test_the_presets_are_valid_but_for_their_data(name: str) -> None:
    faults = [error.message for error in STUDY_FILE.iter_errors(load_preset(name))]
    assert faults == ["'dataset' is a required property"]


def test_a_file_may_name_local_data_or_a_hubs_and_the_api_takes_an_id() -> None:
    local = {**BARE, "dataset": {"train": "a.csv", "options": {"label": "topic"}}}
    hub = {**BARE, "dataset": {"hub": "org/name", "options": {"label": "topic"}}}
    assert STUDY_FILE.is_valid(local)
    assert STUDY_FILE.is_valid(hub)
    assert not STUDY.is_valid(local)
    assert not STUDY_FILE.is_valid({**BARE, "dataset": {"test": "a.csv"}})


@pytest.mark.parametrize(
    "more",
    [
        {"nmae": "b"},
        {"name": ""},
        {"name": "a [b]"},
        {"budget": {"n_trials": 0}},
        {"budget": {"trials": 1}},
        {"sampler": "magic"},
        {"sampler": {"n_startup_trials": 5}},
        {"pruner": {"name": "median", "max_resource": 3}},
        {"seed": -1},
        {"labels": {"team": 3}},
        {"search_space": {"learning_rate": {"low": 0.1, "high": 0.2}}},
        {"search_space": {"batch_size": {"type": "int", "low": 1}}},
    ],
)
def test_what_a_spec_refuses_the_schema_refuses(more: dict[str, Any]) -> None:
    document = {**BARE, **more}
    with pytest.raises(ValidationError):
        StudySpec.model_validate(document)
    assert not STUDY.is_valid(document)


@pytest.mark.parametrize(
    "more",
    [
        {"training": {"learning_rat": 1e-5}},
        {"training": {"learning_rate": 0}},
        {"training": {"epochs": None}},
        {"training": {"lr_schedule": "linaer"}},
        {"search_space": {"learning_rate": {"type": "int", "low": 1, "high": 2}}},
        {"objective": {"metric": "acuracy"}},
    ],
)
def test_the_schema_knows_settings_and_metrics_too(more: dict[str, Any]) -> None:
    assert not STUDY.is_valid({**BARE, **more})


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "learning_rate": numbers(1e-9, 1),
    "batch_size": st.integers(1, 4096),
    "max_steps": st.none() | st.integers(1, 10**9),
    "lr_schedule": st.sampled_from(["linear", "cosine", "constant"]),
    "dropout": st.none() | numbers(0, 0.9),
}
RANGES: dict[str, st.SearchStrategy[Any]] = {
    "learning_rate": st.fixed_dictionaries(
        {"type": st.just("float"), "low": numbers(1e-9, 0.1), "high": numbers(0.1, 1)},
        optional={"log": st.booleans(), "step": st.none() | numbers(1e-3, 1)},
    ),
    "batch_size": st.fixed_dictionaries(
        {"type": st.just("int"), "low": st.integers(1, 8), "high": st.integers(8, 64)}
    ),
    "epochs": st.fixed_dictionaries(
        {"type": st.just("categorical"), "choices": st.lists(st.integers(1, 9), max_size=3)}
    ),
}
DOCUMENTS = st.fixed_dictionaries(
    {"name": st.from_regex(r"\A[^\x00-\x1f\[\]\ud800-\udfff]{1,120}\Z"), "dataset": TEXT},
    optional={
        "task": st.sampled_from([None, "single_label", "token"]),
        "model": TEXT,
        "search_space": st.none() | st.fixed_dictionaries({}, optional=RANGES),
        "training": st.fixed_dictionaries({}, optional=SETTINGS),
        "objective": st.none() | st.just({"metric": "macro_f1"}),
        "sampler": st.sampled_from(["grid", {"name": "tpe", "n_startup_trials": 3}]),
        "pruner": st.sampled_from(["none", {"name": "threshold", "upper": 1.5, "lower": None}]),
        "budget": st.fixed_dictionaries(
            {}, optional={"n_trials": st.integers(1, 99), "timeout_s": st.none() | numbers(1, 1e6)}
        ),
        "checkpoint": st.just({"upload": True, "keep": "all"}),
        "enqueue": st.lists(
            st.fixed_dictionaries({}, optional={"batch_size": SETTINGS["batch_size"]}), max_size=3
        ),
        "priority": st.integers(-1000, 1000),
        "seed": st.integers(0, 2**32 - 1),
        "labels": st.dictionaries(TEXT, TEXT, max_size=3),
    },
)


@given(DOCUMENTS)
def test_any_spec_round_trips_through_yaml_and_json_and_its_schema_accepts_it(
    document: dict[str, Any],
) -> None:
    spec = StudySpec.model_validate(document)
    assert StudySpec.from_yaml(spec.to_yaml()) == spec
    assert StudySpec.model_validate_json(spec.model_dump_json()) == spec
    for form in (document, spec.model_dump(mode="json")):
        assert [error.message for error in STUDY.iter_errors(form)] == []


def test_a_schedule_is_valid_with_its_study_spelled_out() -> None:
    document = {
        "name": "nightly",
        "cron": "0 3 * * *",
        "timezone": "Europe/Berlin",
        "study": {"name": "tickets {date}", "training": {"epochs": 1}},
        "data": {"train": "tickets-{yesterday}.csv", "options": {"label": "topic"}},
        "warm_start": "previous",
        "champion": {"alpha": 0.05},
    }
    assert [error.message for error in SCHEDULE.iter_errors(document)] == []
    stated = ScheduleSpec.model_validate(document).model_dump(mode="json")
    assert [error.message for error in SCHEDULE.iter_errors(stated)] == []
    assert not SCHEDULE.is_valid({**document, "study": {"name": "a", "trainign": {}}})
    assert not SCHEDULE.is_valid({**document, "data": {"hub": "a/b", "train": "c"}})
    assert schedule_schema()["$defs"]["Study"]["required"] == ["name"]
