"""What can be told of source code by reading it line by line: files, definitions, methods, docstrings, imports.

In: the text of a document. Files are told by header lines (`==> json/decoder.py <==`, a path between rules, or a path
with a folder alone on its line, bare or behind a comment sign); a document without any is one file without a name. Definitions are
found in Python (strings and comments set aside first), and at the left margin in other languages.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from longalign_data.teachers.extractive.prose import Span

_SUFFIXES = "pyi?|[ch]|cc|cpp|hpp|rs|go|java|jsx?|tsx?|rb|sh|sql|md|rst|txt|toml|cfg|ini|ya?ml|json"
_HEADER = re.compile(
    rf"^(?:==>|===+|---+|\#+|//+|<!--|\*+|File:)?[ \t]*(?P<path>(?:[\w.+@-]+/)*[\w.+@-]+\.(?:{_SUFFIXES}))"
    r"[ \t]*:?[ \t]*(?:<==|===+|---+|\#+|-->|\*+)?[ \t]*$",
    re.MULTILINE,
)
_PYTHON_STRING = re.compile(
    r"""\#[^\n]*
    |"{3}(?:\\.|[^\\])*?"{3}|'{3}(?:\\.|[^\\])*?'{3}
    |"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""",
    re.VERBOSE | re.DOTALL,
)
_PYTHON_DEFINITION = re.compile(r"^(?P<indent>[ ]*)(?P<kind>(?:async[ ]+)?def|class)[ ]+(?P<name>\w+)", re.MULTILINE)
_OTHER_DEFINITION = re.compile(
    r"^(?P<indent>)(?:(?:export|default|pub(?:\(\w+\))?|async|unsafe|static|public|private|abstract|final)[ ]+)*"
    r"(?P<kind>fn|func|function|class|struct|trait|interface|enum|def|module)[ ]+(?P<name>[A-Za-z_]\w*)",
    re.MULTILINE,
)
_CODE = re.compile(r"\.(?:pyi?|[ch]|cc|cpp|hpp|rs|go|java|jsx?|tsx?|rb)$")
_IMPORT = re.compile(r"^(?:import[ ]+\w[^\n]*|from[ ]+[\w.]+[ ]+import[ ]+[^\n]+)$", re.MULTILINE)
_DOCSTRING = re.compile(r"\s*[rRuU]?(?P<quote>\"{3}|'{3})(?P<text>(?:\\.|[^\\])*?)(?P=quote)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class File(Span):
    """A file inside a document; the span is that of its content. `path` is empty for a document without headers."""

    path: str
    path_start: int


@dataclass(frozen=True, slots=True)
class Definition(Span):
    """A function or class; the span is that of its signature, from the keyword to the end of the header (one line where
    the language is not Python)."""

    kind: str
    name: str
    indent: int
    file: int

    @property
    def is_class(self) -> bool:
        return self.kind == "class"


class Source:
    """A document as source code. Everything is found on first use and kept."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def is_code(self) -> bool:
        """Whether the document holds files of a programming language; without headers, whether at least three definitions
        stand at the left margin, one in 200 lines."""
        if any(_CODE.search(file.path) for file in self.files):
            return True
        return len(self.top_level(0)) >= max(3, self.text.count("\n") // 200)

    @cached_property
    def files(self) -> list[File]:
        """The files in order."""
        headers = [match for match in _HEADER.finditer(self.text) if _stands_alone(self.text, match)]
        arrows = [match for match in headers if match[0].startswith("==>")]
        headers = arrows or headers
        if not headers:
            return [File(0, len(self.text), "", 0)]
        ends = [match.start() for match in headers[1:]] + [len(self.text)]
        return [
            File(match.end(), end, match["path"], match.start("path")) for match, end in zip(headers, ends, strict=True)
        ]

    @cached_property
    def masked(self) -> str:
        """The text with everything blanked that is not Python code: strings, comments and files that cannot be read as
        Python. As long as the text, line breaks in place."""
        parts: list[str] = []
        last = 0
        for file in self.files:
            parts.append(_blank(self.text[last : file.start]))
            content = self.text[file.start : file.end]
            parts.append(_mask(content) if _is_python(file) else _blank(content))
            last = file.end
        return "".join(parts)

    @cached_property
    def definitions(self) -> list[Definition]:
        """Functions, methods and classes in the order of their lines."""
        found: list[Definition] = []
        for number, file in enumerate(self.files):
            if _is_python(file):
                for match in _PYTHON_DEFINITION.finditer(self.masked, file.start, file.end):
                    end = self._header_end(match.end(), file.end)
                    if end is not None:
                        found.append(_definition(match, end, number))
            elif _CODE.search(file.path):
                for match in _OTHER_DEFINITION.finditer(self.text, file.start, file.end):
                    line_end = self.text.find("\n", match.end(), file.end)
                    end = line_end if line_end >= 0 else file.end
                    found.append(_definition(match, end, number))
        return found

    def _header_end(self, position: int, limit: int) -> int | None:
        """Just after the colon that ends a Python header."""
        depth = 0
        for match in re.compile(r"[()\[\]{}:]").finditer(self.masked, position, min(limit, position + 4000)):
            sign = match[0]
            if sign in "([{":
                depth += 1
            elif sign in ")]}":
                depth -= 1
            elif depth == 0:
                return match.end()
        return None

    @cached_property
    def by_name(self) -> Mapping[str, Sequence[int]]:
        """The numbers of the definitions of each name."""
        names: defaultdict[str, list[int]] = defaultdict(list)
        for number, definition in enumerate(self.definitions):
            names[definition.name].append(number)
        return names

    def only(self, name: str) -> int | None:
        """The number of the only definition of a name."""
        numbers = self.by_name.get(name, ())
        return numbers[0] if len(numbers) == 1 else None

    def file_named(self, path: str) -> int | None:
        """The number of the only file with this path."""
        numbers = [number for number, file in enumerate(self.files) if file.path == path]
        return numbers[0] if len(numbers) == 1 else None

    def top_level(self, file: int) -> list[Definition]:
        """The definitions of a file that stand at the left margin."""
        return [definition for definition in self.definitions if definition.file == file and definition.indent == 0]

    @cached_property
    def methods(self) -> Mapping[int, Sequence[Definition]]:
        """For each Python class, by its number: the functions that stand directly in its body."""
        found: dict[int, list[Definition]] = {}
        for number, definition in enumerate(self.definitions):
            if not definition.is_class or not _is_python(self.files[definition.file]):
                continue
            end, body_indent = self._body(definition)
            later = itertools.islice(self.definitions, number + 1, None)
            inside = itertools.takewhile(_before(end), later)
            found[number] = [inner for inner in inside if inner.indent == body_indent and not inner.is_class]
        return found

    def _body(self, definition: Definition) -> tuple[int, int | None]:
        """Where a Python body ends, and the indentation of its first line (None for a body on the header's line)."""
        file_end = self.files[definition.file].end
        first = None
        for match in re.compile(r"^(?P<indent>[ ]*)(?P<sign>[^\s])", re.MULTILINE).finditer(
            self.masked, self._line_end(definition.end, file_end), file_end
        ):
            indent = len(match["indent"])
            if indent <= definition.indent and match["sign"] not in ")]}":
                return match.start(), first
            if first is None:
                first = indent
        return file_end, first

    def _line_end(self, position: int, limit: int) -> int:
        line_end = self.text.find("\n", position, limit)
        return line_end + 1 if line_end >= 0 else limit

    def docstring_line(self, definition: Definition) -> Span | None:
        """The first line of a Python definition's docstring that is not blank."""
        match = _DOCSTRING.match(self.text, definition.end, self.files[definition.file].end)
        line = re.compile(r"\S(?:[^\n]*\S)?").search(self.text, *match.span("text")) if match else None
        return Span(*line.span()) if line else None

    def imports(self, file: int) -> list[Span]:
        """The import lines at the left margin of a Python file."""
        span = self.files[file]
        lines = _IMPORT.finditer(self.masked, span.start, span.end)
        return [Span(match.start(), match.start() + len(match[0].rstrip())) for match in lines]


def _before(end: int) -> Callable[[Definition], bool]:
    return lambda definition: definition.start < end


def _definition(match: re.Match[str], end: int, file: int) -> Definition:
    kind = "class" if match["kind"] == "class" else "def"
    return Definition(match.start("kind"), end, kind, match["name"], len(match["indent"]), file)


def _is_python(file: File) -> bool:
    return not file.path or file.path.endswith((".py", ".pyi"))


def _stands_alone(text: str, match: re.Match[str]) -> bool:
    """A path between marks is a header; a bare or commented one only with a folder in it, and below a blank line."""
    if match[0].startswith(("==", "---", "File:")):
        return True
    return "/" in match["path"] and (match.start() == 0 or text.endswith("\n\n", 0, match.start()))


def _mask(content: str) -> str:
    masked = _PYTHON_STRING.sub(lambda match: _blank(match[0]), content)
    # A quote that is left over means that a string was cut: nothing after it can be told from code.
    return _blank(content) if '"""' in masked or "'''" in masked else masked


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)
