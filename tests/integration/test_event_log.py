"""The event log: what is written, read without a gap, and removed when it is old."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from builders import claim_request, make_study, renew_request, result_request
from queue_server import queue_server
from sqlalchemy import event, select, text, update

from service.events.feed import EventFeed, FeedEvent
from service.events.follower import EventFollower
from service.events.frames import event_frame
from service.events.retention import forget_old_events
from service.store.database import Database
from service.store.event_filter import EventFilter, SeenEvent
from service.store.event_log import newest_id, read_events, remove_old_events, removed_to
from service.store.events import append_event
from service.store.tables import Event, StudyLabel
from studies.states import STUDY_MOVES, TRIAL_MOVES
from studies.wire.events import EVENT_TYPES, EventAnswer

EVERYTHING = EventFilter()


def write(database: Database, *kinds: str) -> None:
    with database.transaction() as session:
        for kind in kinds:
            append_event(session, kind)


def types_of(database: Database, chosen: EventFilter = EVERYTHING) -> list[str]:
    with database.reading() as session:
        events = read_events(session, chosen, after=0, up_to=newest_id(session), limit=1000)
    return [seen.answer.type for seen in events]


def heard(feed: EventFeed, after: int = 0) -> list[str]:
    return [each.seen.answer.type for each in feed.since(after) or []]


def test_every_state_has_an_event_type() -> None:
    assert {f"study.{new}" for news in STUDY_MOVES.values() for new in news} <= set(EVENT_TYPES)
    assert {f"trial.{new}" for news in TRIAL_MOVES.values() for new in news} <= set(EVENT_TYPES)


def test_a_study_tells_its_story_from_the_first_claim_to_its_end(
    database: Database, tmp_path: Path
) -> None:
    study_id = make_study(database, n_trials=2, max_parallel=1)
    with database.transaction() as session:
        session.add(StudyLabel(study_id=study_id, key="team", value="support"))
    with queue_server(database, tmp_path) as server:
        for value in (0.5, 0.75):
            lease = server.claim()
            server.dispatcher.renew(lease.trial_id, 1, renew_request(value))
            server.dispatcher.renew(lease.trial_id, 1, renew_request(value))  # sent again
            server.dispatcher.finish(lease.trial_id, 1, result_request(value))
    told = ["trial.running", "study.running", "trial.epoch", "study.best", "trial.completed"]
    assert types_of(database) == [
        *told,
        *(t for t in told if t != "study.running"),
        "study.completed",
    ]
    assert set(types_of(database)) <= set(EVENT_TYPES)
    with database.reading() as session:
        best = read_events(
            session, EventFilter(study_id, ("study.best",)), after=0, up_to=10**6, limit=9
        )
    assert [seen.answer.trial for seen in best] == [0, 1]
    assert best[1].answer.data["value"] == 0.75
    assert best[1].answer.data["previous"] == 0.5
    assert best[1].answer.study == "tickets"
    assert best[1].labels == {"team": "support"}


def test_a_worse_trial_is_no_new_best(database: Database, tmp_path: Path) -> None:
    make_study(database, n_trials=2)
    with queue_server(database, tmp_path) as server:
        for value in (0.75, 0.5):
            lease = server.claim()
            server.dispatcher.finish(lease.trial_id, 1, result_request(value))
    assert types_of(database).count("study.best") == 1


def test_a_filter_asks_for_types_by_name_by_family_and_all(database: Database) -> None:
    write(database, "study.best", "trial.failed", "trial.epoch", "schedule.skipped")
    assert types_of(database, EventFilter(None, ("trial.*",))) == ["trial.failed", "trial.epoch"]
    chosen = EventFilter(None, ("study.best", "schedule.*"))
    assert types_of(database, chosen) == ["study.best", "schedule.skipped"]
    assert len(types_of(database, EventFilter(None, ("*",)))) == 4


def test_what_the_follower_reads_once_every_stream_finds_in_memory(database: Database) -> None:
    feed = EventFeed()
    follower = EventFollower(database, feed)
    write(database, "study.submitted")
    assert follower.step()
    assert heard(feed, feed.safe or 0) == []  # what was before the start is for the database
    begun = feed.safe or 0
    write(database, "study.running", "study.best")
    assert follower.step()
    assert heard(feed, begun) == ["study.running", "study.best"]
    assert feed.since(begun - 1) is None


def test_an_event_that_commits_late_with_a_smaller_id_is_not_skipped(database: Database) -> None:
    """Its transaction stays open while a later one commits; on SQLite the later one has to wait."""
    if database.is_sqlite:
        pytest.skip("writers of SQLite wait for each other: nothing commits late")
    feed = EventFeed()
    follower = EventFollower(database, feed)
    follower.step()
    begun = feed.safe or 0
    other = Database(database.url)
    with other.transaction() as late:
        append_event(late, "study.paused")
        late.flush()  # it has its id now
        write(database, "study.best")
        assert not follower.step()
        assert heard(feed, begun) == []
        write(database, "study.failed")
        assert not follower.step()
    other.dispose()
    assert follower.step()
    follower.step()
    assert heard(feed, begun) == ["study.paused", "study.best", "study.failed"]


def test_transactions_that_came_later_hold_nobody_up(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("writers of SQLite wait for each other: nothing commits late")
    feed = EventFeed()
    follower = EventFollower(database, feed)
    follower.step()
    begun = feed.safe or 0
    first, second = Database(database.url), Database(database.url)
    with second.transaction() as later:
        with first.transaction() as late:
            append_event(late, "study.paused")
            late.flush()
            write(database, "study.best")
            assert not follower.step()
            append_event(later, "study.failed")
            later.flush()
        assert follower.step()
        assert heard(feed, begun) == ["study.paused", "study.best"]
    for side in (first, second):
        side.dispose()


def test_under_many_writers_the_follower_hears_each_event_once_and_in_order(
    database: Database,
) -> None:
    feed = EventFeed()
    follower = EventFollower(database, feed)
    follower.step()
    begun = feed.safe or 0
    start = threading.Barrier(6)

    def writer() -> None:
        start.wait(10)
        for _ in range(20):
            with database.transaction() as session:
                append_event(session, "trial.epoch")
                session.flush()
                if not database.is_sqlite:
                    session.execute(text("SELECT pg_sleep(random() * 0.02)"))
                append_event(session, "trial.epoch")

    threads = [threading.Thread(target=writer) for _ in range(5)]
    for thread in threads:
        thread.start()
    start.wait(10)
    ids: list[int] = []
    while any(thread.is_alive() for thread in threads):
        follower.step()
        ids += [each.id for each in feed.since(ids[-1] if ids else begun) or []]
    assert follower.step()  # what was open is over
    assert follower.step()
    ids += [each.id for each in feed.since(ids[-1] if ids else begun) or []]
    with database.reading() as session:
        stored = list(session.scalars(select(Event.id).order_by(Event.id)))
    assert len(stored) == 200
    assert ids == stored


def test_the_feed_keeps_only_the_newest_and_says_when_it_is_asked_for_more() -> None:
    feed = EventFeed(kept=2)
    feed.advance([], 0)
    feed.advance([made(number) for number in (1, 2, 3)], 3)
    assert feed.since(0) is None
    assert [each.id for each in feed.since(1) or []] == [2, 3]


def made(number: int) -> FeedEvent:
    answer = EventAnswer(
        id=number,
        type="study.best",
        study_id=None,
        study=None,
        trial=None,
        data={},
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return FeedEvent(SeenEvent(answer, {}), event_frame(answer))


def test_old_events_go_and_the_log_remembers_up_to_where(
    database: Database, tmp_path: Path
) -> None:
    write(database, *["study.best"] * 5)
    with database.transaction() as session:
        ids = list(session.scalars(select(Event.id).order_by(Event.id)))
        old = datetime.now(UTC) - timedelta(days=31)
        session.execute(update(Event).where(Event.id <= ids[2]).values(created_at=old))
    with queue_server(database, tmp_path) as server:
        assert forget_old_events(server.context) == 3
        assert forget_old_events(server.context) == 0
    with database.reading() as session:
        assert list(session.scalars(select(Event.id).order_by(Event.id))) == ids[3:]
        assert removed_to(session) == ids[2]


def test_of_too_many_events_the_oldest_go(database: Database) -> None:
    write(database, *["study.best"] * 7)
    long_ago = datetime(2000, 1, 1, tzinfo=UTC)
    with database.transaction() as session:
        assert remove_old_events(session, long_ago, most=4, at_once=2) == 2
        assert remove_old_events(session, long_ago, most=4, at_once=2) == 1
        assert remove_old_events(session, long_ago, most=4, at_once=2) == 0
    assert len(types_of(database)) == 4


def test_a_claim_writes_its_events_and_asks_for_nothing_else_on_their_account(
    database: Database, tmp_path: Path
) -> None:
    make_study(database, n_trials=2)
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if " event " in statement.partition("(")[0] + " ":
            seen.append(statement.split()[0])

    with queue_server(database, tmp_path) as server:
        event.listen(database.engine, "before_cursor_execute", note)
        assert server.dispatcher.claim(claim_request()) is not None
        event.remove(database.engine, "before_cursor_execute", note)
    assert set(seen) == {"INSERT"}
    assert len(seen) <= 2
