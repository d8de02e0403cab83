"""A study in hand: how it stands, and the calls that steer it and read its trials."""

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING, Generic, TypeVar, Unpack, cast

from studies.api import CALLS, Api, AsyncApi
from studies.asking import work
from studies.calling import Awaiting, Blocking, Steps, call
from studies.connection import AsyncConnection, Connection
from studies.following import EventOptions
from studies.handles.trial import AsyncTrial, Trial, figure
from studies.states import StudyState
from studies.wire.events import EventAnswer
from studies.wire.studies import BestTrial, PauseMode, StudyAnswer, TestScore
from studies.wire.trials import TrialAnswer

if TYPE_CHECKING:
    import pandas as pd

StudyT = TypeVar("StudyT")
TrialT = TypeVar("TrialT")


class HeldStudy(Generic[StudyT, TrialT]):
    """A study as it was when it was last read. Every call reads it anew and gives the study
    itself, so that they can be chained."""

    def __init__(self, answer: StudyAnswer) -> None:
        self.answer = answer
        """All that the server said."""

    @property
    def id(self) -> str:
        return self.answer.id

    @property
    def name(self) -> str:
        return self.answer.name

    @property
    def state(self) -> StudyState:
        return self.answer.state

    @property
    def test(self) -> TestScore | None:
        """The best model on the test split, once it was opened."""
        return self.answer.test

    @property
    def best(self) -> TrialT | None:
        """The best completed trial so far, None before the first."""
        return None if self.answer.best is None else self._trial(self.answer.best)

    @call
    def refresh(self) -> Steps[StudyT]:
        """Read it anew."""
        return self._take(CALLS.study(self.id))

    @call
    def wait(
        self,
        timeout_s: float | None = None,
        progress: Callable[[StudyT], object] | None = None,
        poll_s: float = 1.0,
    ) -> Steps[StudyT]:
        """Return once the study has completed, failed or been cancelled.

        ``progress`` gets the study at first and then whenever something about it changed. Raises
        `WaitTimeoutError` after ``timeout_s``; the study goes on. A short outage of the server is
        waited out.
        """

        def changed(answer: StudyAnswer) -> object:
            self.answer = answer
            return None if progress is None else progress(self._self)

        return self._take(CALLS.wait(self.id, timeout_s, on_change=changed, poll_s=poll_s))

    @call
    def trials(self) -> "Steps[pd.DataFrame]":
        """Its trials as a pandas frame: a row each, ``params_…`` and ``metrics_…`` as columns.

        Raises `ModuleNotFoundError` without pandas.
        """
        from studies.handles.trial_frame import trial_frame

        trials = yield from CALLS.trials(self.id)
        return (yield from work(lambda: trial_frame(trials)))

    @call
    def trial(self, number: int) -> Steps[TrialT]:
        return self._trial((yield from CALLS.trial(self.id, number)))

    @call
    def pause(self, mode: PauseMode = "drain") -> Steps[StudyT]:
        """Start no more of its trials until `resume`; running ones finish (``drain``), or save a
        checkpoint and go back to the queue (``preempt``)."""
        return self._take(CALLS.pause(self.id, mode))

    @call
    def resume(self) -> Steps[StudyT]:
        return self._take(CALLS.resume(self.id))

    @call
    def cancel(self) -> Steps[StudyT]:
        """Stop it for good: queued trials are dropped, running ones stop at their next report."""
        return self._take(CALLS.cancel(self.id))

    @call
    def extend(self, add_trials: int, idempotency_key: str | None = None) -> Steps[StudyT]:
        """Add trials to a study that has completed, or is open."""
        return self._take(CALLS.extend(self.id, add_trials, idempotency_key))

    @call
    def delete(self) -> Steps[None]:
        """Remove it, its trials and its files for good. The data set stays."""
        return CALLS.delete(self.id)

    def _take(self, steps: Steps[StudyAnswer]) -> Steps[StudyT]:
        self.answer = yield from steps
        return self._self

    @property
    def _self(self) -> StudyT:
        return cast(StudyT, self)

    @abstractmethod
    def _trial(self, answer: BestTrial | TrialAnswer) -> TrialT: ...

    def __repr__(self) -> str:
        done = self.answer.progress
        return f"<study {self.name} ({self.id}): {self.state}, {done.done} of {done.total} trials>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
            for name, value in _facts(self.answer).items()
        )
        return f"<table><caption>{escape(self.name)} ({escape(self.id)})</caption>{rows}</table>"


class Study(HeldStudy["Study", Trial], Blocking):
    """A study whose calls return once they are answered."""

    def __init__(self, connection: Connection, answer: StudyAnswer) -> None:
        super().__init__(answer)
        self._connection = connection

    def events(self, **options: Unpack[EventOptions]) -> Iterator[EventAnswer]:
        """What happens to it from now on, until it has ended; ``options`` as for `Api.events`."""
        return Api.over(self._connection).events(self.id, **options)

    def _trial(self, answer: BestTrial | TrialAnswer) -> Trial:
        return Trial(self._connection, self.id, self.name, answer)


class AsyncStudy(HeldStudy["AsyncStudy", AsyncTrial], Awaiting):
    """A study whose calls are awaited."""

    def __init__(self, connection: AsyncConnection, answer: StudyAnswer) -> None:
        super().__init__(answer)
        self._connection = connection

    def events(self, **options: Unpack[EventOptions]) -> AsyncIterator[EventAnswer]:
        """As `Study.events`, for ``async for``."""
        return AsyncApi.over(self._connection).events(self.id, **options)

    def _trial(self, answer: BestTrial | TrialAnswer) -> AsyncTrial:
        return AsyncTrial(self._connection, self.id, self.name, answer)


def _facts(study: StudyAnswer) -> dict[str, str]:
    """What a notebook shows of a study; only what there is."""
    counts = {state: count for state, count in study.trials if count}
    facts = {
        "state": study.state,
        "trials": ", ".join(f"{count} {state}" for state, count in counts.items()),
        "model": study.model,
    }
    if study.best is not None:
        metric = study.objective["metric"]
        facts["best"] = f"trial {study.best.number}: {metric} {study.best.value:.4f}"
        facts["parameters"] = _listed(study.best.params)
    if study.test is not None:
        facts["test"] = _listed(study.test.metrics)
    if study.error is not None:
        facts["error"] = f"{study.error.code}: {study.error.detail}"
    return facts


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {figure(value)}" for name, value in values.items())
