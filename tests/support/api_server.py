"""A server for tests of the API: the real application on a real database, called in-process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import func, select

from service.app import create_app
from service.context import ServerContext
from service.settings import Settings
from service.store.database import Database
from service.store.tables import Base

TICKETS = "text,label\n" + "".join(
    f"please {('refund', 'reset', 'invoice')[i % 3]} number {i} today,"
    f"{('money', 'login', 'bill')[i % 3]}\n"
    for i in range(60)
)


class ApiServer:
    """A client that carries the admin key, and a view behind the scenes."""

    def __init__(self, client: TestClient, context: ServerContext) -> None:
        self.client = client
        self.context = context
        key = context.settings.admin_key_file.read_text().strip()
        client.headers["Authorization"] = f"Bearer {key}"

    def upload(
        self, text: str | bytes = TICKETS, filename: str = "tickets.csv", **fields: str
    ) -> str:
        files = {"train": (filename, text)}
        answer = self.client.post("/v1/datasets", files=files, data=fields)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def submit(self, **spec: Any) -> dict[str, Any]:
        answer = self.client.post("/v1/studies", json={"name": "tickets", **spec})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def get(self, path: str, **params: Any) -> Any:
        answer = self.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def stored_rows(self) -> dict[str, int]:
        """Rows by table, of the tables that submitting writes."""
        tables = ("dataset", "dataset_file", "study", "study_label", "trial", "event")
        with self.context.database.reading() as session:
            return {
                name: session.scalar(select(func.count()).select_from(Base.metadata.tables[name]))
                or 0
                for name in tables
            }

    def stored_files(self) -> set[str]:
        """Everything under the home that an upload or a study could have left."""
        home = self.context.folders.home
        folders = ("datasets", "incoming", "cache", "artifacts")
        return {
            str(path.relative_to(home))
            for folder in folders
            for path in (home / folder).rglob("*")
            if path.is_file()
        }


@contextmanager
def serving(database: Database, home: Path, **settings: Any) -> Iterator[ApiServer]:
    """Run the application on ``database``, from its start to its end."""
    url = database.url.render_as_string(hide_password=False)
    app = create_app(Settings(home=home, database_url=url, **settings))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield ApiServer(client, app.state.context)
