"""Calls of the API that are described once, and run by a client that blocks or by one that awaits.

A call is a generator of steps: it yields what it needs done (a request sent, a moment slept) and
is sent what came of it. Everything that could go wrong twice stands in such a generator once:
tries, paging, waiting, files. Two `Connection`s do the single step, and the class on which a
`call` is found says which of them runs it, and thereby its type:

    class Calls:
        @call
        def study(self, study_id: str) -> Steps[StudyAnswer]: ...

    class Api(Calls, BlockingClient): ...        # api.study("…") is a StudyAnswer
    class AsyncApi(Calls, AwaitingClient): ...   # await api.study("…") is one
"""

import functools
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

import httpx
from anyio import sleep as sleep_async

from studies.connection import AsyncConnection, Connection

P = ParamSpec("P")
T = TypeVar("T")

Step = Callable[[Connection | AsyncConnection], Any]
"""One thing to be done by a connection; what an `AsyncConnection` gives back is awaited."""
Steps = Generator[Step, Any, T]
"""A described call that ends with a ``T``."""


class Blocking:
    """Runs calls at once."""

    _connection: Connection

    def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    outcome = step(self._connection)
                except BaseException as error:  # noqa: BLE001 - the call's own affair, even Ctrl-C
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result


class Awaiting:
    """Runs calls on an event loop."""

    _connection: AsyncConnection

    async def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    outcome = await step(self._connection)
                except BaseException as error:  # noqa: BLE001 - and so is a cancelled task
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result


class Describing:
    """Runs nothing: gives the steps, for calls that are made of other calls."""

    def _run(self, steps: Steps[T]) -> Steps[T]:
        return steps


class call(Generic[P, T]):  # noqa: N801 - a decorator
    """A method that describes a call, as the class it is found on runs it."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Steps[T]]) -> None:
        self._describe = describe
        self.__doc__ = describe.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Blocking, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, instance: Awaiting, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, instance: Describing, owner: type) -> Callable[P, Steps[T]]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        describe: Callable[P, Steps[T]] = self._describe.__get__(instance, owner)

        @functools.wraps(describe)
        def run(*args: P.args, **kwargs: P.kwargs) -> Any:
            return instance._run(describe(*args, **kwargs))

        return run


class BlockingClient(Blocking):
    """A server and a key: the arguments, else BERTUNE_SERVER, BERTUNE_KEY or the admin key in
    BERTUNE_HOME."""

    def __init__(
        self,
        server: str | None = None,
        key: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connection = Connection(server, key, transport=transport, sleep=sleep)

    @classmethod
    def over(cls, connection: Connection) -> Self:
        """One that shares the connection of another, which closes it."""
        client = cls.__new__(cls)
        client._connection = connection
        return client

    @property
    def server(self) -> str:
        return self._connection.server

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AwaitingClient(Awaiting):
    """The same for code that runs on an event loop."""

    def __init__(
        self,
        server: str | None = None,
        key: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = sleep_async,
    ) -> None:
        self._connection = AsyncConnection(server, key, transport=transport, sleep=sleep)

    @classmethod
    def over(cls, connection: AsyncConnection) -> Self:
        """One that shares the connection of another, which closes it."""
        client = cls.__new__(cls)
        client._connection = connection
        return client

    @property
    def server(self) -> str:
        return self._connection.server

    async def close(self) -> None:
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
