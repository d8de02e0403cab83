"""Points of a quasi-random sequence follow from their index alone."""

from typing import Literal

import pytest

from studies.search.quasi_random import quasi_random_point
from studies.space import Choices, FloatRange, IntRange, Params, SearchSpace

SPACE: SearchSpace = {
    "weight_decay": FloatRange(low=0.0, high=1.0),
    "batch_size": Choices(choices=(16, 32, 64)),
    "max_length": IntRange(low=16, high=120, step=16),
}


def point(
    space: SearchSpace,
    index: int,
    *,
    kind: Literal["sobol", "halton"] = "halton",
    scramble: bool = False,
    seed: int = 0,
) -> Params:
    return quasi_random_point(space, kind=kind, scramble=scramble, seed=seed, index=index)


def test_a_halton_sequence_counts_in_base_two_and_three() -> None:
    space: SearchSpace = {
        "dropout": FloatRange(low=0.0, high=1.0),
        "weight_decay": FloatRange(low=0.0, high=9.0),
    }
    drawn = [point(space, index) for index in range(4)]
    # Radical inverses in base 2: 0, 1/2, 1/4, 3/4; in base 3, times nine: 0, 3, 6, 1.
    assert [each["dropout"] for each in drawn] == pytest.approx([0, 0.5, 0.25, 0.75])
    assert [each["weight_decay"] for each in drawn] == pytest.approx([0, 3, 6, 1])


def test_a_coordinate_picks_a_choice_a_step_and_a_power() -> None:
    space: SearchSpace = {"learning_rate": FloatRange(low=1e-4, high=1e-2, log=True)}
    assert point(space, 1)["learning_rate"] == pytest.approx(1e-3)  # half-way on a log scale
    assert point({"batch_size": SPACE["batch_size"]}, 3)["batch_size"] == 64  # 3/4 of three
    # 16, 32, … 112: seven lengths, since 120 is on no step; 3/4 of seven is the sixth.
    assert point({"max_length": SPACE["max_length"]}, 3)["max_length"] == 96
    # 0.1, 0.2, 0.3: 1/2 of three is the second.
    stepped = FloatRange(low=0.1, high=0.3, step=0.1)
    assert point({"dropout": stepped}, 1)["dropout"] == pytest.approx(0.2)


def test_whole_numbers_on_a_log_scale_reach_both_ends() -> None:
    space: SearchSpace = {"epochs": IntRange(low=1, high=8, log=True)}
    drawn = {point(space, index)["epochs"] for index in range(64)}
    assert drawn == set(range(1, 9))


@pytest.mark.parametrize("kind", ["sobol", "halton"])
def test_a_point_needs_no_other_point_and_no_order_of_names(
    kind: Literal["sobol", "halton"],
) -> None:
    forwards = [point(SPACE, index, kind=kind, scramble=True, seed=5) for index in range(8)]
    turned = dict(reversed(SPACE.items()))
    backwards = [
        point(turned, index, kind=kind, scramble=True, seed=5) for index in reversed(range(8))
    ]
    assert forwards == backwards[::-1]
    assert len({tuple(sorted(each.items())) for each in forwards}) == 8


def test_seeds_scramble_differently() -> None:
    one = point(SPACE, 0, kind="sobol", scramble=True, seed=1)
    two = point(SPACE, 0, kind="sobol", scramble=True, seed=2)
    assert one["weight_decay"] != two["weight_decay"]


def test_a_stepped_range_is_never_left_and_never_listed() -> None:
    few: SearchSpace = {"dropout": FloatRange(low=0.1, high=0.3, step=0.1)}
    drawn = {point(few, index)["dropout"] for index in range(8)}
    assert drawn == {0.1, 0.2, 0.3}
    many: SearchSpace = {"dropout": FloatRange(low=0.0, high=0.8, step=1e-12)}
    assert point(many, 1)["dropout"] == pytest.approx(0.4)
