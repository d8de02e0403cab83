"""The Optuna adapter on real databases: its promises, and the traps it is built around."""

import json
import logging
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text

from model.errors import InputError
from service.store.database import Database, OpenTransactionError
from studies.search.adapter import Asked, NotInOptunaError, OptunaAdapter
from studies.search.study_key import StudyKey
from studies.space import Choices, FloatRange, IntRange, Params, SearchSpace
from studies.spec import (
    Hyperband,
    Median,
    NoPruner,
    Pruner,
    Qmc,
    RandomSearch,
    Sampler,
    StudySpec,
    SuccessiveHalving,
    Threshold,
    Tpe,
)

SPACE: SearchSpace = {
    "learning_rate": FloatRange(low=1e-4, high=3e-3, log=True),
    "batch_size": Choices(choices=(16, 32, 64)),
    "max_length": IntRange(low=16, high=120, step=16),
    "dropout": FloatRange(low=0.1, high=0.4, step=0.1),
}
JOIN_S = 30.0


@pytest.fixture
def adapter(database: Database) -> Iterator[OptunaAdapter]:
    made = OptunaAdapter(database.url, forbid=database.forbid_transaction)
    yield made
    made.close()


def key_of(
    name: str = "tickets [1]",
    *,
    sampler: Sampler | None = None,
    pruner: Pruner | None = None,
    seed: int = 3,
    space: SearchSpace | None = None,
    max_epochs: int = 9,
) -> StudyKey:
    spec = StudySpec(
        name="tickets",
        dataset="d",
        seed=seed,
        sampler=sampler or RandomSearch(),
        pruner=pruner or NoPruner(),
    )
    return StudyKey(
        optuna_name=name,
        direction="maximize",
        metric="macro_f1",
        spec=spec,
        space=SPACE if space is None else space,
        max_epochs=max_epochs,
    )


def created(adapter: OptunaAdapter, key: StudyKey) -> StudyKey:
    adapter.create_study(key)
    return key


def stored(adapter: OptunaAdapter, key: StudyKey) -> list[FrozenTrial]:
    """The study's trials as another reader of the database finds them."""
    storage = optuna.storages.get_storage(adapter._reader_rdb)
    return storage.get_all_trials(storage.get_study_id_from_name(key.optuna_name))


def stored_trial(adapter: OptunaAdapter, key: StudyKey, asked: Asked) -> FrozenTrial:
    return next(t for t in stored(adapter, key) if t._trial_id == asked.optuna_trial_id)


def page(adapter: OptunaAdapter, path: str, method: str = "GET", body: object = None) -> Any:
    """Status and JSON of one request to Optuna's pages."""
    sent = b"" if body is None else json.dumps(body).encode()
    status: list[str] = []
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(sent)),
        "wsgi.input": BytesIO(sent),
        "wsgi.errors": BytesIO(),
        "wsgi.url_scheme": "http",
    }
    answer = adapter.wsgi_app()(environ, lambda line, headers, exc=None: status.append(line))  # type: ignore[arg-type]
    text_ = b"".join(answer).decode()
    return int(status[0].split()[0]), json.loads(text_) if text_ else None


def page_of_study(adapter: OptunaAdapter, key: StudyKey) -> dict[str, Any]:
    status, studies = page(adapter, "/api/studies")
    assert status == 200
    found = [s for s in studies["study_summaries"] if s["study_name"] == key.optuna_name]
    status, detail = page(adapter, f"/api/studies/{found[0]['study_id']}")
    assert status == 200
    assert isinstance(detail, dict)
    return detail


def together(work: list[Callable[[], object]]) -> None:
    """Run all at once, started by one barrier; the first error is raised here."""
    barrier = threading.Barrier(len(work))

    def run(one: Callable[[], object]) -> object:
        barrier.wait(JOIN_S)
        return one()

    with ThreadPoolExecutor(len(work)) as pool:
        for done in [pool.submit(run, one) for one in work]:
            done.result(JOIN_S)


