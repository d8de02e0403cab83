"""Copies of a trial, with which the benchmark fills a study, are whole, and the study goes on."""

from collections import Counter
from pathlib import Path

from builders import make_study, renew_request, result_request
from comparison.filling import fill_bertune
from queue_server import queue_server
from sqlalchemy import func, select

from service.store.database import Database
from service.store.tables import Base, Trial

BEHIND = 5


def test_a_filled_study_has_every_row_of_its_trials_and_goes_on(
    database: Database, tmp_path: Path
) -> None:
    def run_trial() -> int | None:
        lease = server.claim()
        server.dispatcher.renew(lease.trial_id, 1, renew_request(0.5, 0.75, final=0.75))
        server.dispatcher.finish(lease.trial_id, 1, result_request(0.75))
        return lease.number

    def rows() -> Counter[str]:
        tables = [table for table in Base.metadata.sorted_tables if "trial_id" in table.columns]
        with database.reading() as session:
            return Counter(
                {
                    table.name: session.scalar(select(func.count(table.c.trial_id))) or 0
                    for table in tables
                }
            )

    with queue_server(database, tmp_path) as server:
        study_id = make_study(database, n_trials=BEHIND + 2)
        before = rows()
        run_trial()
    of_one = rows() - before
    assert len(of_one) >= 5
    fill_bertune(database.url.render_as_string(hide_password=False), BEHIND)
    for name, number in of_one.items():
        assert rows()[name] - before[name] == BEHIND * number, name
    with database.reading() as session:
        trials = session.scalars(select(Trial).order_by(Trial.number)).all()
    done = trials[:BEHIND]
    assert {trial.state for trial in done} == {"completed"}
    assert len({str(trial.params) for trial in done}) == BEHIND
    assert len({trial.optuna_trial_id for trial in done}) == BEHIND
    with queue_server(database, tmp_path) as server:
        key = server.dispatcher.plans.of(study_id).key
        assert server.optuna.noted_trials(key) == {trial.optuna_trial_id for trial in done}
        assert run_trial() == BEHIND
