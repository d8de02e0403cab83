"""The queue's steps as the routes call them: claim, renew, finish, fail, release.

Each goes "commit ours, call Optuna, commit ours". Optuna is never called inside a transaction of
ours, and whatever a crash cuts off between two steps the reconciler makes up for.
"""

import logging
import math
from contextlib import suppress

from sqlalchemy import bindparam, select

from service.errors import LeaseLostError, NotFoundError
from service.folders import Folders
from service.pages.study_pages import StudyPages
from service.queue.asking import Asker, GridExhaustedError
from service.queue.file_removal import remove_files
from service.queue.lease_document import lease_document
from service.queue.renewing import Renewer
from service.queue.result_check import check_reports, check_result
from service.queue.study_lock import StudyLocks
from service.queue.study_plans import StudyPlan, StudyPlans
from service.queue.telling import Teller
from service.settings import Settings
from service.store import claims, endings, leases
from service.store.claims import Claimant, Held
from service.store.completion import cancel_queued, complete_if_done
from service.store.database import Database
from service.store.endings import Ended
from service.store.moves import close_attempt, lock_study, move_trial
from service.store.outage import is_unavailable
from service.store.tables import Trial
from service.store.workers import may_claim, meet_worker, stop_worker
from service.waking import Waker
from studies.search.adapter import OptunaAdapter
from studies.wire.leases import (
    EndAnswer,
    FailureRequest,
    Lease,
    LeaseRequest,
    ReleaseRequest,
    RenewAnswer,
    RenewRequest,
    ResultRequest,
)

logger = logging.getLogger(__name__)

_OF_TRIAL = select(Trial.study_id, Trial.kind).where(Trial.id == bindparam("trial_id"))

SHORTEST_LEASE_S = 5.0
LONGEST_LEASE = 10.0
"""Times the default lease."""


