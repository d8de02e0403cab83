"""What the comparison of quality computes: order, seed noise, the table, and first word pieces."""

from dataclasses import replace
from pathlib import Path

import pytest
from parity.cases import CASES, Case, Plan, plans
from parity.record import Run, append, read
from parity.table import difference, report
from parity.trainer_side import _log_odds, first_pieces
from quality import chosen_cases, options

from model.errors import InputError

SUBJ, MOVIES = CASES[0], CASES[-1]


def run(case: Case, side: str, seed: int, score: float, policy: str = "head") -> Run:
    return Run(
        key=f"{case.name}{policy}{side}{seed}",
        case=case.name,
        policy=policy,
        side=side,  # type: ignore[arg-type]
        seed=seed,
        best_epoch=0,
        steps=1,
        train_s=1.0,
        device="cpu",
        threads=1,
        versions={},
        validation={},
        test={case.metric: score},
        matrix_labels=["a", "b"],
        matrix_unit="rows",
        matrix=[[1, 0], [0, 1]],
    )


def test_the_interval_of_a_difference_is_that_of_welch() -> None:
    found = difference([1, 2, 3], [2, 4, 6])
    assert found is not None
    # Variances 1 and 4, so the error is √(5/3) with 2.94 degrees of freedom: t is 3.22.
    assert found.mean == -2
    assert (found.low, found.high) == pytest.approx((-2 - 4.155, -2 + 4.155), abs=2e-3)
    assert found.within_noise


def test_sides_that_differ_by_more_than_their_seeds_do_are_told_apart() -> None:
    found = difference([0.90, 0.91, 0.92], [0.80, 0.81, 0.82])
    assert found is not None
    assert found.low > 0
    assert not found.within_noise


def test_sides_without_spread_differ_by_what_they_differ_by() -> None:
    equal, other = difference([0.5, 0.5], [0.5, 0.5]), difference([0.5, 0.5], [0.25, 0.25])
    assert equal is not None
    assert other is not None
    assert equal.within_noise
    assert (other.low, other.high, other.within_noise) == (0.25, 0.25, False)


def test_one_seed_says_nothing_of_noise() -> None:
    assert difference([0.5], [0.4, 0.6]) is None


def test_sides_take_turns_and_only_bertune_reads_both_ends_or_windows() -> None:
    case = replace(MOVIES, policies=("tail", "head_tail"))
    order = [
        (plan.seed, plan.policy, plan.side) for plan in plans([case], seeds=range(2), model="m")
    ]
    assert order == [
        (0, "tail", "bertune"),
        (0, "tail", "trainer"),
        (0, "head_tail", "bertune"),
        (1, "tail", "trainer"),
        (1, "tail", "bertune"),
        (1, "head_tail", "bertune"),
    ]


def test_a_result_counts_for_its_own_settings_only() -> None:
    plan = Plan(case=SUBJ, policy="head", side="bertune", seed=0, model="m")
    others = (
        replace(plan, case=replace(SUBJ, learning_rate=1e-4)),
        replace(plan, case=replace(SUBJ, rows=100)),
        replace(plan, seed=1),
        replace(plan, side="trainer"),
        replace(plan, model="n"),
    )
    assert plan.key == replace(plan, case=replace(SUBJ, policies=("head", "tail"))).key
    assert len({plan.key, *(other.key for other in others)}) == 6


def test_the_table_has_a_row_for_what_was_run_and_says_how_often() -> None:
    runs = [run(SUBJ, "bertune", seed, score) for seed, score in enumerate((0.9, 0.92))]
    runs += [run(SUBJ, "trainer", seed, score) for seed, score in enumerate((0.89, 0.93))]
    runs.append(run(MOVIES, "bertune", 0, 0.75, policy="tail"))
    _, _, subj, movies, *_ = report(CASES, runs).splitlines()
    assert "| 0.9100 ± 0.0141 (2) | 0.9100 ± 0.0283 (2) | +0.0000 (" in subj
    assert subj.endswith("| yes |")
    assert movies.endswith("| tail | accuracy | 0.7500 (1) |  |  |  |")


def test_finished_runs_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    assert read(path) == []
    kept = [run(SUBJ, "bertune", 0, 0.9), run(SUBJ, "trainer", 0, 0.8)]
    for one in kept:
        append(path, one)
    assert read(path) == kept


def test_a_word_begins_at_its_first_piece() -> None:
    assert first_pieces([None, 0, 0, 1, 3, 3, None]) == {0: 1, 1: 3, 3: 4}


def test_cases_are_chosen_and_changed_by_options() -> None:
    asked = options(["--only", "movie_reviews,subj", "--policies", "head,tail", "--rows", "9"])
    assert [(case.name, case.policies, case.rows) for case in chosen_cases(asked)] == [
        ("subj", ("head",), 9),
        ("movie_reviews", ("head", "tail"), 9),
    ]
    with pytest.raises(InputError, match="'news' is none of subj, nlupp_banking"):
        chosen_cases(options(["--only", "news"]))


def test_a_head_that_starts_at_its_log_odds_says_how_frequent_classes_are() -> None:
    features = [{"labels": labels} for labels in ([1.0, 0.0], [1.0, 0.0], [0.0, 0.0])]
    # 2.5 rows with the first class and 1.5 without; 0.5 with the second and 3.5 without.
    assert _log_odds(features).exp().tolist() == pytest.approx([2.5 / 1.5, 0.5 / 3.5])


def test_the_table_says_where_both_heads_start() -> None:
    with pytest.raises(InputError, match="state --only nlupp_banking"):
        chosen_cases(options(["--trainer-log-odds"]))
    asked = options(["--only", "nlupp_banking", "--trainer-log-odds"])
    (case,) = chosen_cases(asked)
    assert case.trainer_log_odds
    table = report([case], [run(case, "bertune", 0, 0.8), run(case, "trainer", 0, 0.7)])
    assert "epochs 12, both heads from log odds |" in table
