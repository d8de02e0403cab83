"""What the doctor says of the disk and of where the database lies."""

from pathlib import Path

import pytest

from service.local import doctor
from service.settings import Settings


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BERTUNE_DATABASE_URL", raising=False)


def test_disk_use_is_told_by_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_bytes", lambda folder: 80_000_000_000)
    for name, size in (("artifacts/trial/1/model.zip", 300), ("datasets/id/train.parquet", 700)):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            file.truncate(size * 1_000_000)
    finding = doctor._disk(Settings(home=tmp_path))
    assert finding.level == "ok"
    assert finding.detail == (
        f"80.0 GB free at {tmp_path}; 0.3 GB of artifacts, 0.7 GB of data sets"
    )


@pytest.mark.parametrize(
    ("free", "level", "advice"),
    [
        (4_900_000_000, "warn", "BERTUNE_HOME"),
        (100_000_000, "fail", "Uploads are refused"),
    ],
)
def test_little_room_is_told_before_uploads_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: str, advice: str
) -> None:
    monkeypatch.setattr(doctor, "free_bytes", lambda folder: free)
    finding = doctor._disk(Settings(home=tmp_path, min_free_bytes=200_000_000))
    assert finding.level == level
    assert advice in finding.advice


def test_a_home_that_is_not_made_yet_has_a_disk(tmp_path: Path) -> None:
    finding = doctor._disk(Settings(home=tmp_path / "not" / "yet", min_free_bytes=0))
    assert finding.detail.endswith("0.0 GB of artifacts, 0.0 GB of data sets")


def test_a_database_on_a_network_file_system_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "network_file_system", lambda path: "nfs4")
    finding = doctor._database(Settings(home=tmp_path))
    assert finding.level == "fail"
    assert "bertune.db is on a network file system (nfs4)" in finding.detail
