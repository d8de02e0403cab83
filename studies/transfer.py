"""How many bytes of a transfer are done, told while it goes."""

from collections.abc import Callable, Mapping
from typing import BinaryIO

OnBytes = Callable[[int, int | None], object]
"""``on_bytes(done, total)``; the total is None where the other side does not say. It is called for
every block, so it must be quick."""


class CountedFiles:
    """Files of one upload, which tell how much of them all was read."""

    def __init__(self, files: Mapping[str, BinaryIO], on_bytes: OnBytes) -> None:
        self._files = files
        self._on_bytes = on_bytes
        self._total = sum(file.seek(0, 2) for file in files.values())
        for file in files.values():
            file.seek(0)

    def tell(self) -> None:
        """A file that is sent again counts anew."""
        self._on_bytes(sum(file.tell() for file in self._files.values()), self._total)


class CountedFile:
    """What of a file an HTTP client asks for."""

    def __init__(self, file: BinaryIO, files: CountedFiles) -> None:
        self._file = file
        self._files = files

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        if block:
            self._files.tell()
        return block

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def fileno(self) -> int:
        return self._file.fileno()
