"""Slides in object storage or on a server: paths by URL, bytes by range, a local copy hashed on the way.

A remote path is a UPath, which has the methods of a pathlib.Path that readers use, and is typed as one.
"""

from __future__ import annotations

import hashlib
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ctc_imaging.errors import SlideError

if TYPE_CHECKING:
    from collections.abc import Sequence

_URL = re.compile(r"[a-z][a-z0-9+.-]+(::[a-z][a-z0-9+.:-]*)?://", re.IGNORECASE)

# The package that speaks a protocol, where fsspec doesn't come with it.
_DRIVERS = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
    "http": "fsspec[http]", "https": "fsspec[http]", "sftp": "paramiko", "ssh": "paramiko", "smb": "smbprotocol",
    "hdfs": "pyarrow", "webdav": "webdav4",
}  # fmt: skip

# Base classes of what drivers raise besides OSError; each exists only where its driver is in use.
_DRIVER_FAULTS = (
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("gcsfs.retry", "HttpError"),
    ("azure.core.exceptions", "AzureError"),
    ("paramiko", "SSHException"),
)

_BLOCK_BYTES = 2**20


# What file systems of fsspec call the facts that change with a file's bytes.
_VALIDATORS = (
    *("ETag", "etag", "Content-MD5", "md5Hash", "Digest", "generation"),
    *("Last-Modified", "LastModified", "last_modified", "updated", "mtime", "modified", "created"),
)


def is_url(text: str) -> bool:
    """Tell whether a path is written as a URL.

    Examples
    --------
    >>> is_url("s3://scans/a.ome.zarr"), is_url("scans/a.ome.tif"), is_url("C:/scans/a.tif")
    (True, False, False)
    """
    return _URL.match(text) is not None


def is_remote(path: Path) -> bool:
    """Tell whether a path made by `to_path` isn't on a local disk."""
    return not isinstance(path, Path)


def to_path(where: str | Path) -> Path:
    """Make a path of a file name or URL; file:// gives a local one.

    Raises
    ------
    SlideError
        If no such protocol is known, or the URL holds a password.
    """
    if not isinstance(where, str) or not is_url(where):
        return Path(where) if isinstance(where, str) else where
    try:
        parts = urlsplit(where)
    except ValueError as error:
        raise SlideError(where, f"not a URL ({error})", "correct it") from error
    if parts.password:
        safe = where.replace(f":{parts.password}@", ":...@")
        raise SlideError(safe, "the URL holds a password", "give it by the environment or fsspec's configuration")
    if parts.scheme.lower() == "file":
        return Path(url2pathname(parts.path))
    from upath import UPath

    try:
        return cast("Path", UPath(where))
    except ValueError as error:
        raise SlideError(where, f"no protocol {parts.scheme}:// is known", "use s3://, gs://, https:// ...") from error


def base_name(path: Path) -> str:
    """Return a path's last part, without the query of a URL (which may hold a signature)."""
    return path.name.partition("?")[0] if is_remote(path) else path.name


def connect(path: Path) -> None:
    """Load the driver of a remote path's protocol.

    Raises
    ------
    SlideError
        If it isn't installed.
    """
    if not is_remote(path):
        return
    protocol = cast("Any", path).protocol
    try:
        cast("Any", path).fs  # noqa: B018 made when first asked for
    except ImportError as error:
        package = _DRIVERS.get(protocol, "the fsspec driver of this protocol")
        raise SlideError(path, f"nothing installed reads {protocol}://", f'pip install "{package}"') from error


def faults() -> tuple[type[BaseException], ...]:
    """Return what drivers in use may raise where local files raise OSError, for an except clause."""
    modules = [(sys.modules.get(module), name) for module, name in _DRIVER_FAULTS]
    return (OSError, *(getattr(module, name) for module, name in modules if hasattr(module, name)))


def read_bytes(path: Path, start: int = 0, end: int | None = None) -> bytes:
    """Read a range of a file's bytes, in one request where it is remote.

    Parameters
    ----------
    path : Path
        A local or remote file.
    start, end : int
        Offsets, the end exclusive.

    Returns
    -------
    bytes
        Fewer than asked for if the file ends earlier.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    if is_remote(path):
        remote = cast("Any", path)
        data = bytes(remote.fs.cat_file(remote.path, start=start or None, end=end))
        # A plain web server may know nothing of ranges, and send the whole file.
        return data if end is None or len(data) <= end - start else data[start:end]
    with path.open("rb") as file:
        file.seek(start)
        return file.read() if end is None else file.read(end - start)


def file_sizes(folder: Path) -> dict[str, int] | None:
    """List the files under a folder.

    Returns
    -------
    dict of str to int or None
        Size in bytes by path relative to the folder, with slashes; None where the server gives no lists.
    """
    if not is_remote(folder):
        return {
            path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()
        }
    remote = cast("Any", folder)
    root = remote.path.rstrip("/") + "/"
    try:
        found = remote.fs.find(remote.path, detail=True)
    except faults():
        return None  # reading a file that isn't there fails by itself
    return {name.removeprefix(root): facts.get("size") or 0 for name, facts in found.items()} or None


def forget(path: Path) -> None:
    """Forget what a server told about its files before, and ask anew for those of a folder, all at once."""
    remote = cast("Any", path)
    remote.fs.invalidate_cache()
    with suppress(*faults()):
        remote.fs.find(remote.path)


def stamp(path: Path) -> list[int | str]:
    """Return what changes when a file does, without reading it: size and time, or what the server tells (an ETag).

    A server that tells nothing but the size gives a list of one: such a file may change unseen.
    """
    if is_remote(path):
        facts = cast("Any", path).fs.info(cast("Any", path).path)
        told = [str(facts[name]) for name in _VALIDATORS if facts.get(name) is not None]
        return [facts.get("size") or 0, *told]
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def stage(path: Path, files: Sequence[Path], target: Path) -> tuple[Path, str]:
    """Copy a remote slide into a local folder, each byte read once and hashed on the way.

    Parameters
    ----------
    path : Path
        The slide.
    files : sequence of Path
        All its files, as `Source.files` names them.
    target : Path
        An empty local folder.

    Returns
    -------
    copy : Path
        The slide within `target`, under its own name; files keep their places relative to it.
    sha256 : str
        As hex: of the bytes of a single file; else of each file's relative path and bytes, in the order of
        `files`, as of a local folder.

    Raises
    ------
    OSError
        If the disk is full, or the connection breaks.
    """
    digest = hashlib.sha256()
    root = path.parent if path in files else path
    for file in files:
        name = "" if file == path else file.relative_to(root).as_posix()
        digest.update(name.encode())
        copy = target / (name or base_name(path)) if path in files else target / base_name(path) / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as source, copy.open("wb") as sink:
            while block := source.read(_BLOCK_BYTES):
                digest.update(block)
                sink.write(block)
    return target / base_name(path), digest.hexdigest()
