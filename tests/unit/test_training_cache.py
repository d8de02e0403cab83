"""What the cache keeps, what it drops, and what it never holds."""

from collections.abc import Callable

from model.training_cache import TrainingCache


def build(log: list[str], value: str) -> Callable[[], str]:
    def make() -> str:
        log.append(value)
        return value

    return make


def test_a_value_is_built_once() -> None:
    cache = TrainingCache(10)
    log: list[str] = []
    for _ in range(3):
        assert cache.get(("text", 1), build(log, "abc"), len) == "abc"
    assert log == ["abc"]


def test_the_least_recently_used_goes_first() -> None:
    cache = TrainingCache(10)
    log: list[str] = []
    cache.get(("a",), build(log, "aaaa"), len)
    cache.get(("b",), build(log, "bbbb"), len)
    cache.get(("a",), build(log, "aaaa"), len)  # used again, so b is now the oldest
    cache.get(("c",), build(log, "cccc"), len)
    assert [key for key in ("a", "b", "c") if (key,) in cache] == ["a", "c"]
    assert cache.used_bytes == 8


def test_a_value_larger_than_the_cache_is_returned_and_drops_nothing() -> None:
    cache = TrainingCache(5)
    log: list[str] = []
    cache.get(("a",), build(log, "aaaa"), len)
    assert cache.get(("big",), build(log, "b" * 6), len) == "bbbbbb"
    assert ("a",) in cache
    assert ("big",) not in cache


def test_without_capacity_everything_is_built_anew() -> None:
    cache = TrainingCache(0)
    log: list[str] = []
    for _ in range(2):
        cache.get(("a",), build(log, "a"), len)
    assert log == ["a", "a"]