# -- asking --------------------------------------------------------------------------------------


def play(adapter: OptunaAdapter, key: StudyKey, *, orphans: bool = False) -> list[object]:
    """Twelve trials of four epochs, made up; their parameters and where they were pruned."""
    history: list[object] = []
    for number in range(12):
        if orphans and number % 3 == 0:  # an ask whose answer nobody stored
            adapter.ask(key, number, f"trial-{number}", {})
        fixed: Params = {"max_length": 50} if number == 2 else {}
        asked = adapter.ask(key, number, f"trial-{number}", fixed)
        top = -abs(math.log10(float(asked.params["learning_rate"]) / 1e-3))
        stopped = None
        for epoch in range(4):
            value = top - 1 / (epoch + 1)
            if adapter.report(key, asked.optuna_trial_id, {epoch: value}):
                stopped = epoch
                break
        outcome = "completed" if stopped is None else "pruned"
        adapter.tell(key, asked.optuna_trial_id, outcome, value)  # type: ignore[arg-type]
        history.append((asked.params, stopped))
    return history


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [
        (Tpe(n_startup_trials=4), Hyperband()),
        (Tpe(n_startup_trials=4, multivariate=True), Median(n_startup_trials=3)),
        (RandomSearch(), SuccessiveHalving()),
        (Qmc(), Median(n_startup_trials=3)),
        (Qmc(qmc_type="halton", scramble=False), NoPruner()),
    ],
    ids=["tpe", "tpe multivariate", "random", "sobol", "halton"],
)
def test_a_study_repeats_itself_under_another_name_and_in_spite_of_lost_asks(
    adapter: OptunaAdapter, sampler: Sampler, pruner: Pruner
) -> None:
    turned = dict(reversed(SPACE.items()))  # as a database may give it back
    first = created(adapter, key_of("first [1]", sampler=sampler, pruner=pruner))
    second = created(adapter, key_of("second [2]", sampler=sampler, pruner=pruner, space=turned))
    history = play(adapter, first)
    assert play(adapter, second, orphans=True) == history
    assert len({str(params) for params, _ in history}) == 12  # type: ignore[misc, has-type]
    lost = [t for t in stored(adapter, second) if t.state is TrialState.FAIL]
    assert len(lost) == 4


def test_another_seed_gives_another_study(adapter: OptunaAdapter) -> None:
    drawn = [
        adapter.ask(created(adapter, key_of(f"s [{seed}]", seed=seed)), 0, "t", {}).params
        for seed in (0, 1)
    ]
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("sampler", [Tpe(), RandomSearch(), Qmc()], ids=lambda s: s.name)
def test_asks_at_the_same_time_give_different_trials(
    adapter: OptunaAdapter, sampler: Sampler
) -> None:
    key = created(adapter, key_of(sampler=sampler))
    asked: list[Asked] = []
    together(
        [lambda n=n: asked.append(adapter.ask(key, n, f"trial-{n}", {})) for n in range(8)]  # type: ignore[misc]
    )
    assert len({tuple(a.params.values()) for a in asked}) == 8
    assert {a.optuna_number for a in asked} == set(range(8))
    assert {r.owner for r in adapter.running(key)} == {f"trial-{n}" for n in range(8)}


def test_an_ask_stores_what_it_answers_and_names_its_owner(adapter: OptunaAdapter) -> None:
    key = created(adapter, key_of())
    asked = adapter.ask(key, 5, "01abc", {})
    trial = stored_trial(adapter, key, asked)
    assert trial.state is TrialState.RUNNING
    assert trial.params == asked.params
    assert trial.user_attrs == {"bertune_number": 5, "bertune_owner": "01abc"}
    assert list(asked.params) == list(SPACE)


