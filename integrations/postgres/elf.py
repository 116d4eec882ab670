"""Makes a shared library that was built against a newer C library load on an older one.

Debian builds TimescaleDB against its newest glibc, though nearly nothing in it needs one. Three kinds of undefined
symbol stand in the way, and each is mended in the dynamic symbol table alone; no machine code is touched:

- `__isoc23_strtol@GLIBC_2.38` and its kin differ from `strtol` only in reading binary literals: they get the old name.
- `strlcpy@GLIBC_2.38`: PostgreSQL exports its own, so any definition will do.
- OpenSSL's functions serve telemetry, which is off: they become weak, so that the library loads without OpenSSL.

Source: System V ABI (ELF-64), and the symbol versioning chapter of the Linux Standard Base.
"""

from __future__ import annotations

import platform
import struct
from dataclasses import dataclass
from pathlib import Path

_STRTAB, _DYNSYM, _VERNEED, _VERSYM = 3, 11, 0x6FFFFFFE, 0x6FFFFFFF
_WEAK = 2
_VERSION_IS_WEAK = 2
_ANY_VERSION = 1
_RENAMED_PREFIX = "__isoc23_"
_IN_POSTGRES = ("strlcpy", "strlcat")
_OPTIONAL = ("SSL_", "TLS_", "ERR_", "OPENSSL_")


class CannotAdapt(Exception):
    """The library is no 64-bit little-endian ELF file, or needs something newer that has no older equivalent."""


@dataclass(frozen=True)
class _Section:
    kind: int
    offset: int
    size: int
    link: int
    info: int
    entry_size: int


def adapt(library: Path, *, glibc: tuple[int, ...] | None = None) -> None:
    """Rewrite the symbol table of a shared library in place, for a glibc: by default the one of this system.

    Raises CannotAdapt, and then leaves the file as it was.
    """
    data = bytearray(library.read_bytes())
    try:
        _adapt(data, glibc or _glibc_here())
    except (struct.error, KeyError, IndexError, ValueError, OverflowError) as error:
        raise CannotAdapt(f"{library.name} is not laid out as expected ({error!r})") from error
    library.write_bytes(data)


def _adapt(data: bytearray, glibc: tuple[int, ...]) -> None:
    if data[:6] != b"\x7fELF\x02\x01":
        raise CannotAdapt("not a 64-bit little-endian ELF file")
    sections = _sections(data)
    by_kind = {section.kind: section for section in sections if section.kind != _STRTAB}
    symbols, marks = by_kind[_DYNSYM], by_kind[_VERSYM]
    strings = sections[symbols.link].offset
    versions = _needed_versions(data, by_kind[_VERNEED], strings)
    newer = {index for index, (name, _) in versions.items() if _glibc(name) > glibc}
    oldest = min((i for i in versions if _glibc(versions[i][0]) > (0,)), key=lambda i: _glibc(versions[i][0]))

    for i in range(symbols.size // symbols.entry_size):
        symbol, mark = symbols.offset + i * symbols.entry_size, marks.offset + 2 * i
        name_offset, info, _, defined_in = struct.unpack_from("<IBBH", data, symbol)
        if defined_in != 0:
            continue
        name = _text(data, strings + name_offset)
        (version,) = struct.unpack_from("<H", data, mark)
        if name.startswith(_OPTIONAL):
            data[symbol + 4] = (_WEAK << 4) | (info & 0xF)
        if version & 0x7FFF not in newer:
            continue
        if name.startswith(_RENAMED_PREFIX):
            struct.pack_into("<I", data, symbol, name_offset + len(_RENAMED_PREFIX))
            struct.pack_into("<H", data, mark, oldest)
        elif name in _IN_POSTGRES:
            struct.pack_into("<H", data, mark, _ANY_VERSION)
        else:
            raise CannotAdapt(f"{name}@{versions[version & 0x7FFF][0]} has no older equivalent")

    for index in newer:
        flags = versions[index][1] + 4
        (value,) = struct.unpack_from("<H", data, flags)
        struct.pack_into("<H", data, flags, value | _VERSION_IS_WEAK)


def _sections(data: bytearray) -> list[_Section]:
    (table,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    found = []
    for i in range(count):
        _, kind, _, _, offset, length, link, info, _, entry = struct.unpack_from("<IIQQQQIIQQ", data, table + i * size)
        found.append(_Section(kind, offset, length, link, info, entry))
    return found


def _needed_versions(data: bytearray, needs: _Section, strings: int) -> dict[int, tuple[str, int]]:
    """Version index -> (name such as `GLIBC_2.38`, offset of its entry)."""
    found: dict[int, tuple[str, int]] = {}
    library = needs.offset
    for _ in range(needs.info):
        _, entries, _, first, next_library = struct.unpack_from("<HHIII", data, library)
        entry = library + first
        for _ in range(entries):
            _, _, index, name, next_entry = struct.unpack_from("<IHHII", data, entry)
            found[index] = (_text(data, strings + name), entry)
            entry += next_entry
        library += next_library
    return found


def _text(data: bytearray, offset: int) -> str:
    return data[offset : data.index(0, offset)].decode()


def _glibc(version: str) -> tuple[int, ...]:
    """`GLIBC_2.38` as (2, 38); (0,) for versions of other libraries."""
    prefix, _, number = version.partition("_")
    return tuple(int(part) for part in number.split(".")) if prefix == "GLIBC" and number[0] == "2" else (0,)


def _glibc_here() -> tuple[int, ...]:
    library, version = platform.libc_ver()
    if library != "glibc":
        raise CannotAdapt("this system has another C library than glibc")
    return tuple(int(part) for part in version.split("."))
