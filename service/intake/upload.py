"""Receives a data set: JSON that names one of the hub, or a multipart upload.

Uploaded files go to disk as they arrive, and never whole into memory. Written against the
streaming parser itself, because the form support of the web framework would spool the files to the
system's temporary folder first, which may be memory.
"""

import json
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, BinaryIO

from anyio import to_thread
from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from model.config import SPLITS, Split
from model.errors import InputError
from service.context import Context
from service.errors import ServiceError, TooLargeError
from service.intake.body import BrokenUploadError, receive_body
from service.store.identifiers import new_id
from studies.wire.sources import HubDataset

TEXT_FIELDS = ("name", "options")
MAX_TEXT_BYTES = 1 << 20


class MediaTypeError(ServiceError):
    status = 415
    code = "unsupported_media_type"


@dataclass(slots=True)
class Upload:
    """What a form held. The files lie in ``folder``, which goes away with the request."""

    folder: Path
    files: dict[Split, Path] = field(default_factory=dict)
    filenames: dict[Split, str] = field(default_factory=dict)
    """The names that the client gave the files; for people only."""
    texts: dict[str, str] = field(default_factory=dict)
    origin: dict[str, Any] | None = None
    """Fields of `studies.wire.datasets.HubOrigin`, of files that came from a hub."""


async def _receive(request: Request, context: Context) -> AsyncIterator[Upload | HubDataset]:
    if _media_type(request)[0] == b"application/json":
        yield await _receive_json(request)
        return
    boundary = _boundary(request)
    upload = Upload(context.folders.incoming / new_id())
    writer = _FormWriter(upload, boundary)
    try:
        await to_thread.run_sync(_make, upload.folder)
        await receive_body(request, context.settings, upload.folder, writer.write)
        await to_thread.run_sync(writer.finish)
        yield upload
    finally:
        await to_thread.run_sync(_remove, upload.folder, writer)


ReceivedData = Annotated[Upload | HubDataset, Depends(_receive)]
"""Annotation for a route's parameter: the request's body, a form's files received and on disk."""


async def _receive_json(request: Request) -> HubDataset:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_TEXT_BYTES:
            raise TooLargeError(f"A JSON body may have {MAX_TEXT_BYTES} bytes.", where=["body"])
    try:
        return HubDataset.model_validate_json(bytes(body))
    except ValidationError as error:
        problems = [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors()]
        raise RequestValidationError(problems, body=_parsed(body)) from error


def _parsed(body: bytearray) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _make(folder: Path) -> None:
    folder.mkdir(parents=True)


def _remove(folder: Path, writer: "_FormWriter") -> None:
    try:
        writer.close()
    finally:  # what it had left to write may not fit on the disk
        shutil.rmtree(folder, ignore_errors=True)


def _media_type(request: Request) -> tuple[bytes, dict[bytes, bytes]]:
    return parse_options_header(request.headers.get("content-type", ""))


def _boundary(request: Request) -> bytes:
    kind, options = _media_type(request)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        detail = (
            "Send multipart/form-data with a file named train, or application/json that names a "
            "data set of the hub."
        )
        raise MediaTypeError(detail, where=["header", "content-type"])
    return options[b"boundary"]


class _FormWriter:
    """Takes the body block by block; each part goes to its file or, if it is short text, to memory.

    A part's name alone decides what it is: a client may send the options as a file.
    """

    def __init__(self, upload: Upload, boundary: bytes) -> None:
        self._upload = upload
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._name = ""
        self._text: bytearray | None = None
        self._file: BinaryIO | None = None
        self._complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_part,
                    "on_part_data": self._on_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise BrokenUploadError(f"The form cannot be read: {error}.") from error

    def write(self, block: bytes) -> None:
        try:
            self._parser.write(block)
        except FormParserError as error:
            raise BrokenUploadError(f"The form cannot be read: {error}.") from error

    def finish(self) -> None:
        """Raise unless the form ended properly and holds a train file."""
        if not self._complete:
            raise BrokenUploadError("The form breaks off before its closing boundary.")
        if "train" not in self._upload.files:
            raise InputError("missing_split", "A data set needs a train file.", ("train",))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _on_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._disposition = b""
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name in self._upload.files or self._name in self._upload.texts:
            detail = f"The form has two parts named {self._name}."
            raise InputError("duplicate_field", detail, (self._name,))
        if self._name in TEXT_FIELDS:
            self._text = bytearray()
        else:
            self._open_file(options.get(b"filename", b"").decode("utf-8", "replace"))

    def _open_file(self, filename: str) -> None:
        split = next((split for split in SPLITS if split == self._name), None)
        if split is None:
            known = ", ".join((*SPLITS, *TEXT_FIELDS))
            detail = f"A data set's form has no field {self._name[:80]!r}; it may have {known}."
            raise InputError("unknown_field", detail, (self._name[:80],))
        # Nothing of the client's name reaches the disk but a harmless ending.
        ending = PurePosixPath(filename.lower()).suffix
        harmless = ending if re.fullmatch(r"\.[a-z0-9]{1,10}", ending) else ""
        path = self._upload.folder / f"{split}{harmless}"
        self._upload.files[split] = path
        self._upload.filenames[split] = _printable(filename)
        self._file = path.open("wb")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
        elif self._text is not None:
            self._text += data[start:end]
            if len(self._text) > MAX_TEXT_BYTES:
                detail = f"{self._name} may have {MAX_TEXT_BYTES} bytes."
                raise TooLargeError(detail, where=["body", self._name])

    def _on_part_end(self) -> None:
        self.close()
        if self._text is not None:
            self._upload.texts[self._name] = _decode(self._name, self._text)
            self._text = None

    def _on_end(self) -> None:
        self._complete = True


def _printable(filename: str) -> str:
    name = PurePosixPath(filename.replace("\\", "/")).name
    return "".join(char for char in name if char.isprintable())


def _decode(name: str, value: bytearray) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("not_utf8", f"The field {name} is not UTF-8.", (name,)) from error
    if "\0" in text:
        raise InputError("nul_byte", f"The field {name} holds a NUL character.", (name,))
    return text
