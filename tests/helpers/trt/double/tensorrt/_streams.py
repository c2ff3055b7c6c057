"""Reading plans from a caller's stream, and writing them to one."""

from __future__ import annotations

from tensorrt import _logger as log
from tensorrt._enums import SeekPosition
from tensorrt._plan import HEAD, size_of
from tensorrt._strict import Bound, bound

_CHUNK = 1 << 20


@bound
class IStreamReaderV2(Bound):
    """To be subclassed: `read(num_bytes, stream)` returns a buffer, `seek(offset, where)` something true."""

    def read(self, destination, num_bytes, stream):
        raise RuntimeError('Tried to call pure virtual function "IStreamReaderV2::read"')

    def seek(self, offset, where):
        raise RuntimeError('Tried to call pure virtual function "IStreamReaderV2::seek"')


@bound
class IStreamReader(Bound):
    """The first kind, of 10.x alone."""

    def read(self, size):
        raise RuntimeError('Tried to call pure virtual function "IStreamReader::read"')


@bound
class IStreamWriter(Bound):
    """To be subclassed: `write(data)` returns how much it took."""

    def write(self, data, size=None):
        raise RuntimeError('Tried to call pure virtual function "IStreamWriter::write"')


def read_all(reader) -> bytes | None:
    """All of a plan, or None when the reader gave up."""
    start = _take(reader, HEAD)
    if start is None or (size := size_of(start)) is None:
        return None
    if not reader.seek(0, SeekPosition.SET):
        log.error("IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion seek failed.)")
        return None
    data = _take(reader, size)
    if data is None:
        log.error(
            "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion readSize == size "
            "failed.The stream ended before the plan did.)"
        )
    return data


def _take(reader, size: int) -> bytes | None:
    parts, missing = [], size
    while missing:
        part = bytes(reader.read(min(missing, _CHUNK), 0))
        if not part:
            return b"".join(parts) if size == HEAD else None
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
