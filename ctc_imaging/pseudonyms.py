"""Pseudonyms of patients, samples and slides, made with a laboratory's secret key: the same in every run and table."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import os
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ctc_imaging.errors import ConfigError, TableError
from ctc_imaging.scrubbing import Scrubber

if TYPE_CHECKING:
    import pandas as pd

    from ctc_imaging.cohort import SlideEntry

_SHORTEST_KEY_BYTES, _LONGEST_KEY_BYTES, _NEW_KEY_BYTES = 16, 4096, 32
# 50 bits: among 10,000 ids two collide once in 20 million keys, and a collision is refused.
_LENGTH = 10

# What clinical tables call columns that name a person, without spaces, case and punctuation.
_NAMING_WORDS = """
name names surname firstname lastname middlename forename givenname familyname fullname patientname maidenname initials
mrn medicalrecordnumber nhsnumber nhsno nhs ssn socialsecuritynumber hospitalnumber hospitalno hospitalid casenumber
insurancenumber insuranceno nationalid idcard passport passportnumber dob dateofbirth birthdate birthday placeofbirth
address street postcode postalcode zip zipcode city phone phonenumber telephone mobile fax email mail
nachname vorname geburtsname geburtsdatum geburtstag geburtsort adresse anschrift strasse plz wohnort telefon
versichertennummer fallnummer patientenname nom prenom prénom datedenaissance codepostal
姓名 患者姓名 病人姓名 出生日期 生日 身份证 身份证号 住址 地址 家庭住址 电话 手机 手机号 联系电话 住院号 病历号 门诊号
"""
_NAMING = frozenset(_NAMING_WORDS.split())


@dataclass(frozen=True)
class Pseudonyms:
    """Replaces ids by words that nobody without the key can trace back; an empty id stays empty.

    Parameters
    ----------
    secret : bytes
        The key.

    Examples
    --------
    >>> pseudonyms = Pseudonyms(b"0123456789abcdef")
    >>> pseudonyms.patient("Miller, 1954")
    'P-LZ4GPC56NY'
    """

    secret: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """What tells two keys apart and gives neither away, as hex."""
        return self._digest("fingerprint", "").hex()

    def patient(self, patient_id: str) -> str:
        """Return a patient's pseudonym."""
        return self._word("P", patient_id)

    def sample(self, sample_id: str) -> str:
        """Return a sample's pseudonym."""
        return self._word("T", sample_id)

    def slide(self, slide_id: str) -> str:
        """Return a slide's pseudonym."""
        return self._word("S", slide_id)

    def name(self, name: str) -> str:
        """Return the pseudonym of anything else, such as a folder."""
        return self._word("N", name)

    def _word(self, kind: str, text: str) -> str:
        word = base64.b32encode(self._digest(kind, text)).decode()[:_LENGTH]
        return f"{kind}-{word}" if text else ""

    def _digest(self, kind: str, text: str) -> bytes:
        # A path in a file system that isn't UTF-8 holds surrogates.
        message = f"ctc-imaging {kind}\0{text}".encode(errors="surrogateescape")
        return hmac.new(self.secret, message, hashlib.sha256).digest()


