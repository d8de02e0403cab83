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

from service.worker.cores import usable_cores
from service.worker.files import BadDownloadError, FileCache
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


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in (folder / "work").iterdir()]


def test_a_file_is_fetched_once(tmp_path: Path) -> None:
    source = Source(train=b"rows")
    for _ in range(2):  # the second cache is another worker's
        path = FileCache(tmp_path).file(source.remote("train"), source.download, until=NEVER)
        assert path.read_bytes() == b"rows"
    assert source.fetched == ["/train"]
    assert leftovers(tmp_path) == []


def test_a_file_with_another_hash_is_refused_and_does_not_stay(tmp_path: Path) -> None:
    source = Source(train=b"rows")
    remote = source.remote("train")
    source.files["/train"] = b"ROWS"
    cache = FileCache(tmp_path)
    with pytest.raises(BadDownloadError, match="/train has the sha256"):
        cache.file(remote, source.download, until=NEVER)
    assert leftovers(tmp_path) == []
    source.files["/train"] = b"rows"
    assert cache.file(remote, source.download, until=NEVER).read_bytes() == b"rows"


def test_workers_that_want_the_same_file_fetch_it_once_between_them(tmp_path: Path) -> None:
    source = Source(train=b"rows" * 1000)
    remote = source.remote("train")
    together = threading.Barrier(8, timeout=10)

    def fetch(_: int) -> bytes:
        cache = FileCache(tmp_path)
        together.wait()
        return cache.file(remote, source.download, until=NEVER).read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(fetch, range(8))) == {b"rows" * 1000}
    assert source.fetched == ["/train"]


def test_a_model_folder_has_its_files_under_their_own_paths(tmp_path: Path) -> None:
    source = Source(a=b"{}", b=b"weights")
    files = [source.remote("a", "config.json"), source.remote("b", "sub/model.safetensors")]
    folder = FileCache(tmp_path).model(files, source.download, until=NEVER)
    assert (folder / "config.json").read_bytes() == b"{}"
    assert (folder / "sub" / "model.safetensors").read_bytes() == b"weights"
    again = FileCache(tmp_path).model(files, source.download, until=NEVER)
    assert again == folder
    assert source.fetched == ["/a", "/b"]


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil"])
def test_a_model_file_cannot_leave_its_folder(tmp_path: Path, path: str) -> None:
    source = Source(a=b"{}")
    with pytest.raises(BadDownloadError):
        FileCache(tmp_path).model([source.remote("a", path)], source.download, until=NEVER)
    assert not list(tmp_path.rglob("evil"))
    assert leftovers(tmp_path) == []


def test_a_sweep_removes_what_the_killed_left_and_spares_what_is_in_use(tmp_path: Path) -> None:
    cache = FileCache(tmp_path)
    left = tmp_path / "work" / "w-0-left"
    left.mkdir()
    (left / "model.zip").write_bytes(b"half")
    with cache.workspace("w-1") as workspace:
        old = left.stat().st_mtime + 100
        cache.sweep(older_than_s=1000, now=old)
        assert left.exists()
        cache.sweep(older_than_s=10, now=old)
        assert not left.exists()
        assert workspace.exists()
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
            fetched = pool.submit(FileCache(tmp_path).file, remote, source.download, until=ended)
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
