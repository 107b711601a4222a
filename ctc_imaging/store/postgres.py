"""The record of reviews in a PostgreSQL database, where several readers write at once; pg8000 speaks to it."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

from ctc_imaging.errors import ConfigError, RunError
from ctc_imaging.store.address import Address
from ctc_imaging.store.record import COLUMNS, Record, Run, SealedRow
from ctc_imaging.store.signatures import refuse_unmarked

_SECONDS = 20
_REMEDY = "check the server, the network and PGPASSWORD; what was called so far is kept"

# Rows are added by whoever may write, and changed by nobody, as in the SQLite ledger.
_SCHEMA = """
CREATE TABLE {table} (
    id BIGINT PRIMARY KEY,
    seal TEXT NOT NULL,
    {columns}
);
CREATE INDEX {table}_of_cell ON {table} (slide_id, cell_id);
CREATE INDEX {table}_of_action ON {table} (action);
CREATE INDEX {table}_of_reader ON {table} (reader, id);
CREATE FUNCTION {table}_only_grows() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN RAISE EXCEPTION ''reviews are append-only''; END';
CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION {table}_only_grows();
"""


class SharedRecord:
    """A run's reviews in a database; the connection opens at the first use, and anew after it broke.

    Parameters
    ----------
    address : Address

    Raises
    ------
    ConfigError
        If pg8000 isn't installed.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._connection: Any = None

    @cached_property
    def record(self) -> Record:
        """The record in it."""
        return Record(self._transaction, self._locked, refuse_unmarked, self.address.table)

    def take_over(self, rows: Sequence[SealedRow]) -> None:
        """Make the table, with these rows in it, or nothing at all."""
        kinds = {"cell_id": "BIGINT"}
        columns = ",\n    ".join(f"{name} {kinds.get(name, 'TEXT')} NOT NULL" for name in COLUMNS)
        script = _SCHEMA.format(table=self.address.table, columns=columns)
        with self._transaction() as run:
            for statement in filter(str.strip, script.split(";\n")):
                run(statement)
            self.record.copy(rows, run)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
            self._connection = None

    @contextmanager
    def _locked(self) -> Iterator[Run]:
        """Run in a transaction in which nobody else can add rows; everybody can still read."""
        with self._transaction() as run:
            run(f"LOCK TABLE {self.address.table} IN SHARE ROW EXCLUSIVE MODE")
            yield run

    @contextmanager
    def _transaction(self) -> Iterator[Run]:
        with self._own_errors():
            connection = self._connected()
            cursor = connection.cursor()

            def run(statement: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
                cursor.execute(statement.replace("?", "%s"), tuple(values))
                return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

            try:
                yield run
                connection.commit()
            except BaseException:
                with suppress(Exception):
                    connection.rollback()
                raise

    def _connected(self) -> Any:
        if self._connection is None:
            import pg8000.dbapi

            where = self.address
            is_socket = where.host.startswith("/")
            place = {"unix_sock": f"{where.host}/.s.PGSQL.{where.port}"} if is_socket else {"host": where.host}
            self._connection = pg8000.dbapi.connect(
                where.user,
                database=where.database,
                port=where.port,
                password=os.environ.get("PGPASSWORD"),
                timeout=_SECONDS,
                ssl_context={"disable": False, "require": ssl.create_default_context()}.get(where.tls),
                application_name="ctc-imaging",
                **place,
            )
        return self._connection

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        try:
            import pg8000.exceptions
        except ImportError as error:
            fault = "the reviews lie in a PostgreSQL database, and pg8000 isn't installed"
            raise ConfigError("reviews", fault, "pip install 'ctc-imaging[postgres]'") from error
        try:
            yield
        except (pg8000.exceptions.Error, OSError) as error:
            # After whatever went wrong the next call begins with a new connection.
            self.close()
            raise RunError(self.address.shown, f"the reviews can't be used ({_said(error)})", _REMEDY) from error


def _said(error: Exception) -> str:
    """Return the server's own words, which pg8000 hands over among others in a dictionary."""
    first = error.args[0] if error.args else error
    return " ".join(str(first.get("M", first) if isinstance(first, dict) else first).split())
