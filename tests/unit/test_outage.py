"""How long the database was away, and what looks like it."""

import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from service.store.outage import Outage, is_unavailable


class HandClock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


class Mender:
    """Counts how often it was asked to mend."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1


@pytest.fixture
def mend() -> Mender:
    return Mender()


def test_an_outage_lasts_from_the_last_contact_before_the_first_failure(
    clock: HandClock, mend: Mender, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage(clock=clock)
    clock.now_s = 103.0
    outage.over(103.0, mend)
    for clock.now_s in (105.0, 110.0):
        outage.failed("connection refused")
    clock.now_s = 120.0
    outage.over(119.9, mend)
    clock.now_s = 150.0
    outage.over(150.0, mend)  # nobody asked for a while: no outage
    assert mend.calls == 1
    assert [record.getMessage() for record in caplog.records] == [
        "the database is away: connection refused",
        "the database is back after 17 s",
    ]


def test_a_long_wait_for_a_transaction_is_an_outage_and_counts_once(
    clock: HandClock, mend: Mender
) -> None:
    outage = Outage(clock=clock)
    clock.now_s = 140.0
    outage.over(110.0, mend)
    outage.over(111.0, mend)  # waited beside the first
    assert mend.calls == 1


def test_a_process_that_should_have_asked_meanwhile_stood_still(
    clock: HandClock, mend: Mender
) -> None:
    outage = Outage(clock=clock)
    outage.longest_silence_s = 15.0
    clock.now_s = 114.0
    outage.over(114.0, mend)
    assert mend.calls == 0
    clock.now_s = 130.0
    outage.over(130.0, mend)
    outage.over(130.0, mend)
    assert mend.calls == 1


def test_a_short_hiccup_mends_nothing(clock: HandClock, mend: Mender) -> None:
    outage = Outage(clock=clock)
    outage.failed("server closed the connection")
    clock.now_s = 100.5
    outage.over(100.4, mend)
    assert mend.calls == 0


def test_when_mending_fails_the_outage_goes_on(clock: HandClock, mend: Mender) -> None:
    outage = Outage(clock=clock)
    outage.failed("gone")
    clock.now_s = 110.0

    def fail() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        outage.over(110.0, fail)
    outage.over(110.0, mend)
    assert mend.calls == 1


def test_nobody_goes_on_while_the_first_one_back_mends(clock: HandClock) -> None:
    outage, order = Outage(clock=clock), list[str]()
    outage.failed("gone")
    clock.now_s = 110.0
    mending, may_end = threading.Event(), threading.Event()

    def slow() -> None:
        mending.set()
        assert may_end.wait(10)
        order.append("mended")

    def second() -> None:
        outage.over(110.0, slow)
        order.append("second")

    first_thread = threading.Thread(target=outage.over, args=(110.0, slow))
    second_thread = threading.Thread(target=second)
    first_thread.start()
    assert mending.wait(10)
    second_thread.start()
    may_end.set()
    first_thread.join(10)
    second_thread.join(10)
    assert order == ["mended", "second"]


def test_a_locked_sqlite_file_is_unavailable_and_a_missing_table_is_not(tmp_path: Path) -> None:
    path = tmp_path / "bertune.db"
    holder = sqlite3.connect(path)
    holder.execute("BEGIN EXCLUSIVE")
    other = sqlite3.connect(path, timeout=0)
    with pytest.raises(sqlite3.OperationalError) as locked:
        other.execute("BEGIN IMMEDIATE")
    holder.rollback()
    with pytest.raises(sqlite3.OperationalError) as missing:
        other.execute("SELECT * FROM nothing")
    holder.close()
    other.close()
    assert is_unavailable(OperationalError("BEGIN", {}, locked.value))
    assert not is_unavailable(OperationalError("SELECT", {}, missing.value))


def test_a_broken_constraint_is_no_outage() -> None:
    assert not is_unavailable(IntegrityError("INSERT", {}, Exception("duplicate key")))
    assert not is_unavailable(ValueError("not the database's"))
    assert not is_unavailable(None)
