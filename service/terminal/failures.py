"""From an expected error to one clear line and an exit code. Anything else is a fault of ours and
keeps its traceback.

Kept out of `service.cli` because it imports libraries that `--help` has no use for.
"""

import zipfile

import alembic.util
import pydantic
import sqlalchemy.exc
import yaml

from model.errors import InputError
from service.errors import ServiceError
from service.local.startup_error import StartupError
from service.settings import Settings
from service.terminal.exit_codes import REFUSED, UNREACHABLE, USAGE
from service.terminal.field_faults import fault_text
from studies.connection import ApiError, ClientError, UnreachableError

KEY_HINT = "Set BERTUNE_KEY, or BERTUNE_HOME to the server's home folder, where its admin.key lies."

EXTRAS = {"psycopg": "postgres", "torch": "train", "transformers": "train"}
"""Libraries that only some installations have, and the extra that brings them."""


def explain(error: BaseException) -> tuple[int, str] | None:
    """The exit code and what to print, or None for an error nobody expected."""
    match error:
        case UnreachableError():
            return UNREACHABLE, str(error)
        case ApiError(status=401):
            return REFUSED, f"{error} {KEY_HINT}"
        case ApiError():
            return REFUSED, f"{error} [{error.code}]"
        case ClientError() | ServiceError() | StartupError():
            return REFUSED, str(error)
        case InputError():
            return USAGE, f"{_place(error.where)}{error.detail}"
        case pydantic.ValidationError():
            return USAGE, _invalid(error)
        case sqlalchemy.exc.OperationalError():
            return UNREACHABLE, f"The database does not answer: {_first_line(error.orig)}"
        case alembic.util.CommandError():
            return REFUSED, f"{_first_line(error)}. A newer Bertune made this database; use that."
        case sqlalchemy.exc.ArgumentError():
            return USAGE, f"BERTUNE_DATABASE_URL: {_first_line(error)}"
        case ModuleNotFoundError(name=str(name)) if name in EXTRAS:
            return USAGE, f"{name} is missing: pip install 'bertune[{EXTRAS[name]}]'"
        case yaml.YAMLError() | UnicodeDecodeError() | zipfile.BadZipFile():
            return USAGE, _first_line(error)
        case OSError():
            return USAGE, _os_error(error)
        case _:
            return None


def _invalid(error: pydantic.ValidationError) -> str:
    """A line per field. Settings go by the names of their variables."""
    prefix = "BERTUNE_" if error.title == Settings.__name__ else ""
    lines = []
    for fault in error.errors(include_url=False):
        name = ".".join(str(part) for part in fault["loc"]) or error.title
        name = prefix + name.upper() if prefix else name
        lines.append(f"{name}: {fault_text(fault)}")
    return "\n".join(lines)


def _os_error(error: OSError) -> str:
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}"


def _place(where: tuple[str | int, ...]) -> str:
    return f"{'.'.join(str(part) for part in where)}: " if where else ""


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
