"""Numbers that follow from names, equal in every process."""

import hashlib


def hashed(name: str) -> int:
    """64 bits."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
