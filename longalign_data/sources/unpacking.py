"""Compressed files as streams that can be trusted: what is damaged or unpacks without end raises `UnpackError`, and an
error of the disk stays an OSError.

    with opened(Path("pages.xml.bz2")) as file:
        file.readline()
"""

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_RATIO = 300
FREE_BYTES = 256 << 20
"""A stream may unpack to FREE_BYTES and MAX_RATIO bytes for each packed byte; text packs to a fifth, logs to a
hundredth. What goes beyond was made to fill memory or disk."""

MAX_WINDOW = 512 << 20
"""Bytes that unpacking Zstandard may hold at once: what `zstd --long=29` writes. Each worker holds its own."""

PACKED = (".gz", ".bz2", ".xz", ".zst")


class UnpackError(Exception):
    """A packed file that cannot be read on. `reason` is one of `reading.REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def opened(path: Path) -> io.BufferedReader:
    """The unpacked bytes of a file, by its suffix (PACKED or .tgz; any other is read as it is). Reading raises
    UnpackError."""
    suffix = path.suffix.lower().replace(".tgz", ".gz")
    if suffix in PACKED:
        return io.BufferedReader(_Unpacked(path, suffix), 1 << 20)
    return io.BufferedReader(io.FileIO(path), 1 << 20)


def beginning(path: str, limit: int) -> bytes:
    """The first `limit` bytes of a file, or all that it has."""
    with io.FileIO(path) as file:
        # To read makes room for all that is asked for, however little there is.
        wanted = min(limit, os.fstat(file.fileno()).st_size + 1)
        data = file.read(wanted)
        while len(data) < wanted and (more := file.read(wanted - len(data))):
            data += more
        return data


def pieces(file: io.BufferedReader, size: int) -> Iterator[bytes]:
    """The rest of a stream in pieces of `size` bytes or somewhat more, the last one excepted. What comes before damage is
    given before UnpackError is raised."""
    parts: list[bytes] = []
    have, damage = 0, None
    while True:
        try:
            part = file.read1(size)
        except UnpackError as error:
            part, damage = b"", error
        if not part:
            break
        parts.append(part)
        have += len(part)
        if have >= size:
            yield b"".join(parts)
            parts, have = [], 0
    if parts:
        yield b"".join(parts)
    if damage is not None:
        raise damage


def gunzip(data: bytes, limit: int) -> bytes:
    """The unpacked bytes of a gzip file in memory, of at most `limit` bytes. Raises UnpackError."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            unpacked = file.read(limit + 1)
    except EOFError as error:
        raise UnpackError("truncated-archive", str(error)) from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise UnpackError("damaged-file", str(error)) from None
    if len(unpacked) > limit:
        raise UnpackError("unpacks-too-large", f"unpacks to more than {limit} bytes")
    return unpacked


class _Unpacked(io.RawIOBase):
    def __init__(self, path: Path, suffix: str) -> None:
        self._packed = io.FileIO(path)
        self._given = 0
        self._size = path.stat().st_size
        self._file: Any
        if suffix == ".zst":
            self._file = _Zstandard(path)
        elif suffix == ".gz":
            self._file = gzip.GzipFile(fileobj=self._packed)
        elif suffix == ".bz2":
            self._file = bz2.BZ2File(self._packed)
        else:
            self._file = lzma.LZMAFile(self._packed)  # noqa: SIM115 - closed in close()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        into = memoryview(buffer).cast("B")
        if self._size == 0:
            # The libraries take it for a file without content; even that has a header.
            raise UnpackError("truncated-archive", "0 bytes; expected a packed file")
        try:
            if isinstance(self._file, _Zstandard):
                num_bytes = self._file.readinto(into)
            else:
                # One step at a time: a longer read that meets the damage would lose the good bytes before it.
                data = self._file.read1(min(len(into), 1 << 16))
                num_bytes = len(data)
                into[:num_bytes] = data
        except EOFError as error:
            raise UnpackError("truncated-archive", str(error)) from None
        except (zlib.error, lzma.LZMAError, gzip.BadGzipFile, _BadZstandardError) as error:
            raise UnpackError("damaged-file", str(error)) from None
        except OSError as error:
            # bz2 reports damage as an OSError without a number; the system's own errors have one.
            if error.errno is not None:
                raise
            raise UnpackError("damaged-file", str(error)) from None
        self._given += num_bytes
        if self._given > FREE_BYTES + MAX_RATIO * self._size:
            raise UnpackError(
                "unpacks-too-large", f"{self._size} bytes unpack to more than {self._given}; expected text"
            )
        return num_bytes

    def close(self) -> None:
        if not self.closed:
            self._file.close()
            self._packed.close()
        super().close()


class _BadZstandardError(Exception):
    pass


class _Zstandard:
    """A .zst file of any number of frames, as a stream that raises EOFError where the file ends inside a frame (the
    package's own stream ends there without a word)."""

    # Four bytes can unpack to 128 KiB, and one call unpacks all that it is given: 64 MiB at most with this.
    _CHUNK = 2048

    def __init__(self, path: Path) -> None:
        import zstandard

        self._file = path.open("rb", buffering=1 << 20)
        self._context = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        self._error: type[Exception] = zstandard.ZstdError
        self._frame: Any = None
        self._input = b""
        self._output = memoryview(b"")
        self._damage: Exception | None = None

    def readinto(self, into: memoryview) -> int:
        """Fills the buffer, or as much of it as comes before the end or before damage, which the next call raises."""
        filled = 0
        while filled < len(into):
            if not self._output and not self._unpack(filled):
                break
            data = self._output[: len(into) - filled]
            into[filled : filled + len(data)] = data
            filled, self._output = filled + len(data), self._output[len(data) :]
        return filled

    def _unpack(self, filled: int) -> bool:
        """Whether there is more `_output`. What goes wrong is raised by the call that has nothing `filled`."""
        if self._damage is None:
            try:
                self._output = memoryview(self._next())
            except (EOFError, UnpackError, _BadZstandardError) as error:
                self._damage = error
        if self._damage is not None and not filled:
            raise self._damage
        return len(self._output) > 0

    def _next(self) -> bytes:
        """The next unpacked bytes; none at the end of the file."""
        output = b""
        while not output:
            chunk = self._input or self._file.read(self._CHUNK)
            self._input = b""
            if not chunk:
                if self._frame is not None:
                    raise EOFError("the file ends inside a Zstandard frame")
                return b""
            try:
                self._frame = self._frame or self._context.decompressobj()
                output = self._frame.decompress(chunk)
                if self._frame.eof:
                    self._input, self._frame = self._frame.unused_data, None
            except self._error as error:
                if "too much memory" in str(error):
                    raise UnpackError(
                        "unpacks-too-large",
                        f"it was packed with a window of more than {MAX_WINDOW >> 20} MiB; pack it anew: "
                        "zstd -dc --long=31 FILE | zstd --long=27 -o NEW",
                    ) from None
                raise _BadZstandardError(str(error)) from error
        return output

    def close(self) -> None:
        self._file.close()
