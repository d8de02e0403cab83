"""Keeps tokens, vocabularies and base weights from trial to trial of one process.

The trials of a study share their texts and their base model; reading and tokenizing them again
would cost more than a short trial's first epoch.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

Key = tuple[str | int, ...]
"""What the value is made of; the first entry names its kind."""


class TrainingCache:
    """Values by key, the least recently used dropped beyond ``capacity_bytes``. Not thread-safe.

    Values are shared between trials: whoever takes one must not change it.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        self._entries: OrderedDict[Key, tuple[Any, int]] = OrderedDict()

    def get(self, key: Key, build: Callable[[], T], size_bytes: Callable[[T], int]) -> T:
        """The value of ``key``, built when it is absent. One too large to keep is only returned."""
        if key in self._entries:
            self._entries.move_to_end(key)
            value: T = self._entries[key][0]
            return value
        value = build()
        self._keep(key, value, size_bytes(value))
        return value

    def _keep(self, key: Key, value: Any, size_bytes: int) -> None:
        if size_bytes > self.capacity_bytes:
            return
        self._entries[key] = (value, size_bytes)
        self.used_bytes += size_bytes
        while self.used_bytes > self.capacity_bytes:
            _, (_, dropped_bytes) = self._entries.popitem(last=False)
            self.used_bytes -= dropped_bytes

    def __contains__(self, key: Key) -> bool:
        return key in self._entries
