"""A spec holds what was said, refuses what it does not know, and round-trips."""

import pytest
from pydantic import ValidationError

from studies.space import FloatRange
from studies.spec import Grid, Hyperband, StudySpec

FULL = """
name: tickets
dataset: 0123abcd
task: single_label
model: scratch:tiny
search_space:
  learning_rate: {type: float, low: 1.0e-4, high: 3.0e-3, log: true}
  batch_size: {type: categorical, choices: [16, 32, 64]}
  max_length: {type: int, low: 16, high: 128, step: 16}
training: {epochs: 3}
objective: {metric: macro_f1, direction: maximize}
sampler: {name: tpe}
pruner: {name: median}
budget: {n_trials: 20, max_parallel: 4, timeout_s: null}
enqueue:
  - {learning_rate: 5.0e-4, batch_size: 32, max_length: 64}
priority: 0
seed: 0
labels: {team: support}
"""


def test_the_full_example_round_trips_through_yaml_and_json() -> None:
    spec = StudySpec.from_yaml(FULL)
    assert StudySpec.from_yaml(spec.to_yaml()) == spec
    assert StudySpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.search_space is not None
    assert spec.search_space["learning_rate"] == FloatRange(low=1e-4, high=3e-3, log=True)


def test_samplers_and_pruners_left_at_their_defaults_round_trip() -> None:
    spec = StudySpec(name="a", dataset="b", sampler=Grid(), pruner=Hyperband())
    assert StudySpec.from_yaml(spec.to_yaml()) == spec


def test_numbers_may_be_written_as_people_write_them() -> None:
    spec = StudySpec.from_yaml("{name: a, dataset: b, enqueue: [{learning_rate: 5e-5}]}")
    assert spec.enqueue == ({"learning_rate": 5e-5},)


def test_a_name_and_a_dataset_are_enough() -> None:
    spec = StudySpec.from_yaml("{name: a, dataset: b}")
    assert spec.model == "scratch:tiny"
    assert spec.budget.n_trials == 20
    assert spec.budget.max_parallel == 1
    assert spec.sampler.name == "tpe"
    assert spec.pruner.name == "median"


def test_a_sampler_is_chosen_by_its_name() -> None:
    spec = StudySpec.from_yaml("{name: a, dataset: b, sampler: {name: grid}}")
    assert spec.sampler == Grid()


def test_a_samplers_or_pruners_name_alone_is_enough() -> None:
    spec = StudySpec.from_yaml("{name: a, dataset: b, sampler: grid, pruner: hyperband}")
    assert (spec.sampler, spec.pruner) == (Grid(), Hyperband())


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ("{name: a, dataset: b, nmae: c}", ("nmae",)),
        ("{name: a}", ("dataset",)),
        ("{name: '', dataset: b}", ("name",)),
        ("{name: 'a [b]', dataset: b}", ("name",)),
        ("{name: a, dataset: b, budget: {n_trials: 0}}", ("budget", "n_trials")),
        ("{name: a, dataset: b, budget: {n_trials: 2.5}}", ("budget", "n_trials")),
        ("{name: a, dataset: b, budget: {trials: 2}}", ("budget", "trials")),
        ("{name: a, dataset: b, sampler: {name: magic}}", ("sampler",)),
        ("{name: a, dataset: b, seed: -1}", ("seed",)),
    ],
)
def test_a_wrong_field_is_named(document: str, place: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        StudySpec.from_yaml(document)
    assert caught.value.errors()[0]["loc"][: len(place)] == place
