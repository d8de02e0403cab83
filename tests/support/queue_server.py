"""The queue without HTTP: a dispatcher and a reconciler over a real database and real Optuna."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from builders import claim_request
from sqlalchemy import func, select, text, update

from service.context import ServerContext
from service.folders import Folders
from service.intake.models import ModelCatalogue
from service.queue.dispatch import Dispatcher
from service.queue.reconciler import Reconciler
from service.settings import Settings
from service.store.artifacts import put_artifact
from service.store.database import Database
from service.store.lifecycle import extend_study, pause_study, resume_study
from service.store.tables import Attempt, Study, Trial
from service.waking import Waker
from studies.search.adapter import OptunaAdapter
from studies.wire.leases import Lease
from studies.wire.studies import PauseMode


class QueueServer:
    """What a server process holds, and a view behind the scenes."""

    def __init__(self, database: Database, home: Path, optuna: OptunaAdapter, **settings: Any):
        self.database = database
        self.optuna = optuna
        stated = Settings(home=home, **settings)
        folders, waker = Folders(home), Waker()
        self.dispatcher = Dispatcher(database, optuna, stated, folders, waker)
        self.context = ServerContext(
            settings=stated,
            database=database,
            folders=folders,
            models=ModelCatalogue(()),
            optuna=optuna,
            dispatcher=self.dispatcher,
            waker=waker,
        )
        self.reconciler = Reconciler(self.context)

    def claim(self, worker: str = "worker", slot: int = 0, **fields: Any) -> Lease:
        lease = self.dispatcher.claim(claim_request(worker, slot, **fields))
        assert lease is not None
        return lease

    def pause(self, study_id: str, mode: PauseMode = "drain") -> None:
        with self.database.transaction() as session:
            pause_study(session, study_id, mode)

    def resume(self, study_id: str) -> None:
        with self.database.transaction() as session:
            resume_study(session, study_id)

    def extend(self, study_id: str, add_trials: int, key: str | None = None) -> None:
        most_trials = self.dispatcher.plans.of(study_id).resolved.most_trials
        with self.database.transaction() as session:
            extend_study(
                session, study_id, add_trials, idempotency_key=key, most_trials=most_trials
            )

    def put_model(self, trial_id: str, attempt: int = 1) -> Path:
        """As if the attempt had uploaded its model; returns the file."""
        path = self.context.folders.artifact(trial_id, attempt, "model.zip")
        path.parent.mkdir(parents=True)
        path.write_bytes(b"a model")
        with self.database.transaction() as session:
            trial = session.get_one(Trial, trial_id)
            put_artifact(session, trial, "model.zip", sha256="b" * 64, size_bytes=7)
        return path

    def trial(self, trial_id: str) -> Trial:
        with self.database.transaction() as session:
            return session.get_one(Trial, trial_id)

    def trials(self, study_id: str) -> list[Trial]:
        """The numbered trials in their order, then the evaluation."""
        with self.database.transaction() as session:
            rows = session.scalars(select(Trial).where(Trial.study_id == study_id)).all()
            return sorted(rows, key=lambda row: (row.kind == "evaluate", row.number or 0, row.id))

    def study(self, study_id: str) -> Study:
        with self.database.transaction() as session:
            return session.get_one(Study, study_id)

    def outcomes(self, trial_id: str) -> list[str | None]:
        """How the trial's attempts ended, in their order."""
        with self.database.transaction() as session:
            query = select(Attempt.outcome).where(Attempt.trial_id == trial_id)
            return list(session.scalars(query.order_by(Attempt.attempt)))

    def counts(self, table: type[Any]) -> int:
        with self.database.transaction() as session:
            return session.scalar(select(func.count()).select_from(table)) or 0

    def let_leases_lapse(self) -> None:
        """As if every worker had been silent for too long."""
        with self.database.transaction() as session:
            session.execute(
                update(Trial)
                .where(Trial.state == "running")
                .values(lease_expires_at=self.database.now_s() - 1)
            )

    def pass_time(self, seconds: float) -> None:
        """As if all that runs had begun earlier: the clocks of studies, and attempts at trials."""
        with self.database.transaction() as session:
            session.execute(update(Study).values(clock_started_at=Study.clock_started_at - seconds))
            session.execute(update(Trial).values(leased_since=Trial.leased_since - seconds))

    def optuna_states(self, study_id: str) -> Mapping[int, str]:
        """Optuna's own states by Optuna's trial id."""
        query = (
            "SELECT trials.trial_id, trials.state FROM trials JOIN studies"
            " ON studies.study_id = trials.study_id WHERE studies.study_name LIKE :name"
        )
        with self.database.reading() as session:
            rows = session.execute(text(query), {"name": f"%[{study_id}]"}).all()
        return {int(row[0]): str(row[1]) for row in rows}


@contextmanager
def queue_server(database: Database, home: Path, **settings: Any) -> Iterator[QueueServer]:
    """A server over ``database``; several may stand on one."""
    optuna = OptunaAdapter(database.url, forbid=database.forbid_transaction)
    server = QueueServer(database, home, optuna, **settings)
    yield server
    server.dispatcher.close()
    optuna.close()
