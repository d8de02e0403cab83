"""The bound of a worker's cache folder."""

import hashlib
import os
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from service.worker.cache_disk import CacheDisk
from service.worker.cache_entries import Holds
from service.worker.checkpoints import Checkpoints
from service.worker.files import FileCache
from studies.wire.leases import RemoteFile

NEVER = threading.Event()
KB = 1000


def remote(content: bytes, path: str = "f") -> RemoteFile:
    digest = hashlib.sha256(content).hexdigest()
    return RemoteFile(path=path, url="/f", sha256=digest, bytes=len(content))


@pytest.fixture
def cache(tmp_path: Path) -> FileCache:
    return FileCache(tmp_path / "cache")


def put(cache: FileCache, letter: str, holds: Holds, *, used_at: float = 0) -> Path:
    """A cached file of 1 kB, last used then."""
    content = letter.encode() * KB

    def download(_: str, sink: BinaryIO) -> None:
        sink.write(content)

    path = cache.file(remote(content), download, holds=holds, until=NEVER)
    os.utime(path, (used_at, used_at))
    return path


def put_model(cache: FileCache, letters: str, holds: Holds, *, used_at: float = 0) -> Path:
    """A model of one file of 1 kB per letter; the files are used long before it."""
    contents = {letter: letter.encode() * KB for letter in letters}
    for letter in letters:
        put(cache, letter, holds)
    files = [remote(content, letter) for letter, content in contents.items()]
    folder = cache.model(files, lambda *_: pytest.fail("it is here"), holds=holds, until=NEVER)
    os.utime(folder, (used_at, used_at))
    for letter in letters:
        os.utime(folder / letter, (1, 1))
    return folder


def disk(cache: FileCache, *, kb: int) -> CacheDisk:
    return CacheDisk(cache, max_bytes=kb * KB, min_free_bytes=0)


def test_what_was_used_longest_ago_goes_first(cache: FileCache) -> None:
    with Holds() as holds:
        old, older, new = (
            put(cache, letter, holds, used_at=at)
            for letter, at in (("a", 200), ("b", 100), ("c", 300))
        )
    disk(cache, kb=3).keep_bound()
    assert older.exists()
    disk(cache, kb=2).keep_bound()
    assert [path.exists() for path in (older, old, new)] == [False, True, True]
    assert not older.with_suffix(".lock").exists()
    disk(cache, kb=0).keep_bound()
    assert not any(path.exists() for path in (old, new))
    assert list(cache.work.iterdir()) == []


def test_using_a_file_again_makes_it_new(cache: FileCache) -> None:
    with Holds() as holds:
        first = put(cache, "a", holds, used_at=100)
        second = put(cache, "b", holds, used_at=200)
        assert holds.take(first)
    disk(cache, kb=1).keep_bound()
    assert (first.exists(), second.exists()) == (True, False)


def test_what_a_lease_holds_stays_until_its_end(cache: FileCache) -> None:
    with Holds() as others, Holds() as holds:
        used = put(cache, "a", others, used_at=100)
        model = put_model(cache, "mn", others, used_at=110)
        checkpoint = Checkpoints(cache.checkpoints).open("t1", others)
        checkpoint.write_bytes(b"s" * KB)
        with Holds() as ended:
            unused = put(cache, "b", ended, used_at=200)
        disk(cache, kb=0).keep_bound()
        assert all(path.exists() for path in (used, model / "m", model / "n", checkpoint))
        assert not unused.exists()
        assert not holds.take(unused)
    disk(cache, kb=0).keep_bound()
    assert not any(path.exists() for path in (used, model, checkpoint.parent))
    assert list(cache.files.glob("*/*")) == []


def test_a_model_and_its_files_count_once_and_the_files_go_after_it(cache: FileCache) -> None:
    with Holds() as holds:
        model = put_model(cache, "mn", holds, used_at=200)
        single = put(cache, "a", holds, used_at=300)
    disk(cache, kb=3).keep_bound()
    assert model.exists()
    disk(cache, kb=1).keep_bound()
    assert not model.exists()
    assert [path for path in cache.files.glob("*/*") if path.suffix != ".lock"] == [single]


def test_a_file_that_vanished_before_it_was_held_is_fetched_again(
    cache: FileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An eviction by another agent, between the fetch and the hold."""
    content = b"a" * KB
    fetched: list[str] = []

    def download(url: str, sink: BinaryIO) -> None:
        fetched.append(url)
        sink.write(content)

    with Holds() as holds:
        take = holds.take

        def take_too_late(path: Path) -> bool:
            if len(fetched) == 1:
                path.unlink()
            return take(path)

        monkeypatch.setattr(holds, "take", take_too_late)
        path = cache.file(remote(content), download, holds=holds, until=NEVER)
    assert path.read_bytes() == content
    assert fetched == ["/f", "/f"]


def test_room_is_made_out_of_the_cache_and_is_missed_when_that_is_not_enough(
    cache: FileCache,
) -> None:
    with Holds() as holds:
        path = put(cache, "a", holds)
    assert CacheDisk(cache, max_bytes=0, min_free_bytes=0).make_room()
    assert path.exists()  # there was room
    assert not CacheDisk(cache, max_bytes=KB, min_free_bytes=1 << 60).make_room()
    assert not path.exists()


def test_all_that_can_be_fetched_again_goes_but_what_is_in_use(cache: FileCache) -> None:
    with Holds() as holds, Holds() as ended:
        used = put(cache, "a", holds)
        with ended:
            file, model = put(cache, "b", ended), put_model(cache, "mn", ended, used_at=200)
            checkpoint = Checkpoints(cache.checkpoints).open("t1", ended)
        checkpoint.write_bytes(b"state")
        disk(cache, kb=1000).drop_fetched()
        assert [path.exists() for path in (used, checkpoint)] == [True, True]
    assert not file.exists()
    assert not model.exists()
    assert [path for path in cache.files.glob("*/*") if path.suffix != ".lock"] == [used]


def test_old_checkpoints_go_and_those_in_use_stay(cache: FileCache) -> None:
    checkpoints = Checkpoints(cache.checkpoints)
    with Holds() as holds, Holds() as ended:
        used = checkpoints.open("used", holds)
        with ended:
            old, new = checkpoints.open("old", ended), checkpoints.open("new", ended)
        for path, at in ((used, 0), (old, 0), (new, 900)):
            path.write_bytes(b"state")
            os.utime(path.parent, (at, at))
        disk(cache, kb=9).remove_old_checkpoints(older_than_s=500, now=1000)
        assert [path.exists() for path in (used, old, new)] == [True, False, True]
