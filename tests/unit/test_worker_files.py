"""The worker's cache folder."""

import fcntl
import hashlib
import os
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from service.worker.cache_entries import Holds
from service.worker.cores import usable_cores
from service.worker.files import BadDownloadError, FileCache
from service.worker.job_log import JobLog
from service.worker.lease_files import zip_folder
from studies.wire.leases import RemoteFile

NEVER = threading.Event()


class Source:
    """A server's files; counts what is fetched."""

    def __init__(self, **files: bytes) -> None:
        self.files = {f"/{name}": content for name, content in files.items()}
        self.fetched: list[str] = []

    def remote(self, name: str, path: str = "") -> RemoteFile:
        content = self.files[f"/{name}"]
        digest = hashlib.sha256(content).hexdigest()
        return RemoteFile(path=path or name, url=f"/{name}", sha256=digest, bytes=len(content))

    def download(self, url: str, sink: BinaryIO) -> None:
        self.fetched.append(url)
        sink.write(self.files[url])


def cached(
    folder: Path, source: Source, remote: RemoteFile, until: threading.Event = NEVER
) -> Path:
    with Holds() as holds:
        return FileCache(folder).file(remote, source.download, holds=holds, until=until)


def cached_model(folder: Path, source: Source, files: list[RemoteFile]) -> Path:
    with Holds() as holds:
        return FileCache(folder).model(files, source.download, holds=holds, until=NEVER)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in (folder / "work").iterdir()]


def test_a_file_is_fetched_once(tmp_path: Path) -> None:
    source = Source(train=b"rows")
    for _ in range(2):  # the second cache is another worker's
        path = cached(tmp_path, source, source.remote("train"))
        assert path.read_bytes() == b"rows"
    assert source.fetched == ["/train"]
    assert leftovers(tmp_path) == []


def test_a_file_with_another_hash_is_refused_and_does_not_stay(tmp_path: Path) -> None:
    source = Source(train=b"rows")
    remote = source.remote("train")
    source.files["/train"] = b"ROWS"
    with pytest.raises(BadDownloadError, match="/train has the sha256"):
        cached(tmp_path, source, remote)
    assert leftovers(tmp_path) == []
    source.files["/train"] = b"rows"
    assert cached(tmp_path, source, remote).read_bytes() == b"rows"


def test_workers_that_want_the_same_file_fetch_it_once_between_them(tmp_path: Path) -> None:
    source = Source(train=b"rows" * 1000)
    remote = source.remote("train")
    together = threading.Barrier(8, timeout=10)

    def fetch(_: int) -> bytes:
        together.wait()
        return cached(tmp_path, source, remote).read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(fetch, range(8))) == {b"rows" * 1000}
    assert source.fetched == ["/train"]


def test_a_model_folder_has_its_files_under_their_own_paths(tmp_path: Path) -> None:
    source = Source(a=b"{}", b=b"weights")
    files = [source.remote("a", "config.json"), source.remote("b", "sub/model.safetensors")]
    folder = cached_model(tmp_path, source, files)
    assert (folder / "config.json").read_bytes() == b"{}"
    assert (folder / "sub" / "model.safetensors").read_bytes() == b"weights"
    again = cached_model(tmp_path, source, files)
    assert again == folder
    assert source.fetched == ["/a", "/b"]


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil"])
def test_a_model_file_cannot_leave_its_folder(tmp_path: Path, path: str) -> None:
    source = Source(a=b"{}")
    with pytest.raises(BadDownloadError):
        cached_model(tmp_path, source, [source.remote("a", path)])
    assert not list(tmp_path.rglob("evil"))
    assert leftovers(tmp_path) == []


def test_a_sweep_removes_what_the_killed_left_and_spares_what_is_in_use(tmp_path: Path) -> None:
    cache = FileCache(tmp_path)
    left = tmp_path / "work" / "w-0-left"
    left.mkdir()
    (left / "model.zip").write_bytes(b"half")
    with cache.workspace() as workspace:
        old = left.stat().st_mtime + 100
        cache.sweep(older_than_s=1000, now=old)
        assert left.exists()
        cache.sweep(older_than_s=10, now=old)
        assert not left.exists()
        assert workspace.folder.exists()
    assert leftovers(tmp_path) == []