def load_key(path: Path, run: Path | None = None) -> Pseudonyms:
    """Read a key file.

    Parameters
    ----------
    path : Path
        Any file of 16 to 4,096 bytes; white space around them doesn't count.
    run : Path, optional
        A folder it mustn't lie in.

    Returns
    -------
    Pseudonyms

    Raises
    ------
    ConfigError
        If there is no such file, it can't be read, it can't be a key, or it lies where its pseudonyms go.
    """
    path = Path(path)
    _check_apart(path, run)
    if path.exists() and not path.is_file():
        raise ConfigError(path, "not a file", "give --pseudonymise a file that holds a secret")
    try:
        with path.open("rb") as file:
            raw = file.read(_LONGEST_KEY_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(path, "no such key file", "give the file that holds the secret") from error
    except OSError as error:
        raise ConfigError(path, f"the key can't be read ({error.strerror})", "check its permissions") from error
    secret = raw.strip()
    if len(secret) < _SHORTEST_KEY_BYTES:
        fault = f"a key of {len(secret)} bytes can be guessed"
        raise ConfigError(path, fault, f"give at least {_SHORTEST_KEY_BYTES}, or name a new file to have one made")
    if len(raw) > _LONGEST_KEY_BYTES:
        raise ConfigError(path, f"larger than {_LONGEST_KEY_BYTES} bytes", "give the key, not a table or an image")
    return Pseudonyms(secret)


def make_key(path: Path, run: Path | None = None) -> None:
    """Write a new key of 32 random bytes as hex, for its owner's eyes only.

    Parameters
    ----------
    path : Path
        Where; nothing may be there yet.
    run : Path, optional
        A folder it mustn't lie in.

    Raises
    ------
    ConfigError
        If it can't be written there.
    """
    path = Path(path)
    _check_apart(path, run)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        remedy = "name a new file in a folder that can be written to"
        raise ConfigError(path, f"the key can't be written ({error.strerror})", remedy) from error
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{secrets.token_hex(_NEW_KEY_BYTES)}\n")
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink()
        raise


def pseudonymous_entry(entry: SlideEntry, pseudonyms: Pseudonyms, scrub: Callable[[str], str]) -> SlideEntry:
    """Replace a slide's ids; the path of its scan stays, to be read.

    Parameters
    ----------
    entry : SlideEntry
    pseudonyms : Pseudonyms
    scrub : callable
        Replaces patient ids inside of the texts that stay.
    """
    return replace(
        entry,
        patient_id=pseudonyms.patient(entry.patient_id),
        sample_id=pseudonyms.sample(entry.sample_id),
        slide_id=pseudonyms.slide(entry.slide_id),
        rescan_of=pseudonyms.slide(entry.rescan_of) if entry.rescan_of else None,
        batch=scrub(entry.batch) if entry.batch else None,
        site=scrub(entry.site) if entry.site else None,
    )


def pseudonymous_table(path: Path, text: str, pseudonyms: Pseudonyms, scrub: Callable[[str], str]) -> str:
    """Replace the patient ids of a table.

    Parameters
    ----------
    path : Path
        The laboratory's own table, for errors.
    text : str
        The table as CSV, with a column `patient_id`.
    pseudonyms : Pseudonyms
    scrub : callable
        Replaces patient ids inside of other texts.

    Returns
    -------
    str
        The table as CSV, its rows in the same order.

    Raises
    ------
    TableError
        If another column names the patient.
    """
    table = read_text_table(text)
    for name in table.columns.drop("patient_id"):
        if _is_naming(name) or _repeats(table[name], table["patient_id"]):
            remedy = "leave the column out of the table, or run without --pseudonymise"
            raise TableError(f"{path}, column {name}", "it would carry into the run who the patient is", remedy)
        table[name] = table[name].map(scrub)
    table["patient_id"] = table["patient_id"].map(pseudonyms.patient)
    return table.to_csv(index=False, lineterminator="\n")


def read_text_table(text: str) -> pd.DataFrame:
    """Read CSV with every field as it is written."""
    import pandas as pd

    return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)


def check_distinct(ids: Iterable[str], pseudonym: Callable[[str], str], where: Path) -> None:
    """Check that no two ids have one pseudonym.

    Raises
    ------
    TableError
        If two have.
    """
    known: dict[str, str] = {}
    for one in ids:
        other = known.setdefault(pseudonym(one), one)
        if other != one:
            raise TableError(where, f"{other} and {one} have the same pseudonym by chance", "use another key")


