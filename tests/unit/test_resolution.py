"""Defaults, limits and enqueued values of a study, without a server."""

from typing import Any

import pytest

from model.config import Task
from model.errors import InputError
from studies.resolution import ResolvedStudy, resolve, trial_seed
from studies.space import Choices, FloatRange, IntRange
from studies.spec import StudySpec


def resolved(*, max_positions: int = 512, **fields: Any) -> ResolvedStudy:
    spec = StudySpec.model_validate({"name": "a", "dataset": "b", **fields})
    return resolve(spec, task="single_label", max_positions=max_positions)


def test_the_default_space_of_a_scratch_model() -> None:
    study = resolved()
    assert study.search_space == {
        "learning_rate": FloatRange(low=1e-4, high=3e-3, log=True),
        "batch_size": Choices(choices=(16, 32, 64)),
        "max_length": IntRange(low=16, high=128, step=16),
    }
    assert (study.metric, study.direction) == ("macro_f1", "maximize")
    assert study.training["epochs"] == 3


def test_a_pretrained_model_searches_lower_learning_rates() -> None:
    assert resolved(model="bert-base-uncased").search_space["learning_rate"] == FloatRange(
        low=1e-5, high=5e-4, log=True
    )


def test_the_default_space_stays_within_the_models_positions() -> None:
    space = resolved(max_positions=40).search_space
    assert space["max_length"] == IntRange(low=16, high=40, step=16)


def test_a_fixed_setting_leaves_the_default_space() -> None:
    study = resolved(training={"batch_size": 8})
    assert set(study.search_space) == {"learning_rate", "max_length"}
    assert study.training["batch_size"] == 8


def test_a_stated_space_replaces_the_default_and_the_rest_is_fixed() -> None:
    study = resolved(search_space={"epochs": {"type": "int", "low": 1, "high": 2}})
    assert set(study.search_space) == {"epochs"}
    fixed = {name: study.training[name] for name in ("learning_rate", "batch_size", "max_length")}
    assert fixed == {"learning_rate": 5e-4, "batch_size": 32, "max_length": 64}


def test_a_grid_of_decimal_steps_ends_on_its_own_bound() -> None:
    # In binary 0.1 + 2 * 0.1 is 0.30000000000000004, which no ask would take.
    dropout = {"type": "float", "low": 0.1, "high": 0.3, "step": 0.1}
    study = resolved(sampler={"name": "grid"}, search_space={"dropout": dropout})
    assert study.grid is not None
    assert sorted(str(point["dropout"]) for point in study.grid) == ["0.1", "0.2", "0.3"]


def test_a_grid_that_no_memory_holds_is_refused_before_it_is_made() -> None:
    dropout = {"type": "float", "low": 0.0, "high": 0.9, "step": 1e-12}
    with pytest.raises(InputError) as caught:
        resolved(sampler={"name": "grid"}, search_space={"dropout": dropout})
    assert (caught.value.code, caught.value.where) == ("grid_too_large", ("search_space",))
    assert "900000000001" in caught.value.detail


def test_a_step_that_floats_cannot_tell_from_none_is_refused() -> None:
    norm = {"type": "float", "low": 1.0, "high": 1e300, "step": 1e-5}
    with pytest.raises(InputError) as caught:
        resolved(search_space={"max_grad_norm": norm})
    assert caught.value.where == ("search_space", "max_grad_norm", "step")


def test_a_trials_configuration_joins_fixed_and_searched_values() -> None:
    study = resolved(training={"epochs": 2})
    config = study.config({"learning_rate": 1e-3, "batch_size": 16, "max_length": 32}, seed=7)
    assert (config.learning_rate, config.batch_size, config.max_length) == (1e-3, 16, 32)
    assert (config.epochs, config.seed, config.metric) == (2, 7, "macro_f1")


def test_a_metric_brings_its_own_direction() -> None:
    study = resolved(objective={"metric": "loss"})
    assert study.direction == "minimize"


def test_enqueued_values_become_the_exact_choice_and_type() -> None:
    study = resolved(enqueue=[{"batch_size": 32.0, "max_length": 50, "learning_rate": 3e-3}])
    entry: dict[str, object] = dict(study.enqueue[0])
    assert [repr(value) for value in entry.values()] == ["32", "50", "0.003"]


def test_a_grid_lists_every_point_once_and_skips_what_was_enqueued() -> None:
    space = {
        "batch_size": {"type": "categorical", "choices": [16, 32]},
        "max_length": {"type": "int", "low": 16, "high": 48, "step": 16},
    }
    study = resolved(
        search_space=space,
        sampler={"name": "grid"},
        enqueue=[{"batch_size": 16, "max_length": 32}],
    )
    points = [study.fixed_params(number) for number in range(6)]
    assert points[0] == {"batch_size": 16, "max_length": 32}
    assert len({tuple(sorted(point.items())) for point in points}) == 6
    assert study.most_trials == 6
    with pytest.raises(IndexError):
        study.fixed_params(6)


def test_only_a_grid_ends() -> None:
    assert resolved().most_trials is None
    assert resolved(sampler="qmc").most_trials is None


def test_seeds_of_trials_differ_and_repeat() -> None:
    seeds = [trial_seed(0, number) for number in range(100)]
    assert len(set(seeds)) == 100
    assert seeds == [trial_seed(0, number) for number in range(100)]
    assert trial_seed(1, 0) != trial_seed(0, 0)


RATE = {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-3}}