class Dispatcher:
    """Thread-safe; one per server process."""

    def __init__(
        self,
        database: Database,
        optuna: OptunaAdapter,
        settings: Settings,
        folders: Folders,
        waker: Waker,
    ) -> None:
        self.database = database
        self._optuna = optuna
        self.settings = settings
        self.plans = StudyPlans(database)
        self.locks = StudyLocks(database)
        self.teller = Teller(database, optuna)
        self.pages = StudyPages(database, optuna)
        self._asker = Asker(database, optuna, self.locks, self.teller)
        self._renewer = Renewer(database, optuna, self.plans, settings)
        self._folders = folders
        self._waker = waker
        self._clock = database.now_s()

    def close(self) -> None:
        self.pages.close()
        self.locks.close()

    # -- claim -----------------------------------------------------------------------------------

    def say_goodbye(self, worker_id: str) -> None:
        """A worker is gone, by its own word or by that of who saw it die: take its leases back.

        They count as lost; an orderly worker has none by now. Raises `NotFoundError`
        ``unknown_worker``.
        """
        with self.database.transaction() as session:
            # Claims of one worker wait for its row, so none is given out behind this look.
            stop_worker(session, worker_id)
            held = claims.held_by(session, worker_id)
        for lease in held:
            with self.database.transaction() as session:
                claims.give_up(
                    session, lease, max_lost=self.settings.max_lost, reason="its worker stopped"
                )
        if held:
            logger.info("worker %s stopped and left %d trials", worker_id, len(held))
            self._waker.wake()

    def claim(self, request: LeaseRequest, *, arrives: bool = False) -> Lease | None:
        """The next trial for this slot, ready to train; None when nothing waits for now.

        A worker that ``arrives``, beginning to ask, is noted to be there in any case.
        The same request again gets the same lease while it holds. Another request of a slot that
        holds a lease gives that one up: agents ask only with empty hands.
        """
        who = self._claimant(request)
        while (held := self._repeated(who) or self._take(who, arrives=arrives)) is not None:
            try:
                return self._prepare(held)
            except GridExhaustedError:
                self._end_search(held)
            except LeaseLostError as error:
                logger.info("%s", error.detail)
                return None
            except Exception as error:
                if is_unavailable(error):
                    raise  # no fault of the trial: the same claim, sent again, goes on from here
                logger.exception("no parameters for trial %s", held.trial_id)
                self._ask_failed(held, error)
                # Not at once again: what failed may take a moment to come back.
                return None
        return None

    def _claimant(self, request: LeaseRequest) -> Claimant:
        asked_s = request.lease_s or self.settings.lease_s
        lease_s = min(max(asked_s, SHORTEST_LEASE_S), LONGEST_LEASE * self.settings.lease_s)
        return Claimant(request.worker, request.slot, request.request_id, _device(request), lease_s)

    def _repeated(self, who: Claimant) -> Held | None:
        """The lease that this very request got before; any other one of the slot is given up."""
        with self.database.reading() as session:
            held = claims.held_by(session, who.worker, who.slot)
        same = None
        for lease in held:
            with self.database.transaction() as session:
                if lease.request_id != who.request_id:
                    claims.give_up(
                        session,
                        lease,
                        max_lost=self.settings.max_lost,
                        reason="its slot asked for another trial",
                    )
                elif claims.repeat_claim(session, self._clock, lease):
                    same = lease
        return same

    def _take(self, who: Claimant, *, arrives: bool) -> Held | None:
        """Claim from one study after the other, each in a transaction of its own: none ever waits
        for the locks of two."""
        skip: set[str] = set()
        while True:
            with self.database.reading() as session:
                study_id = None
                if may_claim(session, who.worker, arrives=arrives):
                    study_id = claims.next_study(session, self._clock, skip)
            if study_id is None:
                if arrives:
                    with self.database.transaction() as session:
                        meet_worker(session, who.worker, who.device, arrives=True)
                return None
            with self.database.transaction() as session:
                held = claims.claim(
                    session,
                    self._clock,
                    study_id,
                    who,
                    max_lost=self.settings.max_lost,
                    arrives=arrives,
                )
            if held is not None:
                return held
            skip.add(study_id)

    def _prepare(self, held: Held) -> Lease:
        """See that a claimed trial has parameters, and write the lease out."""
        plan = self.plans.of(held.study_id)
        self._asker.ensure_params(plan, held)
        with self.database.reading() as session:
            return lease_document(
                session, plan, held.trial_id, held.attempt, renew_s=self.settings.renew_s
            )

    def _end_search(self, held: Held) -> None:
        """Cancel a claimed trial of a grid that has no point left, and all that were not asked
        for yet; a queued one that has its point is tried again."""
        with self.database.transaction() as session:
            study = lock_study(session, held.study_id)
            with suppress(LeaseLostError):
                trial = leases.lock_held(session, held.trial_id, held.attempt)
                close_attempt(session, trial, "cancelled", {"reason": "the grid is exhausted"})
                move_trial(session, trial, "cancelled")
            cancel_queued(
                session, study, "the grid is exhausted", search_only=True, unasked_only=True
            )
            complete_if_done(session, study)

    def _ask_failed(self, held: Held, error: Exception) -> None:
        detail = f"{type(error).__name__}: {error}"
        failure = FailureRequest(code="ask_failed", detail=detail[:2000], retry=True)
        with suppress(LeaseLostError), self.database.transaction() as session:
            endings.fail(
                session,
                self._clock,
                held.trial_id,
                held.attempt,
                failure,
                max_crashes=self.settings.max_crashes,
            )

    # -- renew -----------------------------------------------------------------------------------

    def renew(self, trial_id: str, attempt: int, request: RenewRequest) -> RenewAnswer:
        """Extend a lease, store the epochs, and say how to go on.

        Raises `LeaseLostError`, `NotFoundError` ``unknown_trial``, `InputError`.
        """
        check_reports(request.reports)
        renewal = self._renewer.renew(trial_id, attempt, request)
        trial = renewal.trial
        if trial.state == "failed":  # at its time limit, maybe just now
            ended = Ended(trial.study_id, trial.state, attempt)
            self._after(self.plans.of(trial.study_id), trial_id, ended)
        return renewal.answer

    # -- end -------------------------------------------------------------------------------------

    def finish(self, trial_id: str, attempt: int, result: ResultRequest) -> EndAnswer:
        """Record a result in one transaction, then tell Optuna.

        A completed trial whose value is not finite failed. Raises `InputError` for a result that
        does not fit the study, `LeaseLostError`, `NotFoundError` ``unknown_trial``.
        """
        plan, kind = self._plan_of(trial_id)
        check_result(
            result,
            metric=plan.key.metric,
            labels=plan.labels,
            kind=kind,
            task=plan.resolved.task,
            heads=plan.resolved.heads,
        )
        if result.value is not None and not math.isfinite(result.value):
            detail = f"The value of {plan.key.metric} was {result.value}."
            if result.state == "completed":
                failure = FailureRequest(code="non_finite_value", detail=detail)
                return self.fail(trial_id, attempt, failure)
        with self.database.transaction() as session:
            ended = endings.finish(session, self._clock, trial_id, attempt, result)
        return self._after(plan, trial_id, ended)

    def fail(self, trial_id: str, attempt: int, failure: FailureRequest) -> EndAnswer:
        """Record a bad end; raises `LeaseLostError`, `NotFoundError` ``unknown_trial``."""
        plan, _ = self._plan_of(trial_id)
        with self.database.transaction() as session:
            ended = endings.fail(
                session,
                self._clock,
                trial_id,
                attempt,
                failure,
                max_crashes=self.settings.max_crashes,
            )
        return self._after(plan, trial_id, ended)

    def release(self, trial_id: str, attempt: int, request: ReleaseRequest) -> EndAnswer:
        """Take a trial back unharmed; raises `LeaseLostError`, `NotFoundError`."""
        plan, _ = self._plan_of(trial_id)
        with self.database.transaction() as session:
            ended = endings.release(session, self._clock, trial_id, attempt, request.reason)
        return self._after(plan, trial_id, ended)

    def _after(self, plan: StudyPlan, trial_id: str, ended: Ended) -> EndAnswer:
        """What follows a commit; the reconciler does what is left undone here."""
        remove_files(self._folders, ended.unused)
        try:
            with self.locks.hold(plan.study_id):
                self.teller.tell_ended(plan)
        except Exception:
            logger.exception("Optuna was not told of trial %s", trial_id)
        if ended.state in ("completed", "pruned", "failed"):
            self.pages.refresh(plan, trial_id)
        self._waker.wake()
        return EndAnswer(state=ended.state, attempt=ended.attempt)

    def _plan_of(self, trial_id: str) -> tuple[StudyPlan, str]:
        """The plan of a trial's study, and the trial's kind."""
        with self.database.reading() as session:
            found = session.execute(_OF_TRIAL, {"trial_id": trial_id}).one_or_none()
        if found is None:
            raise NotFoundError(f"There is no trial {trial_id}.", code="unknown_trial")
        return self.plans.of(found.study_id), found.kind


def _device(request: LeaseRequest) -> dict[str, object] | None:
    return request.device.model_dump(mode="json") if request.device else None