def test_fixed_values_are_kept_as_the_exact_choice_and_type(adapter: OptunaAdapter) -> None:
    """120 lies beyond the last step, 50 between two steps; Optuna itself would warn at both."""
    key = created(adapter, key_of())
    first = adapter.ask(key, 0, "a", {"batch_size": 32.0, "max_length": 120.0})
    assert first.params["batch_size"] == 32
    assert first.params["max_length"] == 120
    assert [type(first.params[name]) for name in ("batch_size", "max_length")] == [int, int]
    second = adapter.ask(key, 1, "b", {"max_length": 50, "dropout": 0.25})
    trial = stored_trial(adapter, key, second)
    assert trial.params["max_length"] == second.params["max_length"] == 50
    assert trial.params["dropout"] == 0.25


def test_tpe_learns_from_values_beside_its_steps(adapter: OptunaAdapter) -> None:
    key = created(adapter, key_of(sampler=Tpe(n_startup_trials=2)))
    for number, length in enumerate([120, 50, 17]):
        asked = adapter.ask(key, number, f"t{number}", {"max_length": length})
        adapter.tell(key, asked.optuna_trial_id, "completed", float(number))
    drawn = adapter.ask(key, 3, "t3", {}).params["max_length"]
    assert drawn in range(16, 121, 16)


def test_a_value_that_is_not_in_the_space_is_refused_before_anything_is_stored(
    adapter: OptunaAdapter,
) -> None:
    key = created(adapter, key_of())
    with pytest.raises(InputError, match="must be one of"):
        adapter.ask(key, 0, "a", {"batch_size": 48})
    with pytest.raises(InputError, match="not searched") as raised:
        adapter.ask(key, 0, "a", {"epochs": 3})
    assert raised.value.where == ("fixed", "epochs")
    assert stored(adapter, key) == []


