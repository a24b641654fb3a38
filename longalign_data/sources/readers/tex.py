"""TeX sources as text for a reader: files merged, comments gone, macros resolved, mathematics left as it is written.

    \\newcommand{\\R}{\\mathbb{R}} ... \\section{Intro} Let $x \\in \\R$.   ->   ## Intro   Let $x \\in \\mathbb{R}$.

In: the files of one submission by name. Out: its text. TeX is a programming language; what is resolved here are files,
`\\newcommand`, `\\def` with plain parameters and `\\DeclareMathOperator`. Nothing is run, and all growth is bounded.
"""

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence

MAX_CHARS = 16 << 20
MAX_EXPANSIONS = 200_000
MAX_ARGUMENT = 100_000
"""Characters of a macro's argument or of a caption."""

MAX_UNCLOSED = 20
"""Braces that nothing closes, after which no more are looked for: each costs a search through MAX_ARGUMENT characters."""

# A comment with the line end behind it, unless a blank line follows: that still ends the paragraph. Before it, in a group,
# what may hold a per cent sign that begins none.
_COMMENT = re.compile(
    r"(\\(?:verb\*?|lstinline)([^A-Za-z0-9\s*{\[])[^\n]*?\2"
    r"|\\(?:url|href|path|nolinkurl|lstinline)\s*\{(?:[^{}\n]|\{[^{}\n]*\})*\}|\\.)|%[^\n]*(?:\n(?![ \t]*\n)[ \t]*)?",
    re.DOTALL,
)
PER_CENT = "\ue003"
"""A character of private use for a per cent sign that begins no comment, which the converter would take for one."""

MISSING = re.compile("\ue004([^\ue005]*)\ue005")
"""Between two characters of private use, what an `\\input` asked for that no file answers."""

NO_TEXT = re.compile(
    r"\.(?:aux|bbl|bib|bst|cfg|clo|cls|def|eps|eps_tex|fd|fig|gls|ind|jpg|lof|lot|pdf|pdf_t|pdf_tex|pdftex_t|pgf|png|ps|pstex"
    r"|pstex_t|sty|tikz|toc|tps)\Z",
    re.IGNORECASE,
)
"""What is included without being text: packages, lists that TeX makes itself, drawings."""

_VERBATIM = re.compile(r"(\\(?:begin|end)\{(?:verbatim|lstlisting|minted)\*?\})")
_INCLUDE = re.compile(
    r"\\(input|include|subfile|subimport|import)\b\s*(?:\{([^{}]{0,300})\}\s*(?:\{([^{}]{0,300})\})?|([\w./-]{1,300}))"
)
_DOCUMENT = re.compile(r"\\document(?:class|style)\b")
_MACRO = re.compile(
    r"\\(?:(?:re|provide)?newcommand|providecommand|renewcommand|DeclareRobustCommand)\*?\s*\{?\s*\\([A-Za-z]+)\s*\}?\s*(?:\[(\d)\])?\s*(?:\[([^\]]{0,500})\])?\s*(?=\{)"
)
_DEF = re.compile(r"\\(?:e|g|x)?def\s*\\([A-Za-z]+)\s*((?:#\d)*)\s*(?=\{)")
_OPERATOR = re.compile(r"\\DeclareMathOperator(\*?)\s*\{?\s*\\([A-Za-z]+)\s*\}?\s*(?=\{)")
_DOCUMENT_COMMAND = re.compile(
    r"\\(?:New|Renew|Provide|Declare)DocumentCommand\s*\{?\s*\\([A-Za-z]+)\s*\}?\s*\{((?:\s*\+?m)*)\s*\}\s*(?=\{)"
)
"""With mandatory arguments alone."""

_DEFINITIONS = re.compile(f"{_MACRO.pattern}|{_DEF.pattern}|{_OPERATOR.pattern}|{_DOCUMENT_COMMAND.pattern}")
_PACKAGES = re.compile(
    r"\\(?:usepackage|RequirePackage|documentclass|documentstyle|LoadClass)\s*(?:\[[^\]]{0,1000}\])?\s*\{([^{}]{0,1000})\}"
)
PACKAGES = (".sty", ".cls")
MAX_WORDING = 300
"""Characters of a definition in a package that can be a wording; longer ones lay out pages."""

