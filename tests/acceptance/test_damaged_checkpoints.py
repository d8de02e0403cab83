"""A checkpoint of this machine that turns out to be damaged, where the server has another one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lease_server import LeaseServer, StartAgent, agents, lease_server


@pytest.fixture
def server() -> Iterator[LeaseServer]:
    with lease_server() as server:
        yield server


@pytest.fixture
def start(server: LeaseServer, tmp_path: Path) -> Iterator[StartAgent]:
    with agents(server, tmp_path / "cache") as start:
        yield start


def checkpoint(epochs: int) -> bytes:
    """As the fake trainer writes it."""
    header = json.dumps({"__metadata__": {"finished_epochs": str(epochs)}}).encode()
    return len(header).to_bytes(8, "little") + header


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """What an earlier attempt left here: two epochs, by its header."""
    path = tmp_path / "cache" / "checkpoints" / "t1" / "state.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(checkpoint(2) + b"damage")
    return path


def at_server(server: LeaseServer, epochs: int) -> dict[str, Any]:
    remote = server.remote("newest", checkpoint(epochs))
    del remote["path"]
    return {**remote, "epoch": epochs}


def test_an_attempt_goes_on_from_the_servers_checkpoint_where_this_machines_is_damaged(
    server: LeaseServer, start: StartAgent, damaged: Path
) -> None:
    server.add_lease("t1", attempt=2, resume=at_server(server, 1))
    worker = start(until_idle_s=0)
    trial, end, result = server.end()
    assert (trial, end, result["state"]) == ("t1", "result", "completed"), worker.log
    assert result["info"]["resumed_from_epoch"] == 1
    [problem] = result["info"]["problems"]
    assert problem.startswith("checkpoint_ignored: the server's is taken: ")
    assert server.epochs() == [0, 1, 2]  # once each: the first run did not begin
    assert worker.exit_status() == 0
    assert len(worker.await_line("started")) == 1


def test_an_attempt_begins_anew_where_neither_checkpoint_can_be_had(
    server: LeaseServer, start: StartAgent, damaged: Path
) -> None:
    server.add_lease("t1", attempt=2, resume=at_server(server, 1))
    server.files["newest"] = b"something else"
    worker = start(until_idle_s=0)
    _, end, result = server.end()
    assert (end, result["info"]["resumed_from_epoch"]) == ("result", None), worker.log
    codes = [problem.partition(":")[0] for problem in result["info"]["problems"]]
    assert codes == ["checkpoint_ignored"] * 2
    assert worker.exit_status() == 0
