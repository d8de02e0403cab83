"""The database below Optuna's storage: its connections, attributes, bulk reading and deletion.

Optuna's storages make their own engines; what they lack for our use is added here.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL

from studies import sqlite

_ADVISORY_LOCK = 7_351_604_928
"""Any constant of ours."""
_IS_TRIAL_NOTE = r"key LIKE 'dashboard\:%\:note_%'"  # dashboard:<trial id>:note_ver, …_str:0
_TABLES_OF_TRIALS = (
    "trial_params",
    "trial_values",
    "trial_intermediate_values",
    "trial_user_attributes",
    "trial_system_attributes",
    "trial_heartbeats",
)


def connect_args(url: URL, *, read_only: bool) -> dict[str, Any]:
    """What the driver needs to know before the first connection."""
    if url.get_backend_name() == "sqlite":
        return {"timeout": sqlite.BUSY_TIMEOUT_S}
    from studies import postgresql  # its driver is an extra that SQLite needs not

    return postgresql.connect_args(url, read_only=read_only)


def prepare(engine: Engine, *, read_only: bool) -> None:
    """What only an engine's events can change; the connections it made before are closed."""
    if engine.url.get_backend_name() == "sqlite":
        _prepare_sqlite(engine, read_only=read_only)
    else:
        from studies import postgresql

        postgresql.bound_waiting(engine)


def _prepare_sqlite(engine: Engine, *, read_only: bool) -> None:
    """From now on transactions begin IMMEDIATE, or plainly on a connection that only reads.

    A transaction that reads before it writes fails at once when another has written in between;
    one that begins IMMEDIATE waits for the other before it reads.
    """

    def prepare(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # else Python begins transactions on its own
        sqlite.enter_wal(connection, within_s=sqlite.BUSY_TIMEOUT_S)
        # Our own commits sync the same log fully, and with it whatever of Optuna's they rest on.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    engine.dispose()  # connections made so far were not prepared


@contextmanager
def one_server_at_a_time(url: URL) -> Iterator[None]:
    """Held while Optuna's tables are made: servers that start at once would collide there."""
    if url.get_backend_name() == "sqlite":  # one server process, by design
        yield
        return
    engine = create_engine(url, connect_args=connect_args(url, read_only=False))
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            yield
    finally:
        engine.dispose()


@dataclass(frozen=True, slots=True)
class StudyRow:
    """A study of Optuna's, without its trials and without its trials' notes."""

    study_id: int
    name: str
    directions: list[str]
    user_attrs: dict[str, Any]
    system_attrs: dict[str, Any]


def read_studies(connection: Connection) -> list[StudyRow]:
    """All studies in the order they were made.

    Trials' notes, which Optuna's pages keep among a study's attributes, are left out: thousands of
    rows that no list needs. `read_trial_notes` reads them.
    """
    directions: dict[int, list[str]] = defaultdict(list)
    named = text("SELECT study_id, direction FROM study_directions ORDER BY objective")
    for study_id, direction in connection.execute(named):
        directions[study_id].append(direction)
    user_attrs = _attrs(connection, "study_user_attributes", "TRUE")
    system_attrs = _attrs(connection, "study_system_attributes", f"NOT ({_IS_TRIAL_NOTE})")
    studies = connection.execute(text("SELECT study_id, study_name FROM studies ORDER BY study_id"))
    return [
        StudyRow(row_id, name, directions[row_id], user_attrs[row_id], system_attrs[row_id])
        for row_id, name in studies
    ]


def read_trial_notes(connection: Connection, study_id: int) -> dict[str, Any]:
    """The attributes that hold the notes of a study's trials."""
    chosen = f"study_id = :study_id AND {_IS_TRIAL_NOTE}"
    attrs = _attrs(connection, "study_system_attributes", chosen, {"study_id": study_id})
    return attrs[study_id]


def _attrs(
    connection: Connection, table: str, condition: str, values: dict[str, int] | None = None
) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    rows = text(f"SELECT study_id, key, value_json FROM {table} WHERE {condition}")
    for study_id, key, value in connection.execute(rows, values or {}):
        found[study_id][key] = json.loads(value)
    return found


def read_unfinished(connection: Connection, study_name: str, owner_key: str) -> list[Any]:
    """(trial id, owner as JSON or None) of a study's trials that are not finished.

    Optuna's own call would load every trial of the study, and keep it, to find these few.
    """
    query = text(
        "SELECT trials.trial_id, attributes.value_json FROM trials"
        " JOIN studies ON studies.study_id = trials.study_id"
        " LEFT JOIN trial_user_attributes AS attributes"
        " ON attributes.trial_id = trials.trial_id AND attributes.key = :owner_key"
        " WHERE studies.study_name = :study_name AND trials.state IN ('RUNNING', 'WAITING')"
        " ORDER BY trials.trial_id"
    )
    names = {"study_name": study_name, "owner_key": owner_key}
    return [tuple(row) for row in connection.execute(query, names)]


def read_study_attr(connection: Connection, study_name: str, key: str) -> Any:
    """A system attribute of a study; None when there is no such attribute, or no such study."""
    query = text(
        "SELECT value_json FROM study_system_attributes JOIN studies"
        " ON studies.study_id = study_system_attributes.study_id"
        " WHERE studies.study_name = :study_name AND key = :key"
    )
    found = connection.scalar(query, {"study_name": study_name, "key": key})
    return None if found is None else json.loads(found)


def write_study_attrs(connection: Connection, study_id: int, attrs: Mapping[str, Any]) -> None:
    """Set system attributes of a study, all of them at once."""
    row = text(
        "INSERT INTO study_system_attributes (study_id, key, value_json)"
        " VALUES (:study_id, :key, :value) ON CONFLICT (study_id, key)"
        " DO UPDATE SET value_json = excluded.value_json"
    )
    rows = [
        {"study_id": study_id, "key": key, "value": json.dumps(value)}
        for key, value in attrs.items()
    ]
    connection.execute(row, rows)


def read_note_keys(connection: Connection, study_name: str) -> list[str]:
    """The names of the attributes that hold the notes of a study's trials."""
    query = text(
        "SELECT key FROM study_system_attributes JOIN studies"
        " ON studies.study_id = study_system_attributes.study_id"
        f" WHERE studies.study_name = :study_name AND {_IS_TRIAL_NOTE}"
    )
    return list(connection.scalars(query, {"study_name": study_name}))


def holds_newest_id(connection: Connection, study_id: int) -> bool:
    """Whether the study, or one of its trials, has the highest id of its table."""
    newest_study = connection.scalar(text("SELECT max(study_id) FROM studies"))
    owner_of_newest_trial = connection.scalar(
        text("SELECT study_id FROM trials ORDER BY trial_id DESC LIMIT 1")
    )
    return study_id in (newest_study, owner_of_newest_trial)


def delete_trials(connection: Connection, study_id: int) -> None:
    """Remove a study's trials table by table; Optuna would load every row of theirs first."""
    chosen = {"study_id": study_id}
    for table in _TABLES_OF_TRIALS:
        trials = "SELECT trial_id FROM trials WHERE study_id = :study_id"
        connection.execute(text(f"DELETE FROM {table} WHERE trial_id IN ({trials})"), chosen)
    connection.execute(text("DELETE FROM trials WHERE study_id = :study_id"), chosen)