_LAYOUT = re.compile(
    r"@|\\(?:par|[vh](?:skip|box|space|fil+|rule|size)|vspace|begin|end|begingroup|endgroup|(?:re)?newcommand|[egx]?def|let|if[a-z]*|else|fi"
    r"|expandafter|futurelet|csname|advance|penalty|kern|rule|global|relax|set[a-z]+|write|parbox|makebox|raise|lower|font|fontsize|noindent)(?![A-Za-z])"
)
_CONDITION = re.compile(r"\\newif\s*\\if[A-Za-z]+|\\(if[A-Za-z]*|else|fi)(?![A-Za-z@])")
_NO_CONDITION = re.compile(
    r"iff|ifthenelse|if(?:str|cs|num|dim)[a-z]+|if(?:not)?blank|ifbool|iftoggle|if(?:un)?def[a-z]*(?<!ifdefined)"
)
"""What begins like a conditional of TeX and needs no `\\fi`."""

_NAME = re.compile(r"\\([A-Za-z]+)")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_MATH_NAMES = "equation|align|alignat|gather|multline|eqnarray|displaymath|math|flalign|dmath"
_MATH = re.compile(
    rf"\\\\|\\[$%&]|\$\$|\$|\\\[|\\\]|\\\(|\\\)|\\begin\{{((?:{_MATH_NAMES})\*?)\}}|\\end\{{((?:{_MATH_NAMES})\*?)\}}|\n[ \t]*\n"
)
_CLOSING = {"$$": "$$", "$": "$", r"\[": r"\]", r"\(": r"\)"}
_FLOAT = re.compile(r"\\(begin|end)\{(figure|wrapfigure|thebibliography|tikzpicture|filecontents|comment|CCSXML)\*?\}")
_HEADING = re.compile(
    r"\\(part|chapter|section|subsection|subsubsection|paragraph)\*?\s*(?:\[[^\]]{0,500}\])?\s*(?=\{)"
)
_LEVEL = {
    "part": "#",
    "chapter": "#",
    "section": "##",
    "subsection": "###",
    "subsubsection": "####",
    "paragraph": "#####",
}
_CITE = re.compile(r"~?\\(?:no)?[cC]ite[a-zA-Z]*\*?\s*(?:\[[^\]]{0,300}\]\s*){0,2}\{([^{}]{0,2000})\}")
_REFERENCE = re.compile(r"\\(?:eq|auto|c|C|page|v|name)?ref\*?\{([^{}]{0,300})\}")
_DROPPED = re.compile(
    r"\\(?:label|vspace|hspace|bibliography|bibliographystyle|include(?:graphics|only|pdf|svg)?|input|pagestyle|thispagestyle|setlength|addtolength|"
    r"setcounter|usepackage|addcontentsline|markboth|vskip|hskip|graphicspath)(?![A-Za-z])\*?\s*(?:\[[^\]]{0,300}\])?(?:\{[^{}]{0,300}\}){0,2}"
    r"|\\(?:maketitle|centering|noindent|newpage|clearpage|tableofcontents|appendix|small|footnotesize|normalsize|large|hline|toprule|midrule|"
    r"bottomrule|smallskip|medskip|bigskip|hfill|vfill|balance|printbibliography|par)(?![A-Za-z])"
)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[^{}]{0,60}\}(?:\[[^\]]{0,200}\])?(?:\{[lcrpXmb|@!>< .\d{}\\*]{0,200}\})?")
_SIZES = {
    "addlinespace|framebox|makebox": 0,
    "arrayrulecolor|cellcolor|cline|cmidrule|colorbox|parbox|raisebox|rotatebox|rowcolor|scalebox": 1,
    "fcolorbox|multicolumn|multirow|resizebox": 2,
    r"begin\{(?:adjustbox|minipage|multicols|tabular[*xy]|tabulary|xltabular)\*?\}": 1,
    r"begin\{(?:CJK|wraptable)\*?\}": 2,
}
"""How many arguments of a command, or of an environment's beginning, are sizes, places, colours and columns; what stands behind
them is words."""