def make_scrubber(
    entries: Iterable[SlideEntry], patients: Iterable[str], pseudonyms: Pseudonyms, files: Iterable[Path]
) -> Scrubber:
    """Make what takes ids, and names and paths of scans, out of free text.

    Parameters
    ----------
    entries : iterable of SlideEntry
        With their own ids.
    patients : iterable of str
        All patient ids, also of patients without a slide.
    pseudonyms : Pseudonyms
    files : iterable of Path
        Tables and panels: their names, and where they lie, are hidden too.

    Returns
    -------
    Scrubber
    """
    ids: dict[str, str] = {}
    scans: dict[str, str] = {}
    paths: dict[str, str] = {}
    files = [Path(file).absolute() for file in files]
    folders = {file.parent for file in files}
    others = {name for file in files for name in (file.name, _stem(file.name), file.parent.name)}
    others |= {str(place) for folder in folders for place in (folder, folder.resolve()) if place != place.parent}
    for entry in entries:
        word = pseudonyms.slide(entry.slide_id)
        ids |= {entry.sample_id: pseudonyms.sample(entry.sample_id), entry.slide_id: word}
        paths |= dict.fromkeys(_places(entry.slide, folders), word)
        others |= _outer_names(entry.slide, folders)
        for name in _scan_names(entry.slide):
            # A name that several scans have, such as slide.ome.tif, belongs to none of them.
            scans[name] = word if scans.get(name, word) == word else pseudonyms.name(name)
    ids |= {patient: pseudonyms.patient(patient) for patient in patients}
    return Scrubber({**{name: pseudonyms.name(name) for name in others}, **scans, **ids}, paths)


def _places(scan: Path, folders: Iterable[Path]) -> set[str]:
    """List the paths by which a scan may be called."""
    if key := _remote_key(scan):
        return {str(scan), str(key)}
    whole = {str(scan), os.path.normpath(scan), os.path.realpath(scan)}
    return whole | {str(scan.relative_to(folder)) for folder in folders if scan.is_relative_to(folder)}


def _outer_names(scan: Path, folders: Iterable[Path]) -> set[str]:
    """List the names of the folders a scan lies in, up to the one that tables lie in."""
    inside = [scan.relative_to(folder) for folder in folders if not _remote_key(scan) and scan.is_relative_to(folder)]
    parent = (_remote_key(scan) or max(inside, key=lambda path: len(path.parts), default=scan)).parent
    return {name for name in parent.parts if name not in ("..", parent.anchor)}


def _scan_names(scan: Path) -> set[str]:
    """List the names of a scan, and the words that all files of a folder of images have in theirs."""
    names = {scan.name, _stem(scan.name)}
    if not _remote_key(scan) and scan.is_dir() and scan.suffix != ".zarr":
        inner = [set(re.split(r"[\W_]+", _stem(path.name))) for path in scan.rglob("*") if path.is_file()]
        names |= set.intersection(*inner) if inner else set()
    return names


def _remote_key(scan: Path) -> PurePosixPath | None:
    """Return the part of a URL that its driver may call a scan by, or None of a path on disk."""
    _, colon, key = str(scan).partition("://")
    return PurePosixPath(key) if colon else None


def _stem(name: str) -> str:
    return re.sub(r"(\.ome)?\.\w+$", "", name)


def _check_apart(path: Path, run: Path | None) -> None:
    if run is not None and path.resolve().is_relative_to(Path(run).resolve()):
        raise ConfigError(path, "the key would lie beside the pseudonyms it makes", "keep it outside of the RUN folder")


def _is_naming(column: str) -> bool:
    return re.sub(r"[\W_]", "", column).casefold() in _NAMING


def _repeats(values: pd.Series, ids: pd.Series) -> bool:
    """Say whether a column holds the patient ids once more, perhaps read as numbers."""
    told = values != ""
    return bool(told.any()) and all(map(_is_same, values[told], ids[told]))


def _is_same(value: str, patient_id: str) -> bool:
    if value == patient_id:
        return True
    try:
        return float(value) == float(patient_id)
    except ValueError:
        return False
