"""What the command line draws: confusion matrices, tables and lines of progress."""

import dataclasses
import io
import random
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console, RenderableType

from model.config import DataOptions
from service.terminal.confusion_drawing import confusion_view, draw_confusion, fold, most_confused
from service.terminal.live_table import live_view
from service.terminal.transfer_bar import transfer_bar
from service.terminal.views import (
    bytes_text,
    counts_text,
    dataset_view,
    duration_text,
    epoch_text,
    params_text,
    plain,
    study_view,
    trial_view,
    trials_table,
)
from service.terminal.watching import (
    STILL_S,
    TrialsSeen,
    WatchLines,
    change_lines,
    still_line,
    study_lines,
)
from studies.wire.datasets import DatasetAnswer, MissingCount
from studies.wire.studies import StudyAnswer
from studies.wire.trials import ConfusionAnswer, TrialAnswer, TrialRow


def test_a_transfer_is_drawn_on_a_terminal_and_nowhere_else() -> None:
    shown = io.StringIO()
    with transfer_bar(Console(file=shown), "a.csv", "reading") as on_bytes:
        assert on_bytes is None
    assert shown.getvalue() == ""
    terminal = Console(file=shown, force_terminal=True, width=90)
    with transfer_bar(terminal, "[a].csv", "the server reads it") as on_bytes:
        assert on_bytes is not None
        assert shown.getvalue() == ""
        on_bytes(500_000, 2_000_000_000)
        assert "[a].csv" in shown.getvalue()
        assert "2.0 GB" in shown.getvalue()
        on_bytes(2_000_000_000, 2_000_000_000)  # drawn again, at the latest, when it ends
    assert "the server reads it" in shown.getvalue()


LABELS = ["refund", "invoice", "login"]
MATRIX = [[8, 2, 0], [1, 9, 0], [0, 0, 5]]


def confusion(labels: list[str], matrix: list[list[int]]) -> ConfusionAnswer:
    return ConfusionAnswer(
        labels=labels,
        matrix=matrix,
        split="validation",
        head="label",
        kind="multiclass",
        unit="rows",
        rows=sum(map(sum, matrix)),
    )


def drawn(answer: ConfusionAnswer, width: int, **console: Any) -> str:
    return shown(confusion_view(answer, width), width, **console)


def shown(view: RenderableType, width: int = 200, **console: Any) -> str:
    output = io.StringIO()
    Console(width=width, file=output, **console).print(view)
    return output.getvalue()


def cells(line: str) -> list[str]:
    return line.split()


def test_a_row_holds_a_true_label_its_counts_and_its_recall() -> None:
    lines = drawn(confusion(LABELS, MATRIX), 80).splitlines()
    assert lines[0].strip() == "validation, multiclass: 25 rows, 88.0% right"
    assert cells(lines[1]) == ["true", "\\", "predicted", *LABELS, "recall"]
    assert cells(lines[3]) == ["refund", "8", "2", "·", "80%"]
    assert cells(lines[4]) == ["invoice", "1", "9", "·", "90%"]
    assert cells(lines[5]) == ["login", "·", "·", "5", "100%"]


def test_a_label_without_a_row_has_no_recall() -> None:
    lines = drawn(confusion(LABELS, [[1, 0, 0], [0, 1, 0], [0, 0, 0]]), 80).splitlines()
    assert cells(lines[5]) == ["login", "·", "·", "·", "–"]


def test_folding_keeps_the_classes_with_the_most_confusions_and_every_count() -> None:
    # Confusions: a 1+0, b 0+6, c 6+1, d 0+0 (a row off the diagonal plus its column).
    matrix = [[9, 0, 1, 0], [0, 9, 0, 0], [0, 6, 3, 0], [0, 0, 0, 7]]
    folded = fold(["a", "b", "c", "d"], matrix, keep=2)
    assert folded.labels == ("b", "c", "+ 2 more classes")
    assert folded.matrix == ((9, 0, 0), (6, 3, 0), (0, 1, 16))
    assert folded.folded == 2


def test_folding_nothing_changes_nothing() -> None:
    folded = fold(LABELS, MATRIX, keep=3)
    assert folded.labels == tuple(LABELS)
    assert [list(row) for row in folded.matrix] == MATRIX
    assert folded.folded == 0


def test_seventy_seven_classes_are_folded_to_twelve_and_a_rest() -> None:
    text = drawn(confusion(*many(77)), 200)
    assert "+ 65 more classes" in text
    assert "the classes confused most are shown" in text


