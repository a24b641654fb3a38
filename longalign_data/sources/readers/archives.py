"""Zip files read in memory, within bounds, and never to disk: what a name says is only ever a key.

In: an EPUB, DOCX or PPTX, or a .zip of sources. Out: the members' bytes.
"""

import errno
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO

from longalign_data.sources.unpacking import FREE_BYTES, UnpackError

MAX_MEMBERS = 100_000


def checked_zip(file: IO[bytes]) -> zipfile.ZipFile:
    """The archive, once its members together unpack to at most FREE_BYTES by its own word, which reading holds it to.
    Raises UnpackError for what is no zip file, is locked, or is larger."""
    with _damage_told("no zip file that can be read"):
        archive = zipfile.ZipFile(file)
    members = archive.infolist()
    size = sum(member.file_size for member in members)
    if size > FREE_BYTES or len(members) > MAX_MEMBERS:
        detail = f"{len(members)} members that unpack to {size} bytes; expected at most {MAX_MEMBERS} and {FREE_BYTES}"
        raise UnpackError("unpacks-too-large", detail)
    if any(member.flag_bits & 1 for member in members):
        raise UnpackError("unreadable-file", "the archive is locked with a password")
    return archive


def member_bytes(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """The bytes of a member, at most `limit`. Raises UnpackError when it is not there, is larger or is damaged."""
    try:
        with _damage_told(repr(name)), archive.open(name) as file:
            data = file.read(limit + 1)
    except KeyError:
        raise UnpackError("damaged-file", f"the archive lacks {name!r}") from None
    if len(data) > limit:
        raise UnpackError("too-large", f"{name!r} has more than {limit} bytes")
    return data


@contextmanager
def _damage_told(what: str) -> Iterator[None]:
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        OverflowError,
        struct.error,
    ) as error:
        raise UnpackError("damaged-file", f"{what}: {error}") from None
    except MemoryError:
        # LZMA makes room for the window that the member asks for, which one damaged byte makes 4 GiB.
        raise UnpackError("unpacks-too-large", f"{what}: asks for more memory than there is") from None
    except OSError as error:
        # bz2 reports damage without a number, and a damaged offset leads to before the file's beginning.
        if error.errno not in (None, errno.EINVAL):
            raise
        detail = str(error) if error.errno is None else "a place before the file's beginning"
        raise UnpackError("damaged-file", f"{what}: {detail}") from None


def safe_name(name: str) -> str | None:
    """The path of a member below its archive's top, with `/`; None for one that is absolute or climbs out."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        return None
    return str(path)