def test_a_lock_that_is_held_elsewhere_delays_a_fetch_only_until_the_lease_ends(
    tmp_path: Path,
) -> None:
    source = Source(train=b"rows")
    remote = source.remote("train")
    lock = tmp_path / "files" / remote.sha256[:2] / f"{remote.sha256}.lock"
    lock.parent.mkdir(parents=True)
    ended = threading.Event()
    held = os.open(lock, os.O_CREAT | os.O_WRONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        with ThreadPoolExecutor(1) as pool:
            fetched = pool.submit(cached, tmp_path, source, remote, until=ended)
            with pytest.raises(TimeoutError):
                fetched.result(0.5)
            ended.set()
            assert fetched.result(10).read_bytes() == b"rows"
    finally:
        os.close(held)


def test_a_model_archive_has_its_files_at_its_root_uncompressed(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}" * 1000)
    (folder / "sub" / "x").write_bytes(b"x")
    zip_folder(folder, tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert archive.namelist() == ["config.json", "sub/x"]
        assert archive.infolist()[0].compress_type == zipfile.ZIP_STORED


@pytest.mark.parametrize(
    ("quota", "cores"), [("150000 100000", 2), ("10000 100000", 1), ("max 100000", None)]
)
def test_a_containers_share_of_the_processor_bounds_the_cores(
    tmp_path: Path, quota: str, cores: int | None
) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    seen = len(os.sched_getaffinity(0))
    assert usable_cores(file) == (seen if cores is None else min(cores, seen))


def test_damaged_copies_are_removed_and_fetched_anew(tmp_path: Path) -> None:
    source = Source(train=b"rows", other=b"more rows", config=b"{}", weights=b"weights")
    data = [source.remote("train"), source.remote("other")]
    model = [source.remote("config", "config.json"), source.remote("weights", "sub/weights")]
    paths = [cached(tmp_path, source, remote) for remote in data]
    folder = cached_model(tmp_path, source, model)
    cache = FileCache(tmp_path)
    assert cache.drop_damaged(data, model, Holds()) == []

    paths[0].write_bytes(b"ROWS")
    assert cache.drop_damaged(data, model, Holds()) == ["train"]
    assert cached(tmp_path, source, data[0]).read_bytes() == b"rows"
    assert (paths[1].exists(), folder.exists()) == (True, True)

    (folder / "sub" / "weights").write_bytes(b"WEIGHTS")  # and so the file it is linked to
    assert cache.drop_damaged(data, model, Holds()) == ["sub/weights"]
    assert not folder.exists()
    again = cached_model(tmp_path, source, model)
    assert (again / "sub" / "weights").read_bytes() == b"weights"
    assert leftovers(tmp_path) == []


def test_a_damaged_copy_that_another_lease_has_removed_was_damaged_for_this_one_too(
    tmp_path: Path,
) -> None:
    """Two slots read the same damaged file; neither of their trials is to blame."""
    source = Source(train=b"rows", config=b"{}", weights=b"weights")
    data = [source.remote("train")]
    model = [source.remote("config", "config.json"), source.remote("weights", "weights")]
    cache = FileCache(tmp_path)
    with Holds() as first, Holds() as second:
        for holds in (first, second):
            path = cache.file(data[0], source.download, holds=holds, until=NEVER)
            folder = cache.model(model, source.download, holds=holds, until=NEVER)
        path.write_bytes(b"ROWS")
        assert cache.drop_damaged(data, model, first) == ["train"]
        assert cached(tmp_path, source, data[0]) == path
        assert cache.drop_damaged(data, model, second) == ["train"]
        assert path.read_bytes() == b"rows"

        (folder / "weights").write_bytes(b"WEIGHTS")
        assert "weights" in cache.drop_damaged([], model, first)
        assert "weights" in cache.drop_damaged([], model, second)


def test_a_download_that_another_worker_never_ends_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.worker.files.LOCK_WAIT_S", 0.1)
    source = Source(train=b"rows")
    cached(tmp_path, source, source.remote("train")).unlink()
    [lock] = tmp_path.glob("files/*/*.lock")
    with lock.open("wb") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        assert cached(tmp_path, source, source.remote("train")).read_bytes() == b"rows"


def test_a_log_on_a_disk_that_takes_no_more_costs_its_lines_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job_log = JobLog(tmp_path / "gone" / "train.log")
    for _ in range(3):
        job_log.write("a line")
    assert [record.message[:28] for record in caplog.records] == ["lines of train.log are lost:"]
    job_log.path.parent.mkdir()
    job_log.write("another")
    assert job_log.path.read_text().endswith(" another\n")
