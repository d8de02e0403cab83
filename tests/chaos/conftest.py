"""Faults of real processes, in a short form for every test run and a long one for `make chaos`.

`BERTUNE_CHAOS=long` takes the figures that the README quotes; `BERTUNE_CHAOS_SEED` repeats the
draws of an earlier run. Every scenario's figures are printed at the end of the run.
"""

import os
import random
from collections.abc import Callable, Iterator

import pytest
from chaos.nursery import Nursery, nursery
from real_databases import (
    database,
    kind,
    make_postgresql,
    migrated_postgresql,
    migrated_sqlite,
    patient_transactions,
    postgresql_url,
)

__all__ = [
    "database",
    "kind",
    "make_postgresql",
    "migrated_postgresql",
    "migrated_sqlite",
    "patient_transactions",
    "postgresql_url",
]

FIGURES = "chaos figures"


@pytest.fixture(scope="session")
def is_long() -> bool:
    """Whether this run takes the long form."""
    return os.environ.get("BERTUNE_CHAOS") == "long"


@pytest.fixture
def seed() -> int:
    """What every draw of a scenario follows from; its figures name it."""
    return int(os.environ.get("BERTUNE_CHAOS_SEED") or random.SystemRandom().randrange(10**6))


@pytest.fixture(scope="session")
def shared_nursery() -> Iterator[Nursery]:
    with nursery() as made:
        yield made


@pytest.fixture
def processes(shared_nursery: Nursery) -> Iterator[Nursery]:
    """Real processes; whatever a test leaves of them is killed after it."""
    yield shared_nursery
    shared_nursery.kill_all()


@pytest.fixture
def print_figures(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Prints a line at the end of the run, also when the tests ran in several processes."""
    return lambda line: record_property(FIGURES, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = [
        str(line)
        for report in terminalreporter.getreports("passed")
        for name, line in report.user_properties
        if name == FIGURES
    ]
    if lines:
        terminalreporter.section(FIGURES)
        for line in lines:
            terminalreporter.line(line)
