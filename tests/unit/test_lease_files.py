"""What a lease names is brought to this machine."""

import hashlib
import io
import threading
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import huggingface_hub
import pytest

from service.worker.cache_entries import Holds
from service.worker.files import FileCache, Workspace
from service.worker.lease_files import UnavailableError, dataset_key, fetch_files
from studies.wire.leases import Lease, LeaseDataset, LeaseModel, RemoteFile

FILES = {"train": b"train rows", "validation": b"validation rows", "test": b"test rows"}
NEVER = threading.Event()
SCRATCH = LeaseModel(kind="scratch", name="scratch:tiny", key="scratch:tiny")


def remote(name: str, content: bytes) -> RemoteFile:
    digest = hashlib.sha256(content).hexdigest()
    return RemoteFile(path=name, url=f"/{name}", sha256=digest, bytes=len(content))


def make_lease(*splits: str, indices: bool = False, **changes: Any) -> Lease:
    dataset = LeaseDataset(
        id="d1",
        labels=["a", "b"],
        files={split: remote(split, FILES[split]) for split in splits},
        indices=remote("indices", b"rows") if indices else None,
    )
    fields: dict[str, Any] = {
        "trial_id": "t1",
        "attempt": 1,
        "kind": "train",
        "study_id": "s1",
        "study_name": "study",
        "number": 0,
        "config": {},
        "dataset": dataset,
        "model": SCRATCH,
        "split": "validation",
        "lease_s": 60,
        "renew_s": 15,
        "lease_expires_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Lease(**{**fields, **changes})


@pytest.fixture
def contents() -> dict[str, bytes]:
    """What the server has, by URL."""
    return {"/indices": b"rows", **{f"/{name}": content for name, content in FILES.items()}}


def fetch(lease: Lease, contents: dict[str, bytes], folder: Path) -> Any:
    def download(url: str, sink: BinaryIO) -> None:
        sink.write(contents[url])

    own = folder / "workspace"
    own.mkdir(exist_ok=True)
    with Holds() as holds:
        workspace = Workspace(own, holds)
        return fetch_files(lease, FileCache(folder / "cache"), download, workspace, until=NEVER)


def test_a_split_with_a_file_of_its_own_takes_all_its_rows(
    contents: dict[str, bytes], tmp_path: Path
) -> None:
    files = fetch(make_lease("train", "validation", "test"), contents, tmp_path)
    assert set(files.splits) == {"train", "validation"}  # test is not this trial's to see
    assert Path(files.splits["validation"].path).read_bytes() == b"validation rows"
    assert files.splits["validation"].indices is None
    assert files.splits["train"].indices is None
    assert files.model == "scratch:tiny"


def test_a_split_without_a_file_is_part_of_the_train_file(
    contents: dict[str, bytes], tmp_path: Path
) -> None:
    files = fetch(make_lease("train", "test", indices=True), contents, tmp_path)
    for split in ("train", "validation"):
        assert Path(files.splits[split].path).read_bytes() == b"train rows"
        assert Path(files.splits[split].indices).read_bytes() == b"rows"
        assert files.splits[split].split == split


def test_rows_held_out_for_test_are_left_out_of_train_beside_a_validation_file(
    contents: dict[str, bytes], tmp_path: Path
) -> None:
    files = fetch(make_lease("train", "validation", indices=True), contents, tmp_path)
    assert files.splits["train"].indices is not None
    assert files.splits["validation"].indices is None


def test_a_lease_that_names_no_validation_rows_is_refused(
    contents: dict[str, bytes], tmp_path: Path
) -> None:
    with pytest.raises(UnavailableError) as error:
        fetch(make_lease("train"), contents, tmp_path)
    assert error.value.code == "missing_split"


def test_other_held_out_rows_are_other_data() -> None:
    assert dataset_key(make_lease("train")) != dataset_key(make_lease("train", indices=True))


def test_an_evaluation_gets_the_test_rows_and_the_unpacked_model(
    contents: dict[str, bytes], tmp_path: Path
) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("config.json", "{}")
    contents["/model.zip"] = archive.getvalue()
    model = LeaseModel(
        kind="artifact", name="m", key="k", files=[remote("model.zip", archive.getvalue())]
    )
    lease = make_lease("train", "test", kind="evaluate", split="test", model=model)
    files = fetch(lease, contents, tmp_path)
    assert set(files.splits) == {"test"}
    assert Path(files.splits["test"].path).read_bytes() == b"test rows"
    assert (Path(files.model) / "config.json").read_text() == "{}"


def test_an_archive_that_is_none_is_a_bad_download(
    contents: dict[str, bytes], tmp_path: Path
) -> None:
    contents["/model.zip"] = b"no zip"
    model = LeaseModel(kind="artifact", name="m", key="k", files=[remote("model.zip", b"no zip")])
    lease = make_lease("train", "test", kind="evaluate", split="test", model=model)
    with pytest.raises(UnavailableError) as error:
        fetch(lease, contents, tmp_path)
    assert error.value.code == "bad_download"


def hub_lease() -> Lease:
    model = LeaseModel(kind="hub", name="org/bert", revision="abc", key="org/bert@abc")
    return make_lease("train", "validation", model=model)


def test_a_hub_model_is_the_snapshot_of_its_frozen_revision(
    contents: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def snapshot(name: str, *, revision: str, **_: Any) -> str:
        asked.append((name, revision))
        (tmp_path / "model.safetensors").touch()
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert fetch(hub_lease(), contents, tmp_path).model == str(tmp_path)
    assert asked == [("org/bert", "abc")]


@pytest.mark.parametrize("complete", [True, False])
def test_a_hub_model_that_cannot_be_had_here_is_unavailable(
    contents: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complete: bool
) -> None:
    def snapshot(*_: Any, **__: Any) -> str:
        if complete:
            raise OSError("no network")
        return str(tmp_path)  # what the cache has, without weights

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(UnavailableError, match="no network" if complete else "weights") as error:
        fetch(hub_lease(), contents, tmp_path)
    assert error.value.code == "model_unavailable"


def test_a_lease_that_ends_does_not_wait_for_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, finish = threading.Event(), threading.Event()

    def snapshot(*_: Any, **__: Any) -> str:
        ended.set()
        finish.wait(30)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)

    def download(url: str, sink: BinaryIO) -> None:
        sink.write(FILES[url.removeprefix("/")])

    workspace = Workspace(tmp_path, Holds())
    with pytest.raises(UnavailableError):
        fetch_files(hub_lease(), FileCache(tmp_path / "cache"), download, workspace, until=ended)
    assert not finish.is_set()
    finish.set()