@pytest.mark.parametrize(
    ("fields", "code", "where"),
    [
        ({"search_space": {}}, "empty_search_space", ("search_space",)),
        (
            {"search_space": {"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-4}}},
            "inverted_range",
            ("search_space", "learning_rate"),
        ),
        (
            {"search_space": {"batch_size": {"type": "categorical", "choices": []}}},
            "empty_range",
            ("search_space", "batch_size", "choices"),
        ),
        (
            {"search_space": {"batch_size": {"type": "categorical", "choices": [0, 16]}}},
            "invalid_value",
            ("search_space", "batch_size", "choices", 0),
        ),
        (
            {"search_space": {"batch_size": {"type": "categorical", "choices": [16, 16]}}},
            "duplicate_choice",
            ("search_space", "batch_size", "choices", 1),
        ),
        (
            {"search_space": {"batch_size": {"type": "float", "low": 1, "high": 2}}},
            "wrong_type",
            ("search_space", "batch_size", "type"),
        ),
        (
            {"search_space": {"momentum": {"type": "float", "low": 0, "high": 1}}},
            "unknown_setting",
            ("search_space", "momentum"),
        ),
        (
            {"search_space": {"max_length": {"type": "int", "low": 16, "high": 513}}},
            "max_length_over_positions",
            ("search_space", "max_length"),
        ),
        (
            {"search_space": RATE, "training": {"max_length": 600}},
            "max_length_over_positions",
            ("training", "max_length"),
        ),
        ({"training": {"batch_size": 0}}, "invalid_value", ("training", "batch_size")),
        ({"training": {"learning_rat": 1}}, "unknown_setting", ("training", "learning_rat")),
        (
            {"search_space": RATE, "training": {"learning_rate": 1e-3}},
            "fixed_and_searched",
            ("search_space", "learning_rate"),
        ),
        ({"task": "token"}, "wrong_task", ("task",)),
        ({"objective": {"metric": "f2"}}, "unknown_metric", ("objective", "metric")),
        (
            {"objective": {"metric": "loss", "direction": "maximize"}},
            "wrong_direction",
            ("objective", "direction"),
        ),
        ({"enqueue": [{"epochs": 2}]}, "not_searched", ("enqueue", 0, "epochs")),
        ({"enqueue": [{}, {"batch_size": 17}]}, "invalid_value", ("enqueue", 1, "batch_size")),
        ({"enqueue": [{"learning_rate": 1.0}]}, "invalid_value", ("enqueue", 0, "learning_rate")),
        ({"sampler": {"name": "grid"}}, "continuous_grid", ("search_space", "learning_rate")),
        ({"pruner": {"name": "threshold"}}, "missing_bound", ("pruner",)),
        ({"checkpoint": {"onnx": True, "keep": "none"}}, "invalid_value", ("checkpoint", "onnx")),
    ],
)
def test_bad_values_are_refused_with_their_place(
    fields: dict[str, Any], code: str, where: tuple[str | int, ...]
) -> None:
    with pytest.raises(InputError) as caught:
        resolved(**fields)
    assert (caught.value.code, caught.value.where) == (code, where)


def with_heads(**stated: Any) -> ResolvedStudy:
    document = StudySpec.model_validate({"name": "n", "dataset": "d", **stated})
    heads: dict[str, Task] = {"mood": "regression", "topic": "single_label"}
    return resolve(document, task="multi_task", max_positions=512, heads=heads)


def test_the_loss_weights_of_heads_are_settings_that_are_fixed_or_searched() -> None:
    space = {"loss_weight.topic": {"type": "float", "low": 0.1, "high": 2}}
    study = with_heads(search_space=space, enqueue=[{"loss_weight.topic": 1}])
    assert study.training["loss_weight.mood"] == 1
    assert "loss_weight.topic" not in study.training
    assert study.enqueue == ({"loss_weight.topic": 1.0},)
    assert (study.metric, study.direction) == ("heads_mean", "maximize")
    config = study.config({"loss_weight.topic": 0.5}, seed=1)
    assert config.loss_weights == {"mood": 1.0, "topic": 0.5}
    assert config.heads == {"mood": "regression", "topic": "single_label"}
    by_head = with_heads(objective={"metric": "mood.mae"})
    assert (by_head.metric, by_head.direction) == ("mood.mae", "minimize")


@pytest.mark.parametrize(
    ("stated", "code", "where"),
    [
        ({"training": {"loss_weight.flags": 1}}, "unused_setting", "loss_weight.flags"),
        ({"training": {"loss_weight.topic": 0}}, "invalid_value", "loss_weight.topic"),
        ({"training": {"sampling": "oversample"}}, "unused_setting", "sampling"),
        ({"objective": {"metric": "mood.macro_f1"}}, "unknown_metric", "metric"),
        ({"objective": {"metric": "macro_f1"}}, "unknown_metric", "metric"),
    ],
)
def test_what_no_head_has_is_refused_by_name(stated: Any, code: str, where: str) -> None:
    with pytest.raises(InputError) as caught:
        with_heads(**stated)
    assert (caught.value.code, caught.value.where[-1]) == (code, where)


def test_a_task_without_heads_has_no_loss_weights() -> None:
    document = StudySpec.model_validate(
        {"name": "n", "dataset": "d", "training": {"loss_weight.topic": 1}}
    )
    with pytest.raises(InputError) as caught:
        resolve(document, task="single_label", max_positions=512)
    assert caught.value.code == "unused_setting"
