"""Ids of our rows: opaque strings that sort by the time they were made."""

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_TIME_CHARS = 10
_RANDOM_CHARS = 10


def new_id() -> str:
    """A fresh id: 50 bits of milliseconds, then 50 random bits, in Crockford's base 32."""
    milliseconds = time.time_ns() // 1_000_000
    return _encode(milliseconds, _TIME_CHARS) + _encode(secrets.randbits(50), _RANDOM_CHARS)


def _encode(number: int, length: int) -> str:
    chars = []
    for _ in range(length):
        number, digit = divmod(number, 32)
        chars.append(_ALPHABET[digit])
    return "".join(reversed(chars))