_OPTIONAL = r"(?:\s*\[[^\]]{0,100}\]|\([^()\n]{0,50}\))*"
_BRACED = r"\s*\{(?:[^{}]|\{[^{}]{0,100}\}){0,200}\}"
_SIZED = re.compile(
    "|".join(
        rf"\\(?:{names})(?![A-Za-z])\*?(?:{_OPTIONAL}{_BRACED}){{{count}}}"
        + (r"(?:\[[^\]]{0,100}\])*" if count != 1 else "")
        for names, count in _SIZES.items()
    )
)
_TABLE = re.compile(
    r"(\\(?:begin|end)\{(?:tabular[xy]?|tabulary|tabu|long(?:table|tabu)|supertabular|xltabular|tblr|array)\*?\})"
)
_CELL_END = re.compile(r"(?<!\\)((?:\\\\)*)&")
_SPECIAL = re.compile(r"[\\{}~$&^_]|``|''|---?")


class TexError(Exception):
    """A source without a document, or one that grows without end."""


def source_text(files: Mapping[str, str], inline: Callable[[str], str]) -> tuple[str, str, tuple[str, ...]]:
    """(title, text, missing) of a submission; `inline` turns one paragraph of TeX into text. `missing` are the files, as the
    document's body names them, whose text is not in it because no file of the submission answers to the name. Raises
    TexError."""
    packages = {name: text for name, text in files.items() if name.lower().endswith(PACKAGES)}
    files = {name: text for name, text in files.items() if name not in packages}
    main = _main_file(files)
    if main is None:
        raise TexError(f"no file has \\documentclass; there are: {', '.join(sorted(files)[:8]) or 'none'}")
    merged = _unconditional(_merged(main, files))
    merged = _expanded(_wordings(merged, posixpath.dirname(main), packages) + merged)
    preamble, begin, body = merged.partition(r"\begin{document}")
    if not begin:
        preamble, body = "", merged
    body = body.partition(r"\end{document}")[0]
    # What is asked for before the body are packages and macros; in drawings and lists of literature nothing would be read.
    missing = tuple(dict.fromkeys(MISSING.findall(_without_floats(body))))
    preamble, body = MISSING.sub("", preamble), MISSING.sub("", body)
    title = _argument_of(r"\title", preamble) or _argument_of(r"\title", body)
    abstract = _argument_of(r"\abstract", preamble)
    title_text = " ".join(_paragraphs(title, inline).split()) if title else ""
    text = _paragraphs(f"{abstract}\n\n{body}" if abstract else body, inline)
    return title_text, f"# {title_text}\n\n{text}" if title_text and text else text, missing


def _main_file(files: Mapping[str, str]) -> str | None:
    candidates = [name for name, text in files.items() if _DOCUMENT.search(text)]
    whole = [name for name in candidates if r"\begin{document}" in files[name]] or candidates
    included = {match[2] or match[4] for text in files.values() for match in _INCLUDE.finditer(text)}
    tops = [name for name in whole if name not in included and name.removesuffix(".tex") not in included] or whole
    likely = ("main.tex", "ms.tex", "paper.tex", "article.tex")
    return min(
        tops, key=lambda name: (name.count("/"), name.lower() not in likely, -len(files[name]), name), default=None
    )


def without_comments(text: str) -> str:
    """TeX without comments. A `\\%` stays; a per cent sign in an address or in a verbatim environment becomes PER_CENT,
    and of what the converter loses, `\\verb` becomes escaped text, and `\\href` leaves its words."""
    parts = _VERBATIM.split(re.sub("[\ue003-\ue005]", "", text))
    inside = False
    for index, part in enumerate(parts):
        if index % 2:
            inside = part.startswith("\\begin")
        else:
            parts[index] = part.replace("%", PER_CENT) if inside else _COMMENT.sub(_kept, part)
    return "".join(parts)