def test_an_ask_that_fails_leaves_nothing_running(
    adapter: OptunaAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = created(adapter, key_of())

    def broken(*_: object) -> float:
        raise RuntimeError("the sampler broke")

    monkeypatch.setattr(optuna.samplers.RandomSampler, "sample_independent", broken)
    with pytest.raises(RuntimeError, match="the sampler broke"):
        adapter.ask(key, 0, "a", {})
    monkeypatch.undo()
    assert stored(adapter, key) == []
    assert adapter.running(key) == []


def test_asking_again_for_the_same_owner_fails_the_leftover_and_draws_the_same(
    adapter: OptunaAdapter,
) -> None:
    key = created(adapter, key_of(sampler=Tpe()))
    lost = adapter.ask(key, 0, "01abc", {})
    other = adapter.ask(key, 1, "01xyz", {})
    again = adapter.ask(key, 0, "01abc", {})
    assert again.params == lost.params
    assert stored_trial(adapter, key, lost).state is TrialState.FAIL
    running = {r.optuna_trial_id for r in adapter.running(key)}
    assert running == {other.optuna_trial_id, again.optuna_trial_id}


def test_asking_without_a_study_says_so(adapter: OptunaAdapter) -> None:
    with pytest.raises(NotInOptunaError, match="tickets"):
        adapter.ask(key_of(), 0, "a", {})
    assert adapter.running(key_of()) == []


def test_creating_a_study_again_changes_nothing(adapter: OptunaAdapter) -> None:
    key = created(adapter, key_of())
    asked = adapter.ask(key, 0, "a", {})
    adapter.create_study(key)
    assert [t._trial_id for t in stored(adapter, key)] == [asked.optuna_trial_id]


# -- reporting and pruning -----------------------------------------------------------------------


def test_the_first_report_of_a_step_stays_and_infinite_ones_are_left_out(
    adapter: OptunaAdapter,
) -> None:
    key = created(adapter, key_of())
    asked = adapter.ask(key, 0, "a", {})
    for step, value in [(0, 0.5), (0, 0.9), (1, math.nan), (2, math.inf), (3, 0.6)]:
        adapter.report(key, asked.optuna_trial_id, {step: value})
    adapter.tell(key, asked.optuna_trial_id, "completed", 0.6)
    adapter.report(key, asked.optuna_trial_id, {4: 0.7})  # late: the trial is finished
    assert stored_trial(adapter, key, asked).intermediate_values == {0: 0.5, 3: 0.6}


def run_reports(
    adapter: OptunaAdapter, key: StudyKey, number: int, values: list[float]
) -> list[bool]:
    """Report values until the end or the pruner's word, then tell it; what the pruner said."""
    asked = adapter.ask(key, number, f"trial-{number}", {})
    said: list[bool] = []
    for step, value in enumerate(values):
        said.append(adapter.report(key, asked.optuna_trial_id, {step: value}))
        if said[-1]:
            adapter.tell(key, asked.optuna_trial_id, "pruned", None)
            return said
    adapter.tell(key, asked.optuna_trial_id, "completed", values[-1])
    return said


def test_the_median_pruner_stops_what_is_below_the_median_of_completed_trials(
    adapter: OptunaAdapter,
) -> None:
    key = created(adapter, key_of(pruner=Median(n_startup_trials=3, n_warmup_steps=1)))
    for number, level in enumerate([0.2, 0.4, 0.6]):
        assert run_reports(adapter, key, number, [level, level]) == [False, False]
    # The median is 0.4; the first step is warm-up.
    assert run_reports(adapter, key, 3, [0.3, 0.3]) == [False, True]
    assert run_reports(adapter, key, 4, [0.3, 0.41]) == [False, False]


def test_the_threshold_pruner_stops_what_leaves_the_bounds(adapter: OptunaAdapter) -> None:
    key = created(adapter, key_of(pruner=Threshold(lower=0.1, upper=2.0)))
    assert run_reports(adapter, key, 0, [0.1, 2.0, 0.05]) == [False, False, True]
    assert run_reports(adapter, key, 1, [2.5]) == [True]


def test_successive_halving_keeps_the_best_third_at_each_rung(adapter: OptunaAdapter) -> None:
    key = created(adapter, key_of(pruner=SuccessiveHalving(min_resource=1, reduction_factor=3)))
    # Rungs are at steps 1 and 3. The first to arrive leads its rung.
    assert run_reports(adapter, key, 0, [0.5, 0.5, 0.5, 0.5]) == [False] * 4
    assert run_reports(adapter, key, 1, [0.4, 0.4]) == [False, True]
    assert run_reports(adapter, key, 2, [0.6, 0.6, 0.6, 0.4]) == [False, False, False, True]


def test_a_retry_that_reports_its_steps_again_is_judged_as_before(adapter: OptunaAdapter) -> None:
    key = created(adapter, key_of(pruner=SuccessiveHalving()))
    run_reports(adapter, key, 0, [0.5, 0.5])
    asked = adapter.ask(key, 1, "b", {})
    for _ in range(2):  # the second attempt goes through the same epochs
        assert not adapter.report(key, asked.optuna_trial_id, {0: 0.7})
        assert not adapter.report(key, asked.optuna_trial_id, {1: 0.7})


def test_hyperband_takes_the_epochs_of_the_study_and_brackets_from_the_seed(
    adapter: OptunaAdapter,
) -> None:
    """Nine epochs and a factor of three make three brackets, which prune from steps 1, 3, 9."""

    def first_prunes(name: str, seed: int) -> list[int]:
        key = created(adapter, key_of(name, seed=seed, pruner=Hyperband(), max_epochs=9))
        falling = [[1.0 - number / 100] * 9 for number in range(10)]
        return [sum(not p for p in run_reports(adapter, key, n, falling[n])) for n in range(10)]

    once = first_prunes("one [1]", 4)
    assert first_prunes("two [2]", 4) == once
    assert first_prunes("three [3]", 1) != once
    assert set(once) == {1, 3, 9}


def test_hyperband_survives_fewer_epochs_than_its_smallest_rung(adapter: OptunaAdapter) -> None:
    key = created(adapter, key_of(pruner=Hyperband(min_resource=4), max_epochs=2))
    assert run_reports(adapter, key, 0, [0.5, 0.5]) == [False, False]


# -- telling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_value_that_is_not_finite_fails_the_trial(adapter: OptunaAdapter, value: float) -> None:
    key = created(adapter, key_of())
    asked = adapter.ask(key, 0, "a", {})
    adapter.tell(key, asked.optuna_trial_id, "completed", value)
    trial = stored_trial(adapter, key, asked)
    assert (trial.state, trial.value) == (TrialState.FAIL, None)


def test_telling_twice_leaves_the_first_end(adapter: OptunaAdapter) -> None:
    key = created(adapter, key_of())
    asked = adapter.ask(key, 0, "a", {})
    adapter.tell(key, asked.optuna_trial_id, "completed", 0.5)
    adapter.tell(key, asked.optuna_trial_id, "completed", 0.9)
    adapter.tell(key, asked.optuna_trial_id, "failed", None)
    trial = stored_trial(adapter, key, asked)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.5)
    assert not adapter.report(key, asked.optuna_trial_id, {})


