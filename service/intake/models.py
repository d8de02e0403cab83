"""The model catalogue: what a study's ``model`` names, and the facts frozen when it is submitted.

Neither torch nor Transformers is needed for that: ``config.json`` is read as JSON, and a hub is
asked for small files only. Workers fetch the weights.
"""

import hashlib
import json
import re
import threading
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from model.checkpoint import ModelFile, model_files, read_checkpoint, scratch_size
from model.config import SCRATCH_PREFIX
from model.errors import InputError
from service.errors import ConflictError, NotFoundError

LOCAL = "local:"
HUB_TIMEOUT_S = 10
_HUB_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A model that exists: its frozen facts, and the folder with its configuration and tokenizer
    (None: made from the data, for `scratch:`)."""

    facts: dict[str, Any]
    folder: Path | None


class ModelCatalogue:
    """Looks models up; one per server, since it remembers the hashes of files it has read."""

    def __init__(self, model_dirs: tuple[Path, ...]) -> None:
        self._model_dirs = model_dirs
        self._lock = threading.Lock()
        self._hashed: dict[tuple[Path, _Stamp], tuple[ModelFile, ...]] = {}

    def find(self, model: str) -> CatalogueEntry:
        """Return the entry of ``scratch:SIZE``, ``local:NAME`` or ``[org/]name[@revision]``.

        Raises `InputError` ``unknown_model``, ``unsupported_model``, ``no_safetensors``,
        ``no_tokenizer`` or ``model_unavailable``, all at ``("model",)``.
        """
        if model.startswith(SCRATCH_PREFIX):
            return _scratch(model)
        if model.startswith(LOCAL):
            return self._local(model)
        return _hub(model)

    def local_file(self, facts: dict[str, Any], path: str) -> Path:
        """Return the file ``path`` of a `local:` model with these frozen facts.

        Raises `NotFoundError` for a path that the facts do not list, `ConflictError`
        ``model_changed`` when the files are no longer those of the submission.
        """
        frozen = next((file for file in facts["files"] if file["path"] == path), None)
        if frozen is None:
            raise NotFoundError(f"This model has no file {path}.", code="unknown_file")
        try:
            folder = self._folder(facts["name"])
            unchanged = ModelFile(**frozen) in self._files(folder)
        except InputError:
            unchanged = False
        if not unchanged:
            detail = f"{facts['name']} has changed since the study was submitted; submit it again."
            raise ConflictError(detail, code="model_changed")
        return folder / path

    def _local(self, model: str) -> CatalogueEntry:
        folder = self._folder(model)
        checkpoint = read_checkpoint(folder)
        files = self._files(folder)
        facts = {
            "kind": "local",
            "name": model,
            "revision": None,
            "key": _fingerprint(files),
            "max_positions": checkpoint.max_positions,
            "model_type": checkpoint.model_type,
            "layers": checkpoint.layers,
            "files": [asdict(file) for file in files],
        }
        return CatalogueEntry(facts, folder)

    def _folder(self, model: str) -> Path:
        """Find ``local:NAME`` under the allowed roots. A name never leads out of its root; what
        links inside a root lead to is up to whoever set up the server."""
        name = PurePosixPath(model.removeprefix(LOCAL))
        plain = not name.is_absolute() and all(part not in ("", ".", "..") for part in name.parts)
        if plain and name.parts and "\0" not in str(name):
            for root in self._model_dirs:
                if (root / name / "config.json").is_file():
                    return root / name
        roots = ", ".join(map(str, self._model_dirs)) or "none is set"
        detail = (
            f"There is no model folder {model} under the server's model folders ({roots}); "
            "see BERTUNE_MODEL_DIRS."
        )
        raise InputError("unknown_model", detail, ("model",))

    def _files(self, folder: Path) -> tuple[ModelFile, ...]:
        key = (folder, _stamp(folder))
        with self._lock:
            known = self._hashed.get(key)
        if known is None:
            known = model_files(folder)
            with self._lock:
                self._hashed[key] = known
        return known


def _stamp(folder: Path) -> _Stamp:
    stats = sorted((path.name, path.stat()) for path in folder.iterdir() if path.is_file())
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


def _fingerprint(files: tuple[ModelFile, ...]) -> str:
    facts = [[file.path, file.sha256] for file in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _scratch(model: str) -> CatalogueEntry:
    size = scratch_size(model)
    facts: dict[str, Any] = {
        "kind": "scratch",
        "name": model,
        "revision": None,
        "key": model,
        "max_positions": size.max_positions,
        "model_type": "bert",
        "layers": size.layers,
        "files": [],
    }
    return CatalogueEntry(facts, None)


def _hub(model: str) -> CatalogueEntry:
    name, _, revision = model.partition("@")
    if not _HUB_NAME.fullmatch(name) or len(name) > 96:
        detail = (
            f"{model!r} is no model name; write scratch:tiny, local:NAME, or a hub name such as "
            "bert-base-uncased or org/name@revision."
        )
        raise InputError("unknown_model", detail, ("model",))
    folder = _hub_folder(name, revision or None)
    try:
        checkpoint = read_checkpoint(folder)
    except InputError as error:
        detail = error.detail.replace(folder.name, name)  # the folder's name is a commit
        raise InputError(error.code, detail, error.where) from error
    facts = {
        "kind": "hub",
        "name": name,
        "revision": folder.name,
        "key": f"{name}@{folder.name}",
        "max_positions": checkpoint.max_positions,
        "model_type": checkpoint.model_type,
        "layers": checkpoint.layers,
        "files": [],
    }
    return CatalogueEntry(facts, folder)


def _hub_folder(name: str, revision: str | None) -> Path:
    """Fetch the small files, or take them from the local hub cache when the hub is out of reach.

    The folder is named by the commit, so it freezes the revision.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        GatedRepoError,
        HFValidationError,
        HTTPError,  # of the HTTP library it uses, whichever that is
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(_HUB_FILES),
                etag_timeout=HUB_TIMEOUT_S,
            )
        )
    except GatedRepoError as error:
        detail = f"{name} is gated; give the server a hub token that may read it (HF_TOKEN)."
        raise InputError("model_unavailable", detail, ("model",)) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        detail = f"The hub knows no model {name}" + (f" at {revision}." if revision else ".")
        raise InputError("unknown_model", detail, ("model",)) from error
    except (HTTPError, OSError) as error:
        detail = (
            f"{name} is not in this server's hub cache and the hub cannot be reached. Connect the "
            "server, copy the model into a folder of BERTUNE_MODEL_DIRS and write local:NAME, or "
            "start from scratch:tiny, which needs no download."
        )
        raise InputError("model_unavailable", detail, ("model",)) from error
