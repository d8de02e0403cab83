"""The steps that calls are made of: a request with its tries, a list with its pages, a file."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from studies.calling import Steps
from studies.connection import Request, UnreachableError, check_success, read_json
from studies.transfer import OnBytes
from studies.wire.base import Answer

RETRY_DELAYS_S = (0.2, 0.5, 1.0)
PASSING_STATUSES = frozenset({502, 503, 504})
PAGE_LIMIT = 500

A = TypeVar("A", bound=Answer)
T = TypeVar("T")


def send(method: str, path: str, *, repeatable: bool, **options: Any) -> Steps[Any]:
    """Send a `Request` and give its JSON answer. Raises `ApiError` or `UnreachableError`.

    A request that never left is tried again; one that may have arrived is repeated only when a
    second arrival changes nothing (``repeatable``).
    """
    request = Request(method=method, path=path, **options)
    for delay_s in (*RETRY_DELAYS_S, None):
        try:
            response: httpx.Response = yield lambda link: link.send(request)
        except UnreachableError as error:
            if delay_s is None or not (error.unsent or repeatable):
                raise
        else:
            passing = response.status_code in PASSING_STATUSES
            if delay_s is None or not (passing and repeatable):
                return read_json(response)
        yield from pause(delay_s)
    raise AssertionError("the last try returns or raises")


def get(kind: type[A], path: str, params: Mapping[str, str | int] | None = None) -> Steps[A]:
    return kind.model_validate((yield from send("GET", path, repeatable=True, params=params)))


def post(kind: type[A], path: str, *, repeatable: bool = False, **options: Any) -> Steps[A]:
    return kind.model_validate((yield from send("POST", path, repeatable=repeatable, **options)))


def patch(kind: type[A], path: str, json: Mapping[str, Any]) -> Steps[A]:
    """Setting fields to what they are to be: once or twice is the same."""
    return kind.model_validate((yield from send("PATCH", path, repeatable=True, json=json)))


def delete(path: str) -> Steps[None]:
    """Repeated only when it never left: a second arrival would find nothing to delete."""
    yield from send("DELETE", path, repeatable=False)


def pages(
    kind: type[A],
    path: str,
    params: Mapping[str, str] | None = None,
    *,
    limit: int | None = None,
    until: Callable[[A], bool] = lambda _: False,
) -> Steps[list[A]]:
    """A list, page by page; ``limit`` None takes it all, and the first item that ``until`` holds
    for is the last."""
    query: dict[str, str | int] = {**(params or {}), "limit": min(limit or PAGE_LIMIT, PAGE_LIMIT)}
    items: list[A] = []
    while True:
        page = yield from send("GET", path, repeatable=True, params=dict(query))
        for item in page["items"]:
            items.append(kind.model_validate(item))
            if len(items) == limit or until(items[-1]):
                return items
        if page["next_cursor"] is None:
            return items
        query["cursor"] = page["next_cursor"]


def download_folder(path: str, target: Path | str, on_bytes: OnBytes | None = None) -> Steps[Path]:
    """Fetch a zip and unpack it as the folder ``target``, or keep it packed where that ends in
    ``.zip``. Either appears whole or not at all.

    Raises `FileExistsError` where something is already; an empty folder is nothing. Not repeated:
    files may be large.
    """
    target = Path(target)
    if not _is_empty(target):
        _demand_new(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=".bertune-") as scratch:
        packed = Path(scratch) / "packed.zip"
        request = Request(method="GET", path=path, on_bytes=on_bytes)
        check_success((yield lambda link: link.fetch(request, packed)))
        if target.suffix == ".zip":
            return packed.rename(target)
        unpacked = Path(scratch) / "folder"
        yield from work(lambda: _unpack(packed, unpacked))
        return unpacked.rename(target)


def download_file(path: str, target: Path) -> Steps[Path]:
    """Fetch a file, which appears whole or not at all. Raises `FileExistsError`."""
    _demand_new(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=".bertune-") as scratch:
        fetched = Path(scratch) / "file"
        request = Request(method="GET", path=path)
        check_success((yield lambda link: link.fetch(request, fetched)))
        return fetched.rename(target)


def _demand_new(target: Path) -> None:
    if target.exists():
        raise FileExistsError(f"{target} exists already; name a new folder or file.")


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and next(folder.iterdir(), None) is None


def _unpack(packed: Path, folder: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(folder)


def pause(seconds: float) -> Steps[None]:
    yield lambda link: link.sleep(seconds)


def work(what: Callable[[], T]) -> Steps[T]:
    """Do what takes its time without a server; an event loop goes on meanwhile."""
    done: T = yield lambda link: link.work(what)
    return done


def tell(listener: Callable[[T], object], news: T) -> Steps[None]:
    """Call a listener; one that gives an awaitable is awaited where that is possible."""
    yield lambda link: link.tell(lambda: listener(news))


def server_address() -> Steps[str]:
    address: str = yield lambda link: link.work(lambda: link.server)
    return address


def part(text: str) -> str:
    """``text`` as one segment of a path."""
    return quote(text, safe="")