def test_a_completed_trial_needs_a_value(adapter: OptunaAdapter) -> None:
    key = created(adapter, key_of())
    asked = adapter.ask(key, 0, "a", {})
    with pytest.raises(ValueError, match="needs a value"):
        adapter.tell(key, asked.optuna_trial_id, "completed", None)


def test_a_trial_of_another_study_is_not_touched(adapter: OptunaAdapter) -> None:
    """An id may be a deleted trial's that SQLite gave out again."""
    mine = created(adapter, key_of("mine [1]"))
    other = created(adapter, key_of("other [2]"))
    asked = adapter.ask(mine, 0, "a", {})
    trial_id = asked.optuna_trial_id
    refused: list[Callable[[], object]] = [
        lambda: adapter.report(other, trial_id, {0: 0.5}),
        lambda: adapter.tell(other, trial_id, "completed", 0.5),
        lambda: adapter.set_trial_note(other, trial_id, "note"),
        lambda: adapter.tell(mine, trial_id + 1000, "completed", 0.5),
    ]
    for call in refused:
        with pytest.raises(NotInOptunaError):
            call()
    assert stored_trial(adapter, mine, asked).state is TrialState.RUNNING


def test_running_trials_are_found_without_loading_the_study(
    adapter: OptunaAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = created(adapter, key_of())
    asked = [adapter.ask(key, number, f"owner-{number}", {}) for number in range(3)]
    adapter.tell(key, asked[1].optuna_trial_id, "completed", 0.5)
    other = created(adapter, key_of("invoices [2]"))
    adapter.ask(other, 0, "owner-0", {})

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("every trial was read")

    monkeypatch.setattr(type(adapter._storage), "get_all_trials", refuse)
    assert [(trial.optuna_trial_id, trial.owner) for trial in adapter.running(key)] == [
        (asked[0].optuna_trial_id, "owner-0"),
        (asked[2].optuna_trial_id, "owner-2"),
    ]
    assert adapter.running(key_of("nobody [3]")) == []


def test_a_waiting_trial_that_somebody_else_enqueued_can_be_failed(adapter: OptunaAdapter) -> None:
    key = created(adapter, key_of())
    optuna.load_study(study_name=key.optuna_name, storage=adapter._storage).enqueue_trial({})
    (foreign,) = adapter.running(key)
    assert foreign.owner is None
    adapter.tell(key, foreign.optuna_trial_id, "failed", None)
    assert adapter.running(key) == []


@pytest.mark.parametrize("multivariate", [False, True])
def test_out_of_memory_or_time_steers_the_sampler_away_where_a_failure_would_not(
    adapter: OptunaAdapter, multivariate: bool
) -> None:
    """A batch size of 64 reports the best values of all, and then never fits."""

    def tries_of_64(name: str, outcome: Any) -> int:
        key = created(
            adapter, key_of(name, sampler=Tpe(n_startup_trials=8, multivariate=multivariate))
        )
        drawn = []
        for number in range(40):
            asked = adapter.ask(key, number, f"trial-{number}", {})
            drawn.append(asked.params["batch_size"])
            value = 0.5 + float(asked.params["learning_rate"])
            if drawn[-1] == 64:
                adapter.report(key, asked.optuna_trial_id, {0: 0.99})
                adapter.tell(key, asked.optuna_trial_id, outcome, None)
            else:
                adapter.tell(key, asked.optuna_trial_id, "completed", value)
        return drawn[10:].count(64)

    # Chance alone would try it ten times in these thirty trials.
    assert tries_of_64("memory [1]", "out_of_memory") <= 6
    assert tries_of_64("time [2]", "out_of_time") <= 6
    assert tries_of_64("failed [3]", "failed") >= 12


# -- the database --------------------------------------------------------------------------------


def test_every_call_is_refused_inside_a_transaction_of_ours(
    adapter: OptunaAdapter, database: Database
) -> None:
    key = created(adapter, key_of())
    asked = adapter.ask(key, 0, "a", {})
    trial_id = asked.optuna_trial_id
    calls: list[Callable[[], object]] = [
        lambda: adapter.create_study(key),
        lambda: adapter.ask(key, 1, "b", {}),
        lambda: adapter.report(key, trial_id, {0: 0.5}),
        lambda: adapter.tell(key, trial_id, "completed", 0.5),
        lambda: adapter.running(key),
        lambda: adapter.set_note(key, "note"),
        lambda: adapter.set_trial_note(key, trial_id, "note"),
        lambda: adapter.set_figure(key, "matrix", {}),
        lambda: adapter.delete_study(key.optuna_name),
        lambda: adapter.wsgi_app(),
    ]
    for call in calls:
        with database.transaction(), pytest.raises(OpenTransactionError):
            call()
    assert stored_trial(adapter, key, asked).state is TrialState.RUNNING


def test_optuna_waits_for_a_transaction_of_ours_in_another_thread(
    adapter: OptunaAdapter, database: Database
) -> None:
    key = created(adapter, key_of())
    begun, end = threading.Event(), threading.Event()

    def hold() -> None:
        with database.transaction() as session:
            session.execute(text("CREATE TABLE ours (id INTEGER)"))
            begun.set()
            assert end.wait(JOIN_S)

    with ThreadPoolExecutor(2) as pool:
        holding = pool.submit(hold)
        assert begun.wait(JOIN_S)
        asking = pool.submit(adapter.ask, key, 0, "a", {})
        shown = page_of_study(adapter, key)["trials"]  # the pages wait for nobody
        assert shown == [] or not database.is_sqlite
        end.set()
        holding.result(JOIN_S)
        assert asking.result(JOIN_S).optuna_number == 0


def test_a_reader_of_the_pages_holds_up_no_ask(adapter: OptunaAdapter) -> None:
    key = created(adapter, key_of())
    with adapter._reader_rdb.engine.begin() as reading:
        count = text("SELECT count(*) FROM trials")
        assert reading.scalar(count) == 0
        with ThreadPoolExecutor(1) as pool:
            pool.submit(adapter.ask, key, 0, "a", {}).result(JOIN_S)
    assert len(stored(adapter, key)) == 1


def test_many_threads_at_once_lose_nothing(adapter: OptunaAdapter, database: Database) -> None:
    keys = [
        created(adapter, key_of(f"s [{n}]", sampler=Tpe(), pruner=SuccessiveHalving()))
        for n in range(2)
    ]

    def work(slot: int) -> None:
        key = keys[slot % 2]
        for round_ in range(4):
            number = (slot // 2) * 4 + round_
            asked = adapter.ask(key, number, f"trial-{number}", {})
            with database.transaction() as session:  # our own writes go on in between
                session.execute(text("CREATE TABLE IF NOT EXISTS ours (id INTEGER)"))
            for step in range(3):
                adapter.report(key, asked.optuna_trial_id, {step: number / 100})
            adapter.tell(key, asked.optuna_trial_id, "completed", number / 100)

    with database.transaction() as session:
        session.execute(text("CREATE TABLE ours (id INTEGER)"))
    together([lambda slot=slot: work(slot) for slot in range(8)])  # type: ignore[misc]
    for key in keys:
        trials = stored(adapter, key)
        assert [t.number for t in trials] == list(range(16))
        assert {t.user_attrs["bertune_number"] for t in trials} == set(range(16))
        assert {t.state for t in trials} == {TrialState.COMPLETE}
        assert all(len(t.intermediate_values) == 3 for t in trials)


@pytest.mark.parametrize("kind", ["postgresql"])  # on SQLite there is one server, by design
def test_servers_that_start_at_once_make_the_tables_once(empty_database: Database) -> None:
    made: list[OptunaAdapter] = []
    together([lambda: made.append(OptunaAdapter(empty_database.url))] * 4)
    for adapter in made:
        created(adapter, key_of())
        adapter.close()


@pytest.mark.parametrize("kind", ["postgresql"])  # on SQLite there is one server, by design
def test_two_servers_may_tell_the_same_trial(database: Database) -> None:
    adapters = [OptunaAdapter(database.url) for _ in range(2)]
    key = created(adapters[0], key_of())
    asked = [adapters[0].ask(key, number, f"t{number}", {}).optuna_trial_id for number in range(5)]
    for trial_id in asked:
        together([partial(a.tell, key, trial_id, "completed", 0.5) for a in adapters])
    assert {t.state for t in stored(adapters[1], key)} == {TrialState.COMPLETE}
    for adapter in adapters:
        adapter.close()


def test_an_address_may_hold_braces_and_percent_signs(tmp_path: Path) -> None:
    folder = tmp_path / "run {1} 50%"
    folder.mkdir()
    adapter = OptunaAdapter(f"sqlite:///{folder / 'b.db'}")
    adapter.ask(created(adapter, key_of()), 0, "a", {})
    adapter.close()
    assert (folder / "b.db").is_file()


def test_nothing_is_printed_and_only_warnings_are_logged(
    database: Database, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        adapter = OptunaAdapter(database.url)
        play(adapter, created(adapter, key_of(sampler=Qmc(), pruner=Hyperband())))
        adapter.close()
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    assert [r for r in caplog.records if r.name.startswith("optuna")] == []


# -- deletion ------------------------------------------------------------------------------------


def rows_of_trials(database: Database) -> int:
    tables = ("trials", "trial_params", "trial_values", "trial_intermediate_values")
    with database.reading() as session:
        return sum(
            session.scalar(text(f"SELECT count(*) FROM {table}")) or 0
            for table in (*tables, "trial_user_attributes", "trial_system_attributes")
        )


def names_on_pages(adapter: OptunaAdapter) -> list[str]:
    return [s["study_name"] for s in page(adapter, "/api/studies")[1]["study_summaries"]]


def test_a_deleted_study_is_hidden_at_once_and_its_ids_are_not_given_out_again(
    adapter: OptunaAdapter, database: Database
) -> None:
    old = created(adapter, key_of("old [1]", pruner=SuccessiveHalving()))
    run_reports(adapter, old, 0, [0.5, 0.5])
    old_ids = {t._trial_id for t in stored(adapter, old)}
    old_study = page_of_study(adapter, old)
    gone = adapter.delete_study(old.optuna_name)
    assert gone is not database.is_sqlite  # on SQLite it holds the newest ids
    assert names_on_pages(adapter) == []
    new = created(adapter, key_of("new [2]"))
    asked = adapter.ask(new, 0, "a", {})
    assert asked.optuna_trial_id not in old_ids
    assert adapter.delete_study(old.optuna_name)
    assert adapter.delete_study(old.optuna_name)  # again: nothing to do
    assert names_on_pages(adapter) == ["new [2]"]
    assert rows_of_trials(database) == 1 + len(SPACE) + 2  # the new one, its values, two attributes
    assert old_study["name"] == "old [1]"
    with pytest.raises(NotInOptunaError):
        adapter.report(old, min(old_ids), {0: 0.5})


def test_a_study_that_holds_the_newest_trial_waits_too(
    adapter: OptunaAdapter, database: Database
) -> None:
    first, second = created(adapter, key_of("a [1]")), created(adapter, key_of("b [2]"))
    adapter.ask(first, 0, "a", {})
    assert adapter.delete_study(first.optuna_name) is not database.is_sqlite
    adapter.ask(second, 0, "b", {})
    assert adapter.delete_study(first.optuna_name)


# -- the pages -----------------------------------------------------------------------------------


def test_the_pages_show_curves_notes_and_the_figure(adapter: OptunaAdapter) -> None:
    key = created(adapter, key_of())
    asked = adapter.ask(key, 0, "a", {})
    for step in range(3):
        adapter.report(key, asked.optuna_trial_id, {step: step / 10})
    adapter.tell(key, asked.optuna_trial_id, "completed", 0.2)
    figure = {"data": [{"type": "heatmap", "z": [[1, 0], [0, 1]]}], "layout": {"height": 450}}
    adapter.set_note(key, "# study " + "x" * 5000)
    adapter.set_note(key, "# shorter")
    adapter.set_trial_note(key, asked.optuna_trial_id, "# trial " + "é|" * 3000)
    adapter.set_figure(key, "confusion-matrix", figure)
    adapter.set_figure(key, "confusion-matrix", figure)
    detail = page_of_study(adapter, key)
    (trial,) = detail["trials"]
    assert trial["intermediate_values"] == [{"step": s, "value": s / 10} for s in range(3)]
    assert trial["note"]["body"] == "# trial " + "é|" * 3000
    assert detail["note"]["body"] == "# shorter"
    assert detail["objective_names"] == ["macro_f1"]
    assert [(g["id"], json.loads(g["graph_object"])) for g in detail["plotly_graph_objects"]] == [
        ("confusion-matrix", figure)
    ]
    facts = {a["key"]: a["value"] for a in detail["user_attrs"]}
    assert facts == {
        "dataset": "d",
        "model": "scratch:tiny",
        "sampler": "random",
        "pruner": "none",
        "seed": "3",
    }


def test_each_trial_shows_its_own_note(adapter: OptunaAdapter) -> None:
    keys = [created(adapter, key_of(f"s [{n}]")) for n in range(2)]
    for key in keys:
        for number in range(12):  # ids of one and of two digits
            asked = adapter.ask(key, number, f"t{number}", {})
            if number != 5:
                adapter.set_trial_note(key, asked.optuna_trial_id, f"{key.optuna_name} {number}")
    for key in keys:
        notes = [trial["note"]["body"] for trial in page_of_study(adapter, key)["trials"]]
        assert notes == [f"{key.optuna_name} {n}" if n != 5 else "" for n in range(12)]


def test_a_note_rewritten_gets_a_higher_version(adapter: OptunaAdapter) -> None:
    """A page that is open compares versions to notice that the text has changed."""
    key = created(adapter, key_of())
    adapter.set_note(key, "one")
    before = page_of_study(adapter, key)["note"]["version"]
    adapter.set_note(key, "two")
    assert page_of_study(adapter, key)["note"]["version"] > before


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/studies", {"study_name": "x", "directions": ["maximize"]}),
        ("DELETE", "/api/studies/1", {}),
        ("PUT", "/api/studies/1/note", {"version": 1, "body": "edited"}),
        ("POST", "/api/trials/1/tell", {"state": "complete", "values": [9.0]}),
    ],
)
def test_the_pages_storage_can_write_nothing(
    adapter: OptunaAdapter, method: str, path: str, body: object
) -> None:
    key = created(adapter, key_of())
    asked = adapter.ask(key, 0, "a", {})
    assert asked.optuna_trial_id == 1
    status, _ = page(adapter, path, method, body)
    assert status == 500
    assert names_on_pages(adapter) == [key.optuna_name]
    assert page_of_study(adapter, key)["note"]["body"] == ""
    assert stored_trial(adapter, key, asked).state is TrialState.RUNNING
