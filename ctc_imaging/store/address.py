"""Where the reviews of a run lie when they lie on a server: a small file beside the ledger, without any password."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import uuid4

from ctc_imaging.errors import ConfigError, RunError
from ctc_imaging.files import write_json

NAME = "reviews.json"
_SCHEMES = ("postgresql", "postgres")
_PORT = 5432
_EXAMPLE = "write it like postgresql://user@host/database"


@dataclass(frozen=True)
class Address:
    """A PostgreSQL database and the run's own table in it.

    `host` is a name, or the folder of a Unix socket; `tls` is "prefer", "require" or "disable".
    """

    host: str
    port: int
    database: str
    user: str
    table: str
    tls: str = "prefer"

    @property
    def shown(self) -> str:
        """The address as a person writes it."""
        return f"postgresql://{self.user}@{self.host}:{self.port}/{self.database}, table {self.table}"


def parse_url(url: str) -> Address:
    """Read a URL like ``postgresql://user@host:5432/database?sslmode=require``, with a new table's name.

    Raises
    ------
    ConfigError
        If it is no such URL, or has a password: those come from PGPASSWORD, so that none is ever written down.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _PORT
    except ValueError as error:
        raise ConfigError("URL", f"{url!r} is no address ({error})", _EXAMPLE) from error
    if parts.scheme not in _SCHEMES:
        raise ConfigError("URL", f"{parts.scheme or repr(url)} is no kind of server known here", _EXAMPLE)
    if parts.password:
        raise ConfigError("URL", "there is a password in it", "take it out, and set the variable PGPASSWORD")
    asked = dict(parse_qsl(parts.query))
    host = asked.pop("host", "") or parts.hostname or "localhost"
    tls = asked.pop("sslmode", "prefer")
    if asked or tls not in ("prefer", "require", "disable"):
        wrong = next(iter(asked), f"sslmode={tls}")
        raise ConfigError("URL", f"{wrong} isn't known", "use host, and sslmode as prefer, require or disable")
    database = unquote(parts.path.strip("/"))
    if not parts.username or not database:
        raise ConfigError("URL", "the user or the database is missing", _EXAMPLE)
    return Address(host, port, database, unquote(parts.username), f"ctc_reviews_{uuid4().hex[:16]}", tls)


def read_address(ledger: Path) -> Address | None:
    """Return where the reviews beside a ledger lie, or None where they are in the ledger itself.

    Raises
    ------
    RunError
        If the file that says so is damaged.
    """
    path = ledger.with_name(NAME)
    try:
        return Address(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise RunError(path, f"it doesn't say where the reviews lie ({error})", "restore it from a copy") from error


def write_address(ledger: Path, address: Address) -> None:
    """Say beside a ledger where its reviews lie."""
    write_json(ledger.with_name(NAME), asdict(address))
