"""A shared library without code, written byte by byte: a stand-in for one that is not installed, without a compiler."""

import struct
from collections.abc import Sequence

ET_DYN, PT_LOAD, PT_DYNAMIC, PT_GNU_STACK = 3, 1, 2, 0x6474E551
READ, WRITE = 4, 2
GLOBAL_FUNCTION = 0x12
DT_NULL, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT, DT_SONAME = 0, 4, 5, 6, 10, 11, 14
HEADER, PROGRAM_HEADER, SYMBOL, DYNAMIC = 64, 56, 24, 16


def empty_library(soname: str, names: Sequence[str], machine: int) -> bytes:
    """A 64-bit little-endian ELF library that calls itself `soname`; `names` can be linked to, and never be called.

    `machine` is the ELF number of the processor, as `machine_of` reads it from a real library.
    """
    strings, symbols = b"\0" + soname.encode() + b"\0", bytes(SYMBOL)
    symbols_at = HEADER + 3 * PROGRAM_HEADER
    for name in names:
        symbols += struct.pack("<IBBHQQ", len(strings), GLOBAL_FUNCTION, 0, 1, symbols_at, 0)
        strings += name.encode() + b"\0"
    hashes_at = symbols_at + len(symbols)
    # One bucket, whose chain runs through all symbols.
    chain = [0, *range(2, len(names) + 1), 0] if names else [0]
    hashes = struct.pack(f"<{3 + len(chain)}I", 1, len(chain), 1 if names else 0, *chain)
    hashes += bytes(-len(hashes) % 8)
    dynamic_at = hashes_at + len(hashes)
    entries = 7
    strings_at = dynamic_at + entries * DYNAMIC
    dynamic = b"".join(
        struct.pack("<qQ", tag, value)
        for tag, value in (
            (DT_SONAME, 1),
            (DT_HASH, hashes_at),
            (DT_STRTAB, strings_at),
            (DT_SYMTAB, symbols_at),
            (DT_STRSZ, len(strings)),
            (DT_SYMENT, SYMBOL),
            (DT_NULL, 0),
        )
    )
    size = strings_at + len(strings)
    segments = b"".join(
        struct.pack("<IIQQQQQQ", kind, READ | WRITE, start, start, start, length, length, align)
        for kind, start, length, align in (
            (PT_LOAD, 0, size, 0x10000),
            (PT_DYNAMIC, dynamic_at, len(dynamic), 8),
            (PT_GNU_STACK, 0, 0, 16),  # without it the stack would have to be executable
        )
    )
    identity = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = identity + struct.pack(
        "<HHIQQQIHHHHHH", ET_DYN, machine, 1, 0, HEADER, 0, 0, HEADER, PROGRAM_HEADER, 3, 64, 0, 0
    )
    return header + segments + symbols + hashes + dynamic + strings


def machine_of(library: bytes) -> int:
    """The ELF number of the processor that `library` is for."""
    return int.from_bytes(library[18:20], "little")