def _kept(match: "re.Match[str]") -> str:
    kept, mark = match[1] or "", match[2]
    if mark:
        return re.sub(
            r"[\\{}$&#_~%]", lambda sign: _ESCAPES.get(sign[0], f"\\{sign[0]}"), kept[kept.index(mark) + 1 : -1]
        )
    if kept.startswith("\\href"):
        return ""
    return kept if len(kept) == 2 else kept.replace("%", PER_CENT)


_ESCAPES = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}


def _merged(main: str, files: Mapping[str, str]) -> str:
    size = 0

    def merge(name: str, above: tuple[str, ...], folder: str) -> str:
        nonlocal size
        text = without_comments(files[name])
        size += len(text)
        if size > MAX_CHARS:
            raise TexError(f"included files grow to more than {MAX_CHARS} characters")

        def include(match: "re.Match[str]") -> str:
            wanted, inside = (match[2] or match[4] or "").strip(), folder
            if match[3] is not None:
                # `\import` and `\subimport` name a folder first, in which all stands that their file includes.
                wanted, inside = match[3].strip(), posixpath.join(folder if match[1] == "subimport" else top, wanted)
            found = _resolve(wanted, (inside, top, "", posixpath.dirname(name)), files)
            if found in above:
                return ""
            if found is None or len(above) > 20:
                return "" if NO_TEXT.search(wanted) else f"\ue004{wanted}\ue005"
            return f"\n{merge(found, (*above, found), inside)}\n"

        return _INCLUDE.sub(include, text)

    top = posixpath.dirname(main)
    return merge(main, (main,), top)


def _unconditional(text: str) -> str:
    """The text without what stands between `\\iffalse` and its `\\else` or `\\fi`: a comment of another kind. Of one that
    nothing ends, all stays."""
    pieces: list[str] = []
    position = 0
    opened: list[bool] = []  # of each conditional that is open whether it is an `\iffalse`
    hidden, start = 0, 0  # how deep the one is that hides what is read, and where it begins
    for match in _CONDITION.finditer(text):
        word = match[1]
        if word is None or _NO_CONDITION.fullmatch(word):
            continue
        if word not in ("else", "fi"):
            opened.append(word == "iffalse")
            if word == "iffalse" and not hidden:
                hidden, start = len(opened), match.start()
        elif opened and opened[-1] and hidden in (0, len(opened)):
            if hidden:
                pieces.append(text[position:start])
                position, hidden = match.end(), 0
            else:  # the end of an `\else` that was kept
                pieces.append(text[position : match.start()])
                position = match.end()
            if word == "fi":
                opened.pop()
        elif opened and word == "fi":
            opened.pop()
    return "".join(pieces) + text[position:]


def _wordings(text: str, top: str, packages: Mapping[str, str]) -> str:
    """The definitions in the packages and classes of a submission that its text loads, as far as they are short and lay out
    nothing."""
    found: list[str] = []
    asked: dict[str, None] = {}

    def ask(source: str) -> None:
        for match in _PACKAGES.finditer(source):
            asked.update((name.strip(), None) for name in match[1].split(","))

    ask(text)
    read: set[str] = set()
    while asked:
        wanted = next(iter(asked))
        del asked[wanted]
        options = {
            posixpath.normpath(posixpath.join(folder, wanted + suffix)) for folder in (top, "") for suffix in PACKAGES
        }
        for name in sorted(options & packages.keys() - read):
            read.add(name)
            source = without_comments(packages[name])
            ask(source)
            position = 0
            for match in _DEFINITIONS.finditer(source):
                if match.start() < position:
                    continue
                end = _closing(source, match.end())
                if end is None:
                    break
                position = end
                if end - match.end() <= MAX_WORDING and not _LAYOUT.search(source, match.end(), end):
                    found.append(source[match.start() : end])
    return "".join(f"{definition}\n" for definition in found)


def _resolve(wanted: str, folders: Sequence[str], files: Mapping[str, str]) -> str | None:
    for base in folders:
        name = posixpath.normpath(posixpath.join(base, wanted))
        for option in (name, f"{name}.tex"):
            if option in files:
                return option
    return None


