"""A real PostgreSQL server of its own for a test module, on a socket in a temporary folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REQUIRED = "CTC_IMAGING_REQUIRE_POSTGRES"


def programs() -> Path:
    """Find Debian's or the system's server programs; skip the test where there are none, or fail it where asked."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = found[-1] if found else shutil.which("initdb")
    if initdb:
        return Path(initdb).parent
    reason = "no PostgreSQL server: apt-get install postgresql"
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def server() -> Iterator[str]:
    """Start a server and give the URL of its database."""
    folder, bin_folder = Path(tempfile.mkdtemp(prefix="ctc-pg-", dir="/tmp")), programs()
    # PostgreSQL refuses to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
    user = "postgres" if as_user else os.environ["USER"]

    def do(*command: object) -> None:
        subprocess.run([*as_user, *map(str, command)], check=True, capture_output=True, cwd="/")

    data = folder / "data"
    try:
        do(bin_folder / "initdb", "-D", data, "-U", user, "-A", "trust", "--no-sync")
        options = f"-c listen_addresses='' -k {folder} -c fsync=off"
        do(bin_folder / "pg_ctl", "-D", data, "-w", "-o", options, "-l", folder / "log", "start")
        try:
            yield f"postgresql://{user}@localhost/postgres?host={folder}"
        finally:
            do(bin_folder / "pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