def test_as_many_classes_as_wanted_are_drawn_however_wide_that_is() -> None:
    labels, matrix = many(77)
    answer = confusion(labels, matrix)
    few = draw_confusion(answer, 80, 3)
    assert few.width == 80
    assert "+ 74 more classes" in shown(few.view, few.width)
    whole = draw_confusion(answer, 80, 77)
    text = shown(whole.view, whole.width)
    assert whole.width > 80
    assert "more classes" not in text
    assert all(label in text for label in labels)
    first = next(line for line in text.splitlines() if "1 class_0" in line)
    counts = [0 if cell == "·" else int(cell) for cell in cells(first)[2:-1]]
    assert counts == matrix[0]


def test_the_pairs_confused_most_are_listed_of_all_classes() -> None:
    matrix = [[5, 0, 2], [3, 5, 0], [0, 3, 5]]
    assert most_confused(["a", "b", "c"], matrix) == [
        ("b", "a", 3, 8),
        ("c", "b", 3, 8),
        ("a", "c", 2, 7),
    ]
    assert most_confused(["a"], [[5]]) == []
    drawing = draw_confusion(confusion(["a", "b", "c"], matrix), 80, 1)
    assert "3 of 8 b → a" in shown(drawing.view, 80)
    assert "→" not in drawn(confusion(["a", "b", "c"], matrix), 80)  # all of it is drawn


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("classes", [2, 8, 13, 77])
def test_the_drawing_cuts_no_number_in_any_terminal(width: int, classes: int) -> None:
    labels, matrix = many(classes)
    text = drawn(confusion(labels, matrix), width)
    # Label names may be cut; a cut number would show as an ellipsis outside of the first column.
    for line in text.splitlines():
        assert len(line) <= width
        assert "…" not in line[max(8, width // 3) :]


def many(classes: int) -> tuple[list[str], list[list[int]]]:
    rng = random.Random(classes)
    matrix = [
        [rng.choice([0, 0, 1, 3]) if i != j else rng.randint(20, 60) for j in range(classes)]
        for i in range(classes)
    ]
    return [f"class_{i}" for i in range(classes)], matrix


def test_colours_are_drawn_for_a_terminal_and_left_out_without_colours() -> None:
    answer = confusion(LABELS, MATRIX)
    terminal = {"force_terminal": True, "legacy_windows": False}
    assert "\x1b[" in drawn(answer, 80, color_system="truecolor", **terminal)
    assert "48;" not in drawn(answer, 80, no_color=True, **terminal)


def test_a_label_can_neither_steer_the_terminal_nor_be_read_as_markup() -> None:
    answer = confusion(["[bold]a", "b\x1b[31m\n"], [[1, 0], [0, 1]])
    text = drawn(answer, 80)
    assert "[bold]a" in text
    assert "b·[31m·" in text
    assert "\x1b" not in text


def test_plain_text_keeps_letters_of_every_language() -> None:
    assert plain("größe 日本語\t").plain == "größe 日本語·"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (190, "3 min 10 s"), (7500, "2 h 5 min")],
)
def test_durations_are_read_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (999_949, "999.9 kB"),
        (999_951, "1.0 MB"),
        (123_456_789_012, "123.5 GB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_bytes_are_read_in_their_largest_unit(count: int, text: str) -> None:
    assert bytes_text(count) == text


def test_params_are_short_and_nothing_is_a_dash() -> None:
    assert params_text({"learning_rate": 0.00012345, "batch_size": 32}) == (
        "learning_rate=0.000123  batch_size=32"
    )
    assert params_text(None) == "–"


def trial(number: int, state: str, **changes: Any) -> TrialRow:
    fields: dict[str, Any] = {
        "number": number,
        "state": state,
        "attempt": 0 if state == "queued" else 1,
        "params": None if state == "queued" else {"batch_size": 16},
        "value": None,
        "best_epoch": None,
        "error": None,
        "metrics": {},
        "epoch": None,
        "started_at": None,
        "finished_at": None,
    }
    return TrialRow.model_validate({**fields, **changes})


def study(**changes: Any) -> StudyAnswer:
    return StudyAnswer.model_validate(
        {
            "id": "s1",
            "name": "tickets",
            "state": "running",
            "pause": None,
            "trials": {},
            "best": None,
            "test": None,
            "progress": {"done": 1, "total": 3},
            "disk_bytes": 0,
            "error": None,
            "created_at": datetime.now(UTC),
            "started_at": None,
            "finished_at": None,
            "labels": {},
            "dataset": "d1",
            "model": "scratch:tiny",
            "task": "single_label",
            "objective": {"metric": "macro_f1", "direction": "maximize"},
            "spec": {},
            **changes,
        }
    )


def test_every_start_and_end_of_a_trial_is_one_line() -> None:
    before = {0: trial(0, "running"), 1: trial(1, "queued"), 2: trial(2, "queued")}
    fault = {"code": "nan_loss", "detail": "The loss is no number.\nLower the rate."}
    after = [
        trial(0, "completed", value=0.8125),
        trial(1, "failed", error=fault),
        trial(2, "running"),
    ]
    assert change_lines(before, after, study()) == [
        "trial 0 completed  macro_f1 0.8125",
        "trial 1 started  batch_size=16",
        "trial 1 failed  nan_loss: The loss is no number.",
        "trial 2 started  batch_size=16",
    ]
    assert change_lines({row.number: row for row in after}, after, study()) == []


def test_a_trial_starts_once_its_parameters_are_known() -> None:
    claimed = trial(0, "running", params=None)
    assert change_lines({}, [claimed], study()) == []
    asked = [trial(0, "running")]
    assert change_lines({0: claimed}, asked, study()) == ["trial 0 started  batch_size=16"]


def test_another_attempt_is_told_as_one() -> None:
    before = {0: trial(0, "running")}
    after = [trial(0, "running", attempt=2)]
    assert change_lines(before, after, study()) == [
        "trial 0 started again (attempt 2)  batch_size=16"
    ]


def test_the_best_trial_carries_a_star_and_each_parameter_a_column() -> None:
    rows = [
        trial(0, "completed", value=0.5, params={"batch_size": 16}),
        trial(1, "pruned", value=0.25, params={"batch_size": 32, "max_length": 64}),
    ]
    lines = shown(trials_table(rows, "macro_f1", best=0)).splitlines()
    assert cells(lines[0]) == [
        "#",
        "state",
        "macro_f1",
        "epoch",
        "batch_size",
        "max_length",
        "error",
    ]
    assert cells(lines[2]) == ["0", "*", "completed", "0.5000", "–", "16", "–"]
    assert cells(lines[3]) == ["1", "pruned", "0.2500", "–", "32", "64"]


def test_a_column_of_attempts_appears_once_a_trial_took_more_than_one() -> None:
    rows = [trial(0, "running", attempt=3), trial(1, "running"), trial(2, "queued")]
    lines = shown(trials_table(rows, "macro_f1")).splitlines()
    assert cells(lines[0])[-2:] == ["attempt", "error"]
    assert [cells(line)[-1] for line in lines[2:]] == ["3", "1", "–"]


NOW = datetime(2026, 5, 1, tzinfo=UTC)


def at_work(number: int, share: float = 0.4, **changes: Any) -> TrialRow:
    """A trial that runs and tells of it."""
    stage = {"name": "training", "done": round(300 * share), "total": 300, "unit": "steps"}
    progress = {
        "epoch": 1,
        "epochs": 3,
        "share": share,
        "eta_s": 190,
        "best_value": 0.5,
        "stage": stage,
        **changes,
    }
    return trial(number, "running", epoch=0, progress=progress)


def drawn_live(rows: Sequence[TrialRow], width: int, height: int, **changes: Any) -> str:
    summary = "3 of 500 trials done, best macro_f1 0.8100, about 2 h 13 min left"
    view = live_view(study(**changes), rows, summary, [], width=width, height=height)
    return shown(view, width)


def test_a_trial_at_work_has_a_line_with_its_bar_its_counts_and_the_time_left() -> None:
    rows = [trial(0, "completed", value=0.8, epoch=2, finished_at=NOW), at_work(1)]
    best = {"number": 0, "value": 0.8, "params": {}, "metrics": {}}
    lines = drawn_live(rows, 120, 24, best=best).splitlines()
    assert cells(lines[0]) == [
        *("#", "state", "macro_f1", "done", "epoch", "left", "at", "batch_size")
    ]
    assert cells(lines[1]) == ["0", "*", "completed", "0.8000", "3", "16"]
    ours = lines[2].replace("━", "").replace("╸", "")
    assert cells(ours) == [
        "1",
        "training",
        "0.5000",
        "40%",
        "2/3",
        "3",
        "min",
        "10",
        "s",
        "120/300",
        "steps",
        "16",
    ]
    assert lines[-1].startswith("3 of 500 trials done")


@pytest.mark.parametrize(("width", "height"), [(36, 15), (60, 12), (80, 24), (200, 50)])
def test_a_hundred_trials_at_work_fit_any_terminal(width: int, height: int) -> None:
    ended = [trial(n, "pruned", value=0.25, finished_at=NOW) for n in range(5)]
    rows = [*ended, *(at_work(n) for n in range(5, 105))]
    lines = drawn_live(rows, width, height).splitlines()
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    at = [line for line in lines if "training" in line]
    assert len(at) == min(30, len(at))
    hidden = next(line for line in lines if "more running" in line)
    assert hidden.startswith(f"{100 - len(at)} more running, 5 more ended")


def test_the_trials_that_ended_last_fill_the_room_that_is_left() -> None:
    ended = [
        trial(n, "completed", value=0.5, finished_at=NOW + timedelta(seconds=-n)) for n in range(50)
    ]
    lines = drawn_live([*ended, at_work(50)], 80, 12).splitlines()
    numbers = [cells(line)[0] for line in lines[1:8]]
    assert numbers == ["0", "1", "2", "3", "4", "5", "50"]
    assert "44 more ended" in lines[8]


def test_counts_are_read_in_their_units() -> None:
    fetching = {"name": "downloading", "done": 1_200_000, "total": 4_000_000_000, "unit": "bytes"}
    assert counts_text(at_work(0, stage=fetching)) == "1.2 MB of 4.0 GB"
    assert counts_text(at_work(0, stage={**fetching, "total": None})) == "1.2 MB"
    assert counts_text(at_work(0, stage=None)) == ""
    assert epoch_text(at_work(0)) == "2/3"
    assert epoch_text(at_work(0, epochs=None)) == "1"


def test_the_trials_furthest_on_are_named_and_the_others_counted() -> None:
    rows = [at_work(n, share) for n, share in enumerate((0.1, 0.9, 0.5, 0.5, 0.2))]
    assert still_line(rows) == (
        "trial 1 training epoch 2 of 3 (90%), trial 2 training epoch 2 of 3 (50%), "
        "trial 3 training epoch 2 of 3 (50%), 2 more are running"
    )
    assert still_line([trial(0, "queued")]) == ""


class Shelf:
    """The trials as a client gives them, and what it was asked for."""

    def __init__(self, rows: Sequence[TrialRow]) -> None:
        self.rows = rows
        self.asked: list[str | None] = []

    def trials(self, study_id: str, state: str | None = None) -> list[TrialRow]:
        self.asked.append(state)
        return [row for row in self.rows if state in (None, row.state)]


def test_all_trials_are_asked_for_only_when_one_has_begun_or_ended() -> None:
    shelf = Shelf([trial(0, "completed"), at_work(1), trial(2, "queued")])
    seen = TrialsSeen(cast(Any, shelf), "s1")
    counts = {"queued": 1, "running": 1, "completed": 1}
    seen.at(study(trials=counts))
    shelf.rows = [shelf.rows[0], at_work(1, 0.8), shelf.rows[2]]
    found = seen.at(study(trials=counts))
    assert [row.number for row in found] == [0, 1, 2]
    assert found[1].progress == at_work(1, 0.8).progress
    assert shelf.asked == [None, "running"]
    # A lost trial went back to the queue while another one began: as many run as before.
    shelf.rows = [shelf.rows[0], trial(1, "queued"), at_work(2)]
    assert [row.state for row in seen.at(study(trials=counts))] == [
        *("completed", "queued", "running")
    ]
    assert shelf.asked == [None, "running", "running", None]


def test_without_a_terminal_nothing_is_said_twice_and_a_long_silence_is_broken() -> None:
    clock = SimpleNamespace(now_s=0.0)
    shelf = Shelf([at_work(0)])
    said: list[str] = []
    lines = WatchLines(
        TrialsSeen(cast(Any, shelf), "s1"),
        lambda line: said.append(line.plain.strip()),
        lambda: clock.now_s,
    )
    for look in range(int(2.5 * STILL_S)):
        clock.now_s = float(look)
        progress = {"done": 0, "total": 1, "share": 0.4, "eta_s": 1000 - look}
        lines.look(study(trials={"running": 1}, progress=progress))
    still = "trial 0 training epoch 2 of 3 (40%)"
    assert said == [
        *("trial 0 started  batch_size=16", "0 of 1 trials done, about 16 min 40 s left"),
        *(still, "0 of 1 trials done, about 15 min 40 s left"),
        *(still, "0 of 1 trials done, about 14 min 40 s left"),
    ]


def test_a_pause_is_told_once_with_what_ends_it_and_so_are_resume_and_extend() -> None:
    running = study()
    drained = study(state="paused", pause="drain")
    preempted = study(state="paused", pause="preempt")
    said = study_lines(running, drained)
    assert said == [
        "paused: no new trials start, running trials finish; 'bertune resume s1' goes on"
    ]
    assert study_lines(None, drained) == said
    assert study_lines(drained, drained) == []
    assert "running trials are taken back" in study_lines(drained, preempted)[0]
    assert study_lines(preempted, running) == ["resumed"]
    assert study_lines(drained, study(state="completed")) == []
    extended = study(progress={"done": 1, "total": 13})
    assert study_lines(running, extended) == ["extended to 13 trials"]


def test_a_paused_study_whose_trials_are_done_says_what_it_waits_for() -> None:
    under_way = study(state="paused", pause="drain", progress={"done": 11, "total": 12})
    done = study(state="paused", pause="drain", progress={"done": 12, "total": 12})
    said = study_lines(under_way, done)
    assert said == [
        "paused: all trials are done, the best is left to test; 'bertune resume s1' goes on"
    ]
    assert study_lines(None, done) == said
    assert study_lines(done, done) == []
    assert study_lines(done, study(progress={"done": 12, "total": 12})) == ["resumed"]


def test_a_study_shows_its_pause_and_what_it_takes_on_the_disk() -> None:
    text = shown(study_view(study(state="paused", pause="drain", disk_bytes=2_300_000)))
    assert "paused  no new trials start, running trials finish" in text
    assert "2.3 MB of models" in text
    assert "disk" not in shown(study_view(study()))


def attempts(*fields: dict[str, Any]) -> TrialAnswer:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    common: dict[str, Any] = {
        "worker": "gpu-1",
        "error": None,
        "problems": [],
        "resumed_from_epoch": None,
        "started_at": began,
        "ended_at": began + timedelta(seconds=42),
    }
    tries = [{"attempt": n, **common, **changes} for n, changes in enumerate(fields, start=1)]
    row = trial(7, "completed", attempt=len(fields)).model_dump()
    own = {"epochs": [], "per_class": [], "worker": "gpu-1", "attempts": tries}
    return TrialAnswer.model_validate({**row, **own})


def test_a_trial_tells_what_happened_to_each_of_its_attempts() -> None:
    text = shown(
        trial_view(
            attempts(
                {"outcome": "lost", "error": {"code": "lost", "detail": "the lease lapsed"}},
                {"outcome": "completed", "resumed_from_epoch": 2, "problems": ["disk_full: /c"]},
            )
        )
    )
    lines = [" ".join(cells(line)) for line in text.splitlines()]
    assert "1 gpu-1 lost 42 s lost: the lease lapsed" in lines
    assert "2 gpu-1 completed 42 s resumed, epochs done: 2; disk_full: /c" in lines


def test_a_trial_at_work_tells_how_far_it_is() -> None:
    answer = attempts({"outcome": None})
    running = answer.model_copy(update={"state": "running", "progress": at_work(7).progress})
    text = shown(trial_view(running))
    assert "training 120/300 steps, epoch 2 of 3, 40% done, about 3 min 10 s left" in text


def test_a_single_attempt_is_told_only_if_something_happened() -> None:
    assert "gpu-1" not in shown(trial_view(attempts({"outcome": "completed"})))
    troubled = attempts({"outcome": "completed", "problems": ["checkpoint_failed: no file"]})
    assert "checkpoint_failed: no file" in shown(trial_view(troubled))


def test_a_data_set_tells_what_was_left_out_how_it_was_read_and_what_looks_odd() -> None:
    dataset = DatasetAnswer(
        id="0a", name="notes", task="single_label", columns={"text_a": "text", "label": "label"},
        options={**dataclasses.asdict(DataOptions()), "missing": "token"}, rows={"train": 7},
        dropped={"train": {"held_out": 2, "missing": 1}}, labels=["x"],
        label_counts={"train": {"x": 7}}, missing={"train": MissingCount(text=0, label=1)},
        missing_texts={"train": {"body": 0, "notes": 2}},
        duplicates={"train": 3}, overlap={}, words={"p50": 2}, files={},
        created_at=datetime(2026, 1, 1, tzinfo=UTC), warnings=["Look [here]."],
    )  # fmt: skip
    output = io.StringIO()
    Console(width=100, file=output).print(dataset_view(dataset))
    shown = output.getvalue()
    assert re.search(r"options +missing=token\s", shown)
    assert re.search(r"train +7 +held out 2, missing 1 +label 1, in notes 2 +3 +–", shown)
    assert "warning: Look [here]." in shown
