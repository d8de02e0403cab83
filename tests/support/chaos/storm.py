"""Signals at random to workers and servers until a study has ended."""

import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from signal import Signals

from chaos.house import LEASE_S, House
from chaos.nursery import Child

_DECK = ("kill",) * 7 + ("short stop",) * 2 + ("long stop",)
"""Ten faults of workers. A short stop ends before the lease does; a long one brings its worker back
to a lease that is lost."""
_STOP_S = {"short stop": (0.2, 1.0), "long stop": (LEASE_S + 1, LEASE_S + 2)}
_AGAIN_S = 0.5
"""A server that is not back yet is not killed again; the next look at it."""
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How bad it gets."""

    seed: int
    workers: int
    worker_every_s: float
    server_every_s: float
    strikes_s: float
    """How long it goes on, if the study does not end sooner."""
    limit_s: float
    """By then the study must have ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What was done, and for how long."""

    seconds: float
    kills: int
    stops: int
    server_kills: int

    @property
    def faults(self) -> int:
        return self.kills + self.stops + self.server_kills


class Storm:
    """Faults of workers and servers, drawn from the weather's seed."""

    def __init__(self, house: House, weather: Weather) -> None:
        self._house = house
        self._weather = weather
        self._draw = random.Random(weather.seed)
        self._stopped: list[tuple[float, Child]] = []
        """When each stopped worker goes on."""
        self._kills = self._stops = self._server_kills = 0

    def rage(self, is_over: Callable[[], bool]) -> Damage:
        """Hire the workers and strike, until ``is_over``; then let every stopped worker go on."""
        for _ in range(self._weather.workers):
            self._house.hire()
        began = time.monotonic()
        worker_due = began + self._weather.worker_every_s
        server_due = began + self._weather.server_every_s
        faults = self._faults()
        while not is_over():
            now = time.monotonic()
            assert now < began + self._weather.limit_s, self._damage(began)
            self._wake(now)
            raging = now < began + self._weather.strikes_s
            if raging and now >= worker_due:
                self._strike_worker(next(faults), now)
                worker_due += self._weather.worker_every_s
            if raging and now >= server_due:
                struck = self._strike_server()
                server_due = now + (self._weather.server_every_s if struck else _AGAIN_S)
            threading.Event().wait(_LOOK_S)
        self._wake(math.inf)
        return self._damage(began)

    def _damage(self, began: float) -> Damage:
        return Damage(
            seconds=time.monotonic() - began,
            kills=self._kills,
            stops=self._stops,
            server_kills=self._server_kills,
        )

    def _faults(self) -> Iterator[str]:
        while True:
            yield from self._draw.sample(_DECK, len(_DECK))

    def _strike_worker(self, fault: str, now: float) -> None:
        """Kill a worker and start another in its place, or stop one for a while."""
        stopped = {worker.pid for _, worker in self._stopped}
        workers = [worker for worker in self._house.workers if worker.pid not in stopped]
        if not workers:
            return
        worker = self._draw.choice(workers)
        self._house.check_alive(worker)
        if fault == "kill":
            self._house.kill_worker(worker)
            self._house.hire()
            self._kills += 1
        else:
            self._house.nursery.signal(worker, Signals.SIGSTOP)
            self._stopped.append((now + self._draw.uniform(*_STOP_S[fault]), worker))
            self._stops += 1

    def _wake(self, now: float) -> None:
        for until, worker in tuple(self._stopped):
            if until <= now:
                self._house.nursery.signal(worker, Signals.SIGCONT)
                self._stopped.remove((until, worker))

    def _strike_server(self) -> bool:
        """Kill one server and start it again; False while the chosen one is not back yet."""
        port = self._draw.choice(self._house.ports)
        if not self._house.is_ready(port):
            return False
        self._house.kill_server(port)
        self._house.start_server(port)
        self._server_kills += 1
        return True
