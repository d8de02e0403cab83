"""The Python client: studies, trials and schedules as objects to hold, blocking or awaited.

    with Client() as client:
        data = client.upload_dataset("tickets.csv")
        study = client.submit(StudySpec(name="tickets", dataset=data.id)).wait()
        study.best.confusion_matrix().plot()

`AsyncClient` is the same with ``await`` before every call. The plain calls with their answers,
for whatever has no object here, are ``client.api``.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from studies.api import CALLS, AccessCalls, Api, AsyncApi, DatasetCalls, WaitTimeoutError
from studies.calling import AwaitingClient, BlockingClient, Steps, call
from studies.connection import ApiError, ClientError, UnreachableError
from studies.handles.schedule import AsyncSchedule, Schedule
from studies.handles.study import AsyncStudy, Study
from studies.spec import StudySpec
from studies.states import StudyState
from studies.wire.schedules import ScheduleAnswer, ScheduleCheck, ScheduleSpec
from studies.wire.studies import StudyAnswer, ValidationAnswer

__all__ = [
    "ApiError",
    "AsyncClient",
    "Client",
    "ClientError",
    "UnreachableError",
    "WaitTimeoutError",
]

StudyT = TypeVar("StudyT")
ScheduleT = TypeVar("ScheduleT")


class ClientCalls(DatasetCalls, AccessCalls, Generic[StudyT, ScheduleT]):
    """Every call raises `ApiError` when the server refuses and `UnreachableError` when none
    answers."""

    @call
    def validate(self, spec: StudySpec | Mapping[str, Any]) -> Steps[ValidationAnswer]:
        """The checks of `submit` and what they find; nothing is stored."""
        return CALLS.validate(spec)

    @call
    def submit(
        self, spec: StudySpec | Mapping[str, Any], idempotency_key: str | None = None
    ) -> Steps[StudyT]:
        """Queue a study. The same ``idempotency_key`` gives the same study, never a second one;
        by default each call has its own, which makes repeated tries safe."""
        return self._study((yield from CALLS.submit(spec, idempotency_key)))

    @call
    def study(self, id_or_name: str) -> Steps[StudyT]:
        """A study by its id, else the newest of this name."""
        return self._study((yield from CALLS.study(id_or_name)))

    @call
    def studies(
        self, state: StudyState | None = None, label: str | None = None, limit: int | None = None
    ) -> Steps[list[StudyT]]:
        """Studies, newest first; ``label`` is ``key:value``, ``limit`` None takes them all."""
        answers = yield from CALLS.studies(state, label, limit)
        return [self._study(answer) for answer in answers]

    @call
    def validate_schedule(self, spec: ScheduleSpec | Mapping[str, Any]) -> Steps[ScheduleCheck]:
        """The next five fires and the study that the first would submit; nothing is stored."""
        return CALLS.validate_schedule(spec)

    @call
    def add_schedule(self, spec: ScheduleSpec | Mapping[str, Any]) -> Steps[ScheduleT]:
        """Save a schedule; its name must be free."""
        return self._schedule((yield from CALLS.add_schedule(spec)))

    @call
    def schedule(self, id_or_name: str) -> Steps[ScheduleT]:
        """A schedule by its name, else by its id."""
        return self._schedule((yield from CALLS.schedule(id_or_name)))

    @call
    def schedules(self) -> Steps[list[ScheduleT]]:
        """All schedules, by name."""
        answers = yield from CALLS.schedules()
        return [self._schedule(answer) for answer in answers]

    @abstractmethod
    def _study(self, answer: StudyAnswer) -> StudyT: ...

    @abstractmethod
    def _schedule(self, answer: ScheduleAnswer) -> ScheduleT: ...


class Client(ClientCalls[Study, Schedule], BlockingClient):
    """A client whose calls return once they are answered; threads may share it."""

    @property
    def api(self) -> Api:
        return Api.over(self._connection)

    def _study(self, answer: StudyAnswer) -> Study:
        return Study(self._connection, answer)

    def _schedule(self, answer: ScheduleAnswer) -> Schedule:
        return Schedule(self._connection, answer)


class AsyncClient(ClientCalls[AsyncStudy, AsyncSchedule], AwaitingClient):
    """A client whose calls are awaited; it belongs to one event loop."""

    @property
    def api(self) -> AsyncApi:
        return AsyncApi.over(self._connection)

    def _study(self, answer: StudyAnswer) -> AsyncStudy:
        return AsyncStudy(self._connection, answer)

    def _schedule(self, answer: ScheduleAnswer) -> AsyncSchedule:
        return AsyncSchedule(self._connection, answer)
