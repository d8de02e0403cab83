"""Requests of which a test knows the very end: no repetition, and a kill that follows at once."""

import json
import os
import signal
from http.client import HTTPConnection
from typing import Any

from chaos.house import House

ANSWER_S = 60.0


def send(
    house: House, port: int, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, Any]:
    """One request on a connection of its own; returns with the last byte of the answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        own = {"Authorization": f"Bearer {house.key}", "Content-Type": "application/json"}
        connection.request(method, path, body, {**own, **named})
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content else None
    finally:
        connection.close()


def kill_at_once(house: House, port: int) -> None:
    os.kill(house.servers[port].pid, signal.SIGKILL)
    house.kill_server(port)  # reaps it


def steer(house: House, study_id: str, call: str, *, kill: bool, **body: Any) -> Any:
    """Steer a study (``call`` is ``pause``, ``resume``, ``cancel``, ``extend`` or ``delete``) and,
    with ``kill``, send the server that said yes a SIGKILL before it can do anything else.

    Returns the answer once a server is there again.
    """
    port, path = house.ports[0], f"/v1/studies/{study_id}"
    if call == "delete":
        status, answer = send(house, port, "DELETE", path)
    else:
        status, answer = send(house, port, "POST", f"{path}/{call}", json.dumps(body).encode())
    if kill:
        kill_at_once(house, port)
    assert status in (200, 204), answer
    house.open()
    return answer
