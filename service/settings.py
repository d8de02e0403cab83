"""Settings: `BERTUNE_*` from the environment. One README row each, which a test keeps true."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """Every setting of the server, the worker and the command line, with its default."""

    model_config = SettingsConfigDict(env_prefix="BERTUNE_", extra="ignore")

    home: Path = Field(Path("bertune-data"), description="Database, data sets, artifacts, keys")
    database_url: str | None = Field(None, description="SQLAlchemy URL; default SQLite in home")
    host: str = Field("127.0.0.1", description="Address the server binds")
    port: int = Field(8000, description="Port the server binds", ge=0, le=65535)
    server: str = Field("http://127.0.0.1:8000", description="Server that clients and workers use")
    key: SecretStr | None = Field(None, description="API key of clients and workers")
    model_dirs: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Folders that hold local:NAME models, separated by ':'"
    )
    data_dirs: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Folders whose files schedules may read, separated by ':'"
    )
    schedule_s: float = Field(5, description="How often due schedules are looked for", gt=0)
    webhook_private: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Hosts and networks that webhooks may reach although not public"
    )
    webhook_retry_s: float = Field(5, description="First pause before a webhook is retried", gt=0)
    event_days: int = Field(30, description="How long events are kept, in days", ge=1)
    lease_s: float = Field(60, description="How long a lease lasts without renewal", gt=0)
    renew_s: float = Field(15, description="How often an agent renews its lease", gt=0)
    reconcile_s: float = Field(30, description="How often the reconciler runs", gt=0)
    max_crashes: int = Field(3, description="Trainer crashes before a trial is quarantined", ge=1)
    max_lost: int = Field(10, description="Lost leases before a trial is quarantined", ge=1)
    orphan_s: float = Field(600, description="Agent without contact kills its trainer after", gt=0)
    checkpoint_s: float = Field(
        60, description="Seconds of training between two local checkpoints", ge=0
    )
    cache_disk_bytes: int = Field(
        50_000_000_000, description="Disk of a worker's cache folder", ge=0
    )
    min_free_bytes: int = Field(
        200_000_000, description="Disk that uploads and caches leave free", ge=0
    )
    cache_bytes: int = Field(4_000_000_000, description="Memory of a trainer's caches", ge=0)
    max_upload_bytes: int = Field(4_000_000_000, description="Largest upload accepted", ge=1)

    @field_validator("model_dirs", "data_dirs", mode="before")
    @classmethod
    def _split_folders(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(Path(part) for part in value.split(":") if part)
        return value

    @field_validator("webhook_private", mode="before")
    @classmethod
    def _split_places(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home.resolve() / 'bertune.db'}"

    @property
    def admin_key_file(self) -> Path:
        return self.home / "admin.key"
