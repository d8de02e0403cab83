"""A hub on loopback: the few addresses that the hub's own libraries ask for, and real files."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_let_me_in"


@dataclass
class Repository:
    """Its files by commit, oldest first; ``main`` is the newest."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(self, files: Mapping[str, bytes]) -> str:
        """The files from now on, and the commit's name."""
        name = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits.pop(name, None)
        self.commits[name] = dict(files)
        return name

    def resolve(self, revision: str) -> str | None:
        if revision == "main":
            return next(reversed(self.commits), None)
        return revision if revision in self.commits else None


class FakeHub:
    """``repositories`` by name; ``url`` is for HF_ENDPOINT."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(
        self, name: str, files: Mapping[str, bytes], *, private: bool = False, gated: bool = False
    ) -> str:
        """A commit of the repository, which is made if it is new."""
        repository = self.repositories.setdefault(name, Repository(private=private, gated=gated))
        return repository.commit(files)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(HubHandler):
            @property
            def hub(self) -> FakeHub:
                return hub

        return Handler


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Any

    def log_message(self, format: str, *args: object) -> None:
        self.hub.asked.append(format % args)

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        wanted = re.fullmatch(
            r"(?:/api)?/datasets/(?P<name>[\w.-]+(?:/(?!revision/|resolve/)[\w.-]+)?)"
            r"(?:/(?P<what>revision|tree|paths-info|resolve)/(?P<revision>[^/]+)(?P<rest>/.*)?)?",
            path,
        )
        if wanted is None:
            return self._refuse(404, "EntryNotFound")
        repository = self.hub.repositories.get(wanted["name"])
        authorised = self.headers.get("authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not authorised):
            return self._refuse(401, "RepoNotFound")
        if repository.gated and not authorised:
            return self._refuse(401, "GatedRepo")
        commit = repository.resolve(wanted["revision"] or "main")
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        files = repository.commits[commit]
        rest = (wanted["rest"] or "").strip("/")
        if wanted["what"] == "resolve":
            return self._send_file(files, rest, commit)
        if wanted["what"] == "tree":
            return self._json(_listed(files, rest))
        if wanted["what"] == "paths-info":
            asked = re.findall(r"paths=([^&]*)", self.body) or json.loads(self.body)["paths"]
            return self._json(
                [_entry(name, files[name]) for name in map(unquote, asked) if name in files]
            )
        siblings = [{"rfilename": name} for name in files]
        facts = {"_id": "1", "id": wanted["name"], "sha": commit, "siblings": siblings}
        return self._json({**facts, "private": repository.private, "gated": repository.gated})

    def _send_file(self, files: Mapping[str, bytes], name: str, commit: str) -> None:
        if name not in files:
            return self._refuse(404, "EntryNotFound")
        content = files[name]
        headers = {"ETag": f'"{_hash(content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if part is None:
            return self._send(200, content, headers)
        end = min(int(part[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {part[1]}-{end}/{len(content)}"
        return self._send(206, content[int(part[1]) : end + 1], headers)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _listed(files: Mapping[str, bytes], folder: str) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    inside = {name: content for name, content in files.items() if name.startswith(prefix)}
    folders = {
        name[: name.index("/", len(prefix))] for name in inside if "/" in name[len(prefix) :]
    }
    return [
        *({"type": "directory", "oid": "0", "size": 0, "path": name} for name in folders),
        *(_entry(name, content) for name, content in inside.items()),
    ]


def _entry(name: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "oid": _hash(content), "size": len(content), "path": name}


def _hash(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    try:
        yield hub
    finally:
        hub.close()
