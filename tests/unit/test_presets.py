"""The studies that ship with the project, and YAML as people write it."""

import pytest

from model.errors import InputError
from service.local.demo import demo_spec
from studies.preset import load_preset, preset_names
from studies.resolution import resolve
from studies.space import Choices, FloatRange, IntRange
from studies.spec import StudySpec
from studies.yaml_text import read_yaml


@pytest.mark.parametrize("name", ["quick", "bert-base"])
def test_every_preset_is_a_whole_study_but_for_its_data(name: str) -> None:
    assert name in preset_names()
    spec = StudySpec.model_validate({**load_preset(name), "dataset": "d"})
    resolved = resolve(spec, task="single_label", max_positions=512)
    assert set(resolved.search_space) >= {"learning_rate", "batch_size", "max_length"}
    for number in range(spec.budget.n_trials):
        resolved.fixed_params(number)


def test_bert_base_searches_the_values_its_authors_published() -> None:
    spec = StudySpec.model_validate({**load_preset("bert-base"), "dataset": "d"})
    assert spec.model == "bert-base-uncased"
    space = spec.search_space
    assert space is not None
    published = {
        "batch_size": (16, 32),
        "learning_rate": (5e-5, 3e-5, 2e-5),
        "epochs": (2, 3, 4),
    }
    for name, values in published.items():
        parameter = space[name]
        assert isinstance(parameter, Choices)
        assert parameter.choices == values


def test_quick_starts_with_a_spread_over_rate_and_length() -> None:
    spec = StudySpec.model_validate({**load_preset("quick"), "dataset": "d"})
    space = spec.search_space
    assert space is not None
    rate, length = space["learning_rate"], space["max_length"]
    assert isinstance(rate, FloatRange)
    assert isinstance(length, IntRange)
    assert length.low == 16
    rates = [entry["learning_rate"] for entry in spec.enqueue]
    lengths = {entry["max_length"] for entry in spec.enqueue}
    assert max(map(float, rates)) >= 10 * min(map(float, rates))
    assert lengths >= {16, 128}


def test_the_demo_can_be_made_shorter() -> None:
    spec = demo_spec("d", trials=2, epochs=1)
    assert (spec.name, spec.budget.n_trials, spec.training["epochs"]) == ("helpdesk", 2, 1)
    assert demo_spec("d").budget.n_trials == 12


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="Known: bert-base, quick"):
        load_preset("../quick")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5),
        ("1E3", 1000.0),
        ("-2e-1", -0.2),
        (".5e+1", 5.0),
        ("5.0e-5", 5e-5),
        ("32", 32),
        ("'5e-5'", "5e-5"),
        ("e5", "e5"),
        ("5e", "5e"),
        ("5e-5x", "5e-5x"),
    ],
)
def test_numbers_in_yaml_are_what_people_take_them_for(text: str, value: object) -> None:
    read = read_yaml(f"value: {text}")["value"]
    assert read == value
    assert type(read) is type(value)


def test_broken_yaml_names_its_line() -> None:
    with pytest.raises(InputError) as raised:
        read_yaml("name: a\nlabels: {x: [1\n")
    assert raised.value.code == "invalid_yaml"
    assert raised.value.where == ("line 3",)


def test_yaml_builds_plain_data_only() -> None:
    with pytest.raises(InputError):
        read_yaml("!!python/object/apply:os.getcwd []")
