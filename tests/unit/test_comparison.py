"""What the benchmark computes from its runs: order, arithmetic, ratios, rows."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from comparison.arithmetic import forward_flops
from comparison.plan import Case, Plan, fine_tuning_trials
from comparison.record import SideRun, StudyRecord, TrialRecord
from comparison.rounds import rotated
from comparison.rows import read_rows, write_rows
from comparison.summary import rate_share, report, step_ms, tokens_per_s, trials_per_hour


def side_run(side: str, round_number: int, study_s: float) -> SideRun:
    """Two trials of ten steps each that took ``study_s`` in all, half of it training."""
    trials = tuple(
        TrialRecord(
            number=number,
            steps=10,
            train_s=study_s / 4,
            evaluation_s=0.5,
            trial_s=study_s / 2,
            finished_s=(number + 1) * study_s / 2,
            accuracy=0.75,
        )
        for number in range(2)
    )
    study = StudyRecord(search_s=study_s - 1, last_result_at=0.0, trials=trials, versions={})
    return SideRun(
        case="words",
        round=round_number,
        side=side,
        study_s=study_s,
        cpu_s=2 * study_s,
        load=0.0,
        matrix_rate=1e11,
        real_tokens=(1000, 3000),
        train_flops=(1e11, 3e11),
        study=study,
    )


def test_figures_count_training_alone() -> None:
    run = side_run("tuned", 0, 40.0)
    assert step_ms(run) == 1000.0  # 20 s for 20 steps
    assert tokens_per_s(run) == 200.0  # 4000 tokens in 20 s
    assert trials_per_hour(run) == 180.0  # the second took 20 s
    assert rate_share(run) == pytest.approx(0.2)  # 4e11 flops in 20 s, of 1e11 a second
    assert math.isnan(trials_per_hour(side_run("bertune@2", 0, 40.0)))  # each slot had one trial


def test_ratios_are_taken_round_by_round() -> None:
    runs = [side_run("tuned", 0, 30), side_run("bertune@1", 0, 10)]
    runs += [side_run("bertune@1", 1, 20), side_run("tuned", 1, 40)]
    runs += [side_run("tuned", 2, 90), side_run("bertune@1", 2, 15)]
    assert "| tuned | 3.00 (2.00–6.00) |" in report(runs)


def test_ratios_are_of_the_first_side_of_bertune() -> None:
    runs = [side_run("tuned", 0, 30), side_run("bertune@2", 0, 10), side_run("bertune@1", 0, 15)]
    text = report(runs)
    assert "| times bertune@2 |" in text
    assert "| tuned | 3.00 |" in text
    assert "| bertune@1 | 1.50 |" in text


def test_slots_share_the_trials_on_a_cpu_alone(tmp_path: Path) -> None:
    case = Case(name="words", data="words", model="minilm", trials=fine_tuning_trials(1e-4))
    plan = Plan(case=case, seed=0, data_folder=tmp_path, model_folder=tmp_path, device="cpu")
    assert plan.copies(4) == 1
    assert replace(plan, device="cuda").copies(4) == 4


def test_the_order_of_sides_turns_with_the_rounds() -> None:
    sides = ["defaults", "tuned", "bertune@1"]
    firsts = [rotated(sides, number)[0] for number in range(4)]
    assert firsts == ["defaults", "tuned", "bertune@1", "defaults"]


def test_flops_of_two_rows_in_a_small_encoder(tmp_path: Path) -> None:
    config = {"hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    # Five tokens of 2·(4·16 + 2·32) flops; rows of 2 and 3 tokens: 16·(4 + 9); three layers.
    assert forward_flops(tmp_path, np.array([2, 3])) == 3 * (5 * 256 + 16 * 13)


def test_rows_follow_from_the_seed_and_validation_has_no_class_that_train_lacks(
    tmp_path: Path,
) -> None:
    trials = fine_tuning_trials(1e-4)
    case = Case(
        name="words",
        data="synthetic:9",
        model="random:tiny",
        trials=trials,
        rows=3,
        validation_rows=60,
    )
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_rows(case, tmp_path / folder, seed)
    train, validation = (read_rows(tmp_path / "a" / name) for name in ("train.csv", "dev.csv"))
    assert len(train) == 3
    assert {label for _, label in validation} <= {label for _, label in train}
    assert read_rows(tmp_path / "b/train.csv") == train
    assert read_rows(tmp_path / "c/train.csv") != train


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    case = Case(name="words", data="x", model="minilm", trials=fine_tuning_trials(1e-4))
    plan = Plan(case=case, seed=3, data_folder=tmp_path, model_folder=tmp_path, device="cpu")
    plan.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == plan
