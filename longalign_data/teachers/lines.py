"""Lines of a byte stream. The HTTP clients' own line iterators split text at U+2028 and other signs that JSON may hold."""

from collections.abc import AsyncIterator


async def split_lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines that are not blank, without their ends. Only a line feed ends a line."""
    held = b""
    async for chunk in chunks:
        *lines, held = (held + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield line
    if held.strip():
        yield held
