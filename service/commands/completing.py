"""Names for the shell to complete: asked of the server, briefly, and in silence when it fails.

Whoever presses Tab waits for the answer, and a message would land in the line that they write.
"""

from collections.abc import Callable, Sequence
from typing import Any

import typer

TIMEOUT_S = 1.0
NEWEST = 200
"""As many studies or data sets are looked at."""


def study_names(context: typer.Context, incomplete: str) -> list[str]:
    """Of the newest studies."""
    return _names(context, incomplete, "/v1/studies", lambda study: study["name"])


def schedule_names(context: typer.Context, incomplete: str) -> list[str]:
    return _names(context, incomplete, "/v1/schedules", lambda schedule: schedule["spec"]["name"])


def dataset_names(context: typer.Context, incomplete: str) -> list[str]:
    return _names(context, incomplete, "/v1/datasets", lambda dataset: dataset["name"])


def _names(
    context: typer.Context, begun: str, path: str, name: Callable[[dict[str, Any]], str]
) -> list[str]:
    try:
        found = [name(item) for item in _items(context.params.get("server"), path)]
    except Exception:  # noqa: BLE001 - no failure may be heard of here, whatever it is
        return []
    return list(dict.fromkeys(one for one in found if one.startswith(begun)))


def _items(server: str | None, path: str) -> Sequence[dict[str, Any]]:
    import os

    import httpx

    from studies.connection import DEFAULT_SERVER, find_key

    address = (server or os.environ.get("BERTUNE_SERVER") or DEFAULT_SERVER).rstrip("/")
    headers = {"Authorization": f"Bearer {find_key()}"}
    answer = httpx.get(
        f"{address}{path}", params={"limit": NEWEST}, headers=headers, timeout=TIMEOUT_S
    )
    items: list[dict[str, Any]] = answer.raise_for_status().json()["items"]
    return items
