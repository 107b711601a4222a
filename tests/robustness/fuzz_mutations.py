"""Ways to damage a file: blind ones, and ones that know TIFF tags, JSON, tables and YAML."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

Mutation = Callable[[bytes, Random], bytes]

_NUMBERS = (0, 1, 2, 3, 7, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
_CELLS = (
    *("", " ", "NA", "nan", "inf", "-inf", "1e400", "-1", "0", "-0", "1e-320", "9" * 400, "0x10", "1_000", "1,5"),
    *("1.000,5", "٣", "５", "½", "1e5", "+5", "--5", "2024-02-30", "0000-00-00", "9999-12-31", "0001-01-01"),
    *("2024-W01-1", "20240101", "2024-01-01T25:00", "2024-01-01T00:00+99:00", "01.02.2024", "../../etc/passwd"),
    *("/etc/passwd", "C:\\scan.tif", "..", ".", "con", "a\0b", "a\nb", '"', "'", ";", "=1+1", "\u202eabc", "💉"),
    *("x" * 5000, "s3://bucket/scan.tif", "http://[::1", "~/x", "patient", "blank", "spiked", "emt-4", "panel.yaml"),
    *("slides/a.ome.tif", "P1", "A", "{}", "%s%n", "\ufeff", "\x1b[2J"),
)
# Three megabytes of text by a few names, if ever written out.
_BOMB = "[&a [x,x,x,x,x,x,x,x]" + "".join(
    f", &{new} [{','.join([f'*{old}'] * 8)}]" for old, new in zip("abcdef", "bcdefg", strict=True)
)
_YAML = (
    *("~", ".nan", ".inf", "-.inf", "1:30", "2024-01-01", "0x10", "1e400", "9" * 5000, "[]", "{}", "''", "true"),
    *("!!binary x", "!!python/object:os.system x", "!!python/name:os.system", "&a [*a]", "*nobody", "? [1, 2]"),
    *("[" * 3000, "{a: " * 1500, "!!set {a, b}", "!!timestamp 2024-13-01", "!!timestamp x", "!!int x", "!!int ''"),
    *("!!float x", "- - - -", "<<: 3", "%YAML 9.9", "--- 3", "\t", "\0", "|", f"{_BOMB}]", f"{_BOMB}, *g, *g, *g]"),
)
_JSON: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 0.5, 1e308, 2**31, 2**63, 10**30, "", "x", "x" * 5000, "../..", "/", "0/0"),
    *("NaN", "Infinity", "<u2", ">f8", "|O", "|S5", "|b1", "<M8[ns]", "bytes", [], [[]], [0], [0, 0, 0], [1, 1, 1]),
    *([2**40] * 3, [-1, -1, -1], [1, 2], {}, {"a": 1}, {"name": "bytes"}, {"id": "zlib", "level": 99}),
    *({"id": "nobody"}, {"name": "nobody"}),
)
_XML = ("0", "-1", "9" * 400, "nan", "1e400", "&#0;", "&x;", "<", '"', "µ", "../../etc/passwd", "int8", "double")
_ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "cp1252", "utf-7")


def mutate_bytes(raw: bytes, draw: Random) -> bytes:
    """Flip, overwrite, insert, delete, cut or copy within some bytes, without knowing what they mean."""
    return draw.choice((_flip, _flip, _overwrite, _insert, _delete, _truncate, _splice, _repeat))(raw, draw)


def mutate_tiff(raw: bytes, draw: Random) -> bytes:
    """Change a tag, a link between directories, or a number in the description of a TIFF; else blindly."""
    choice = draw.random()
    fields = list(_tiff_fields(raw))
    if choice < 0.55 and fields:
        changed = bytearray(raw)
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            offset, code = draw.choice(fields)
            size = struct.calcsize(code)
            number = draw.choice((*_NUMBERS, draw.randrange(70), draw.randrange(len(raw)), offset, len(raw)))
            changed[offset : offset + size] = struct.pack(code, number % 2 ** (8 * size))
        return bytes(changed)
    if choice < 0.7 and b"<OME" in raw:
        return _in_xml(raw, draw)
    return mutate_bytes(raw, draw)


def mutate_table(raw: bytes, draw: Random) -> bytes:
    """Change cells, rows, columns, quotes or the encoding of a table; else blindly."""
    text = raw.decode(errors="replace")
    way = draw.randrange(12)
    if way < 6:
        delimiter = max(",;\t", key=text.split("\n", 1)[0].count)
        rows = [line.split(delimiter) for line in text.split("\n")]
        for _ in range(draw.choice((1, 1, 2, 5))):
            row = draw.choice(rows)
            row[draw.randrange(len(row))] = draw.choice(_CELLS)
        text = "\n".join(delimiter.join(row) for row in rows)
    elif way == 6:
        lines = text.split("\n")
        lines.insert(draw.randrange(len(lines)), draw.choice(lines))
        text = "\n".join(lines)
    elif way == 7:
        line = draw.choice(text.split("\n"))
        text = text.replace(line, line + draw.choice(",;\t") * draw.choice((1, 3, 10_000)))
    elif way == 8:
        return text.encode(draw.choice(_ENCODINGS), errors="replace")
    elif way == 9:
        place = draw.randrange(len(text) + 1)
        text = text[:place] + draw.choice((*_CELLS, '"', "\r", "\r\n", "\v", "\u2028")) + text[place:]
    elif way == 10:
        text = draw.choice(("", "\n", "\n\n\n", "\ufeff", text * 40, text.replace("\n", "\r"), text.split("\n", 1)[0]))
    else:
        return mutate_bytes(raw, draw)
    return text.encode(errors="replace")


def mutate_yaml(raw: bytes, draw: Random) -> bytes:
    """Change values, keys, lines or the encoding of a YAML file; else blindly."""
    text = raw.decode(errors="replace")
    way = draw.randrange(8)
    if way < 4:
        words = list(re.finditer(r"[^\s:,\[\]{}]+", text))
        word = draw.choice(words)
        text = text[: word.start()] + draw.choice((*_YAML, *_CELLS)) + text[word.end() :]
    elif way == 4:
        lines = text.split("\n")
        lines.insert(draw.randrange(len(lines)), draw.choice((*lines, *_YAML)))
        text = "\n".join(lines)
    elif way == 5:
        text = draw.choice(("", "\n", "---\n", *_YAML))
    elif way == 6:
        return text.encode(draw.choice(_ENCODINGS), errors="replace")
    else:
        return mutate_bytes(raw, draw)
    return text.encode(errors="replace")


def mutate_json(raw: bytes, draw: Random) -> bytes:
    """Change, remove or add one value of a JSON file; else blindly."""
    way = draw.randrange(8)
    if way == 0:
        return mutate_bytes(raw, draw)
    if way == 1:
        return draw.choice((b"", b"{}", b"[]", b"null", b"3", b'"x"', b"[" * 3000, b'{"a":' * 3000, b"\xff\xfe{}"))
    value = json.loads(raw)
    places = list(_places(value))
    if not places:
        return mutate_bytes(raw, draw)
    holder, key = draw.choice(places)
    if way == 2:
        del holder[key]
    else:
        other, where = draw.choice(places)
        holder[key] = draw.choice((*_JSON, *_JSON, json.loads(json.dumps(other[where]))))
    return json.dumps(value).encode()


def mutate_slide(path: Path, draw: Random) -> None:
    """Damage a slide in place: its file, or one or two files of its folder."""
    if path.is_file():
        _rewrite(path, mutate_tiff, draw)
        return
    whole = {file: file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
    texts = [file for file in whole if file.suffix in (".yaml", ".csv")]
    chosen = [draw.choice(texts)] if texts and draw.random() < 0.6 else draw.sample(list(whole), draw.choice((1, 1, 2)))
    for file in chosen:
        way = draw.randrange(14)
        if way == 0:
            file.unlink()
        elif way == 1:
            file.write_bytes(draw.choice(list(whole.values())))
        elif way == 2:
            file.unlink()
            file.mkdir()
        elif way == 3:
            file.write_bytes(b"")
        else:
            _rewrite(file, _mutation_of(file), draw)


def _mutation_of(file: Path) -> Mutation:
    if file.suffix in (".tif", ".tiff"):
        return mutate_tiff
    if file.suffix == ".yaml":
        return mutate_yaml
    if file.suffix == ".csv":
        return mutate_table
    is_metadata = file.suffix == ".json" or file.name in (".zattrs", ".zarray", ".zgroup", ".zmetadata")
    return mutate_json if is_metadata else mutate_bytes


def mutate_file(path: Path, draw: Random) -> None:
    """Damage a table or a YAML file in place."""
    _rewrite(path, mutate_yaml if path.suffix == ".yaml" else mutate_table, draw)


def _rewrite(path: Path, mutation: Mutation, draw: Random) -> None:
    raw = path.read_bytes()
    changed = mutation(raw, draw)
    if draw.random() < 0.25:
        changed = mutate_bytes(changed, draw)
    path.write_bytes(changed)


def _place(raw: bytes, draw: Random) -> int:
    """Draw a place, as often in the first bytes, which say what the others are, as in all."""
    return draw.randrange(min(len(raw), 512)) if draw.random() < 0.5 else draw.randrange(len(raw))


def _flip(raw: bytes, draw: Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(draw.choice((1, 1, 2, 8, 64)) if raw else 0):
        changed[_place(raw, draw)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _overwrite(raw: bytes, draw: Random) -> bytes:
    place = _place(raw, draw) if raw else 0
    length = draw.choice((1, 2, 4, 8, 100, 1000))
    filling = draw.choice((bytes(length), b"\xff" * length, draw.randbytes(length)))
    return raw[:place] + filling[: len(raw) - place] + raw[place + length :]


def _insert(raw: bytes, draw: Random) -> bytes:
    place = _place(raw, draw) if raw else 0
    return raw[:place] + draw.randbytes(draw.choice((1, 2, 4, 100))) + raw[place:]


def _delete(raw: bytes, draw: Random) -> bytes:
    place = _place(raw, draw) if raw else 0
    return raw[:place] + raw[place + draw.choice((1, 2, 4, 100, 1000)) :]


def _truncate(raw: bytes, draw: Random) -> bytes:
    return raw[: draw.choice((0, 1, 4, 8, len(raw) - 1, len(raw) - 7, len(raw) // 2, draw.randrange(len(raw) + 1)))]


def _splice(raw: bytes, draw: Random) -> bytes:
    if not raw:
        return raw
    start, place = draw.randrange(len(raw)), _place(raw, draw)
    part = raw[start : start + draw.choice((4, 12, 64, 1000))]
    return raw[:place] + part + raw[place + len(part) :]


def _repeat(raw: bytes, draw: Random) -> bytes:
    return raw + raw[: draw.randrange(len(raw) + 1)]


def _tiff_fields(raw: bytes) -> Iterator[tuple[int, str]]:
    """Yield offset and struct code of every number in the directories of a TIFF, and of short arrays they point to."""
    order = {b"II": "<", b"MM": ">"}.get(raw[:2])
    if order is None or len(raw) < 16:
        return
    big = struct.unpack(order + "H", raw[2:4])[0] == 43
    count_code, word, head = ("Q", "Q", 8) if big else ("H", "I", 4)
    size, width = (20, 8) if big else (12, 4)
    yield head, order + word
    (offset,) = struct.unpack_from(order + word, raw, head)
    for _ in range(10):
        start = offset + struct.calcsize(count_code)
        if not offset or start > len(raw):
            return
        (entries,) = struct.unpack_from(order + count_code, raw, offset)
        yield offset, order + count_code
        if start + entries * size + width > len(raw):
            return
        for place in range(start, start + entries * size, size):
            yield place, order + "H"
            yield place + 2, order + "H"
            yield place + 4, order + word
            yield place + 4 + width, order + word
            (value,) = struct.unpack_from(order + word, raw, place + 4 + width)
            if 8 <= value < len(raw) - 8:
                yield value, order + word
        yield start + entries * size, order + word
        (offset,) = struct.unpack_from(order + word, raw, start + entries * size)


def _in_xml(raw: bytes, draw: Random) -> bytes:
    """Change a value in the OME-XML to one of the same length, so that all offsets stay true."""
    start = raw.index(b"<OME")
    end = raw.find(b"</OME>", start)
    values = list(re.finditer(rb'"([^"]*)"|>([^<>]+)<|<(/?[A-Za-z:]+)', raw[start : end if end > 0 else len(raw)]))
    if not values:
        return mutate_bytes(raw, draw)
    found = draw.choice(values)
    group = found.lastindex or 0
    length = len(found[group])
    text = draw.choice(_XML).encode()
    text = (text * (length // max(1, len(text)) + 1))[:length] if draw.random() < 0.5 else text[:length].ljust(length)
    return raw[: start + found.start(group)] + text + raw[start + found.end(group) :]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every (holder, key or index) in a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])