def _closing(text: str, opening: int) -> int | None:
    """The place behind the brace that closes the one at `opening`; None beyond MAX_ARGUMENT characters."""
    depth = 0
    for match in _BRACE.finditer(text, opening, opening + MAX_ARGUMENT):
        if match[0] == "{":
            depth += 1
        elif match[0] == "}":
            depth -= 1
            if depth == 0:
                return match.end()
    return None


def _argument_of(command: str, text: str) -> str:
    match = re.search(rf"{re.escape(command)}\b\s*(?:\[[^\]]{{0,300}}\])?\s*(?=\{{)", text)
    end = _closing(text, match.end()) if match else None
    return text[match.end() + 1 : end - 1] if match and end else ""


def _expanded(text: str) -> str:
    macros: dict[str, tuple[int, str | None, str]] = {}
    kept: list[str] = []
    position, unclosed = 0, 0
    for match in _DEFINITIONS.finditer(text):
        if match.start() < position:
            continue
        end = _closing(text, match.end())
        if end is None:
            unclosed += 1
            if unclosed > MAX_UNCLOSED:
                break
            continue
        body = text[match.end() + 1 : end - 1]
        if match[1]:
            macros[match[1]] = (int(match[2] or 0), match[3], body)
        elif match[4]:
            macros[match[4]] = (len(match[5]) // 2, None, body)
        elif match[7]:
            macros[match[7]] = (0, None, rf"\operatorname{match[6]}{{{body}}}")
        else:
            macros[match[8]] = (match[9].count("m"), None, body)
        kept.append(text[position : match.start()])
        position = end
    kept.append(text[position:])
    text = "".join(kept)
    # A macro that is there for its side effects, or redefines a command of TeX's own, is left to the converter.
    macros = {
        name: macro for name, macro in macros.items() if not macro[2].lstrip().startswith(r"\@") and name not in _LEVEL
    }
    budget = MAX_EXPANSIONS
    for _ in range(12):
        text, count = _expand_once(text, macros)
        budget -= count
        if not count:
            break
        if budget < 0 or len(text) > MAX_CHARS:
            raise TexError(f"macros grow beyond {MAX_CHARS} characters or {MAX_EXPANSIONS} expansions")
    return text


def _expand_once(text: str, macros: Mapping[str, tuple[int, str | None, str]]) -> tuple[str, int]:
    if not macros:
        return text, 0
    pieces: list[str] = []
    position, count, size, unclosed = 0, 0, 0, 0
    for match in _NAME.finditer(text):
        macro = macros.get(match[1])
        if macro is None or match.start() < position:
            continue
        num_arguments, default, body = macro
        at, arguments = match.end(), list[str]()
        if default is not None and num_arguments:
            if text[at : at + 1] == "[" and (close := text.find("]", at, at + MAX_ARGUMENT)) >= 0:
                arguments.append(text[at + 1 : close])
                at = close + 1
            else:
                arguments.append(default)
        while len(arguments) < num_arguments:
            while at < len(text) and text[at] in " \t\n":
                at += 1
            end = _closing(text, at) if text[at : at + 1] == "{" else at + 1
            if end is None or at >= len(text):
                break
            arguments.append(text[at + 1 : end - 1] if text[at] == "{" else text[at])
            at = end
        if len(arguments) < num_arguments:
            unclosed += 1
            if unclosed > MAX_UNCLOSED:
                break
            continue
        for number, argument in enumerate(arguments, start=1):
            body = body.replace(f"#{number}", argument)
        # A control word swallows the blank behind it; what follows must not grow into a longer name.
        joined = body[-1:].isalpha() and text[at : at + 1].isalpha()
        pieces += [text[position : match.start()], body, " " if joined else ""]
        size += len(body) + match.start() - position
        position, count = at, count + 1
        if size > MAX_CHARS or count > MAX_EXPANSIONS:
            raise TexError(f"macros grow beyond {MAX_CHARS} characters or {MAX_EXPANSIONS} expansions")
    pieces.append(text[position:])
    return "".join(pieces), count


def _paragraphs(text: str, inline: Callable[[str], str]) -> str:
    text, formulas = _without_math(_without_floats(text))
    text = _with_headings(text)
    text = _CITE.sub(lambda match: f" [{', '.join(key.strip() for key in match[1].split(','))}]", text)
    text = _REFERENCE.sub(lambda match: match[1], text)
    text = _SIZED.sub(lambda match: match[0][: match[0].index("}") + 1] if match[0].startswith(r"\begin") else "", text)
    text = _DROPPED.sub("", text)
    text = text.replace(r"\begin{abstract}", "\n\n\ue002## Abstract\n\n")
    text = _with_cells(text)
    text = _ENVIRONMENT.sub("\n", text)
    text = re.sub(r"\\item\b\s*(?:\[([^\]]{0,300})\])?", lambda match: f"\n- {match[1] or ''}", text)
    text = text.replace(r"\\", "\n")
    done = []
    for paragraph in re.split(r"\n[ \t]*\n\s*", text):
        plain = inline(paragraph) if _SPECIAL.search(paragraph) else paragraph
        plain = re.sub(r"[ \t]+", " ", plain).strip()
        if not plain:
            continue
        done.append(" ".join(plain.split()) if plain.startswith("\ue002") else plain)
    return (
        re.sub(r"\ue000(\d+)\ue001", lambda match: formulas[int(match[1])], "\n\n".join(done))
        .replace("\ue002", "")
        .replace(PER_CENT, "%")
    )


def _with_cells(text: str) -> str:
    """The sign between two cells of a table as a bar, and elsewhere, as in a listing, as itself."""
    parts = _TABLE.split(text)
    depth = 0
    for index, part in enumerate(parts):
        if index % 2:
            depth = max(0, depth + (1 if part.startswith("\\begin") else -1))
        else:
            parts[index] = _CELL_END.sub(r"\1 | " if depth else r"\1\\&", part)
    return "".join(parts)


def _with_headings(text: str) -> str:
    pieces: list[str] = []
    position, unclosed = 0, 0
    for match in _HEADING.finditer(text):
        end = _closing(text, match.end())
        if end is None:
            unclosed += 1
            if unclosed > MAX_UNCLOSED:
                break
        elif match.start() >= position:
            pieces += [
                text[position : match.start()],
                f"\n\n\ue002{_LEVEL[match[1]]} {text[match.end() + 1 : end - 1]}\n\n",
            ]
            position = end
    return "".join(pieces) + text[position:]


def _without_math(text: str) -> tuple[str, list[str]]:
    """The text with each formula as a mark that no converter touches, and the formulas as they are written."""
    # The marks are characters of private use; a source has no business with them.
    text = re.sub("[\ue000-\ue002]", "", text)
    formulas: list[str] = []
    pieces: list[str] = []
    position, opened, start = 0, "", 0
    for match in _MATH.finditer(text):
        token = match[0]
        if opened:
            if token.isspace():
                if opened in ("$", r"\("):
                    opened = ""  # a formula in a line does not go on into the next paragraph: this was a stray sign
            elif token == _CLOSING.get(opened) or (match[2] is not None and match[2] == opened):
                formula = re.sub(r"\\label\{[^{}]{0,200}\}", "", text[start : match.end()])
                pieces += [text[position:start], f"\ue000{len(formulas)}\ue001"]
                formulas.append(re.sub(r"\s*\n\s*", "\n", formula))
                position, opened = match.end(), ""
        elif match[1] is not None:
            opened, start = match[1], match.start()
        elif token in _CLOSING:
            opened, start = token, match.start()
    pieces.append(text[position:])
    return "".join(pieces), formulas


def _without_floats(text: str) -> str:
    """Figures become their captions; bibliographies, drawings and data vanish."""
    pieces: list[str] = []
    position, inside, start = 0, "", 0
    for match in _FLOAT.finditer(text):
        if match[1] == "begin" and not inside:
            inside, start = match[2], match.end()
            pieces.append(text[position : match.start()])
        elif match[1] == "end" and match[2] == inside:
            if inside in ("figure", "wrapfigure"):
                caption = _argument_of(r"\caption", text[start : match.start()])
                pieces.append(f"\n\nFigure: {caption}\n\n" if caption else "\n\n")
            position, inside = match.end(), ""
    if not inside:
        pieces.append(text[position:])
    return "".join(pieces)
