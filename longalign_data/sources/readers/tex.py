"""TeX sources as text for a reader: files merged, comments gone, macros resolved, mathematics left as it is written.

    \\newcommand{\\R}{\\mathbb{R}} ... \\section{Intro} Let $x \\in \\R$.   ->   ## Intro   Let $x \\in \\mathbb{R}$.

In: the files of one submission by name. Out: its text. TeX is a programming language; what is resolved here are files,
`\\newcommand` and its kin, `\\def` with plain parameters, `\\DeclareMathOperator`, also of packages that the submission
holds, and the conditionals of `tex_conditions`. Nothing is run, and all growth is bounded.
"""

import posixpath
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from heapq import nsmallest

from longalign_data.sources.readers.tex_arguments import MAX_ARGUMENT, MAX_UNCLOSED, apart, closing, without_arguments
from longalign_data.sources.readers.tex_conditions import without_false_branches

PACKAGES = (".sty", ".cls")
MAX_CHARS = 16 << 20
MAX_EXPANSIONS = 200_000
MAX_TOPS = 20
"""Files of a submission that may be its main one whose parts are counted, the longest."""

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

_VERBATIM = re.compile(r"(\\(?:begin|end)\{(?:[vV]erbatim|lstlisting|minted)\*?\})")
_VERBATIM_ARGUMENTS = re.compile(r"(?:[ \t]*\[[^\]]{0,500}\])?(?:[ \t]*\{[\w+#-]{1,30}\}(?=[ \t]*\n))?[ \t]*\n?")
_INCLUDE = re.compile(
    r"\\(input|include|subfile|(subimport|import))\b\s*+"
    r"(?:\{([^{}]{0,300})\}(?(2)\s*+\{([^{}]{0,300})\})|([\w./-]{1,300}))"
)
_DOCUMENT = re.compile(r"\\document(?:class|style)\b")
_NOTE = re.compile(r"\\(?:thanks|footnote|titlenote)\s*+(?:\[[^\]]{0,100}\])?\s*+(?=\{)")
_NO_DOCUMENT = re.compile(r"\\documentclass\s*+(?:\[[^\]]{0,1000}\]\s*+)?\{(?:standalone|subfiles)\}")
_MACRO = re.compile(
    r"\\(?:newcommand|providecommand|renewcommand|DeclareRobustCommand)\*?\s*+\{?\s*+\\([A-Za-z]+)\s*+\}?\s*+(?:\[(\d)\])?\s*+(?:\[([^\]]{0,500})\])?\s*+(?=\{)"
)
_DEF = re.compile(r"\\(?:e|g|x)?def\s*+\\([A-Za-z]+)\s*+((?:#\d)*)\s*+(?=\{)")
_OPERATOR = re.compile(r"\\DeclareMathOperator(\*?)\s*+\{?\s*+\\([A-Za-z]+)\s*+\}?\s*+(?=\{)")
_DOCUMENT_COMMAND = re.compile(
    r"\\(?:New|Renew|Provide|Declare)DocumentCommand\s*+\{?\s*+\\([A-Za-z]+)\s*+\}?\s*+\{((?:[^{}]|\{[^{}]{0,100}\}){0,100})\}\s*+(?=\{)"
)
_PLAIN_ARGUMENTS = re.compile(r"(o|O\{([^{}]*)\})?(m*)")
_DEFINITION = re.compile("|".join(pattern.pattern for pattern in (_MACRO, _DEF, _OPERATOR, _DOCUMENT_COMMAND)))
_PACKAGE = re.compile(
    r"\\(?:usepackage|RequirePackage|documentclass|documentstyle|LoadClass)\s*+(?:\[[^\]]{0,1000}\]\s*+)?\{([^{}]{0,1000})\}"
)
_NAME = re.compile(r"\\([A-Za-z]+)")
_NAME_IN_NAME = re.compile(r"\\([A-Za-z]+)[ \t]*")
_MATH_NAMES = "equation|align|alignat|gather|multline|eqnarray|displaymath|math|flalign|dmath|IEEEeqnarray"
_MATH = re.compile(
    rf"\\\\|\\[$%&]|\$\$|\$|\\\[|\\\]|\\\(|\\\)|\\begin\{{((?:{_MATH_NAMES})\*?)\}}|\\end\{{((?:{_MATH_NAMES})\*?)\}}|\n[ \t]*\n"
)
_CLOSING = {"$$": "$$", "$": "$", r"\[": r"\]", r"\(": r"\)"}
_FLOAT = re.compile(
    r"\\(begin|end)\{((?:wrap|sideways|SC|teaser|margin)?figure|thebibliography|tikzpicture|filecontents|comment|CCSXML)\*?\}"
)
_CAPTION = re.compile(
    r"\\(?:(?:sub)?caption\*?|captionof\*?\s*+\{[^{}]{0,60}\}|subcaptionbox\*?)\s*+(?:\[[^\]]{0,500}\])?\s*+(?=\{)"
    r"|\\sub(?:float|figure)\*?\s*+(?=\[)"
)
_CAPTION_OF = re.compile(r"\\captionof\*?\s*+\{\s*+((?:figure)?)[^{}]{0,60}\}\s*+(?:\[[^\]]{0,500}\])?\s*+(?=\{)")
_BRACKET = re.compile(r"\\.|[{}\]]", re.DOTALL)
_HEADING = re.compile(
    r"\\(part|chapter|section|subsection|subsubsection|paragraph)\*?\s*+(?:\[[^\]]{0,500}\])?\s*+(?=\{)"
)
_LEVEL = {
    "part": "#",
    "chapter": "#",
    "section": "##",
    "subsection": "###",
    "subsubsection": "####",
    "paragraph": "#####",
}
_CITE = re.compile(
    r"~?\\(?:[pP]aren|[tT]ext|[aA]uto|foot(?:full)?|smart|super)?[cC]ite(?!text)[a-zA-Z]*\*?\s*(?:\[[^\]]{0,300}\]\s*){0,2}\{([^{}]{0,2000})\}"
)
_REFERENCE = re.compile(r"\\(?:eq|auto|Auto|c|C|page|cpage|v|V|name|sub|labelc)?ref\*?\{([^{}]{0,300})\}")
_DROPPED = re.compile(
    r"\\(?:label|vspace|hspace|bibliography|bibliographystyle|include(?:graphics|only|pdf|svg)?|input|pagestyle|thispagestyle|"
    r"usepackage|addcontentsline|markboth)(?![A-Za-z])\*?\s*(?:\[[^\]]{0,300}\])?(?:\{[^{}]{0,300}\}){0,2}"
    r"|\\(?:maketitle|centering|noindent|newpage|clearpage|tableofcontents|appendix|small|footnotesize|normalsize|large|hline|toprule|midrule|"
    r"bottomrule|smallskip|medskip|bigskip|hfill|vfill|balance|printbibliography|par)(?![A-Za-z])"
)
_THEOREM = re.compile(r"\\newtheorem\*?\s*\{([^{}]{1,60})\}")
_THEOREMS = (
    "theorem", "lemma", "proposition", "corollary", "definition", "conjecture", "remark", "example", "claim", "fact",
    "assumption", "proof", "thm", "lem", "prop", "cor", "defn", "conj", "rem",
)  # fmt: skip
_ENVIRONMENT = re.compile(
    r"\\(?:begin|end)\{([^{}]{0,60})\}(?:\[([^\]]{0,200})\])?(?:\{[lcrpXmb|@!>< .\d{}\\*]{0,200}\})?"
)
_TABLE = re.compile(
    r"(\\(?:begin|end)\{(?:tabular[xy]?|tabulary|tabu|long(?:table|tabu)|supertabular|xltabular|tblr|array)\*?\})"
)
_CELL_END = re.compile(r"(?<!\\)((?:\\\\)*)&")
_PROGRAM = re.compile(
    r"@|\\(?:expandafter|csname|futurelet|advance|[egx]?def|let|global|newcommand|renewcommand|penalty|setbox|begingroup|"
    r"global|write|immediate|parshape)(?![A-Za-z])"
)
_LINE_END = re.compile(r"\\\\\*?(?:[ \t]*\[[ \t]*-?[\d.]+[ \t]*[a-z]{2}[ \t]*\])?")
_ROW_END = re.compile(rf"{_LINE_END.pattern}\s*")
_OWN = frozenset((
    "title", "author", "date", "thanks", "abstract", "maketitle", "caption", "item", "begin", "end", "documentclass",
    "document", "footnote", "keywords", "url", "href", "emph", "textbf", "textit", "texttt", "textsc", "textrm",
    "textsf", "underline", "appendix", "and", "ref", "pageref", "bibitem", "verb", "today", "the",
    "import", "subimport",
))  # fmt: skip
_SPECIAL = re.compile(r"[\\{}~$&^_]|``|''|---?")


class TexError(Exception):
    """A source without a document, or one that grows without end."""


def source_text(files: Mapping[str, str], inline: Callable[[str], str]) -> tuple[str, str, tuple[str, ...]]:
    """(title, text, missing) of a submission; `inline` turns one paragraph of TeX into text. `missing` are the files, as the
    document's body names them, whose text is not in it because no file of the submission answers to the name. Raises
    TexError."""
    main = _main_file(files)
    if main is None:
        raise TexError(f"no file has \\documentclass; there are: {', '.join(sorted(files)[:8]) or 'none'}")
    merged, listings = _without_listings(_merged(main, files)[0])
    packaged = _packaged(merged, posixpath.dirname(main), files, set())
    # A conditional in a macro stands in the text once the macro is expanded.
    merged = without_false_branches(merged, [(start, end) for _, start, end, _, _ in _definitions(merged)])
    merged = without_false_branches(_expanded(merged, packaged), [])
    preamble, begin, body = merged.partition(r"\begin{document}")
    if not begin:
        preamble, body = "", merged
    body = body.partition(r"\end{document}")[0]
    # What is asked for before the body are packages and macros; in drawings and lists of literature nothing would be read.
    missing = tuple(dict.fromkeys(MISSING.findall(_without_floats(body))))
    preamble, body = MISSING.sub("", preamble), MISSING.sub("", body)
    title = _without_notes(_argument_of(r"\title", preamble) or _argument_of(r"\title", body))
    abstract = _argument_of(r"\abstract", preamble)
    theorems = frozenset((*_THEOREMS, *_THEOREM.findall(merged)))
    title_text = " ".join(_paragraphs(title, inline, listings, theorems).split()) if title else ""
    text = _paragraphs(f"{abstract}\n\n{body}" if abstract else body, inline, listings, theorems)
    return title_text, f"# {title_text}\n\n{text}" if title_text and text else text, missing


def _main_file(files: Mapping[str, str]) -> str | None:
    candidates = [name for name, text in files.items() if _DOCUMENT.search(text) and not name.endswith(PACKAGES)]
    whole = [name for name in candidates if r"\begin{document}" in files[name]] or candidates
    included = {match[3] or match[5] for text in files.values() for match in _INCLUDE.finditer(text)}
    tops = [name for name in whole if name not in included and name.removesuffix(".tex") not in included] or whole
    likely = ("main.tex", "ms.tex", "paper.tex", "article.tex")
    # A paper may be all in its parts, and a letter or a supplement longer than the file that names them.
    longest = nsmallest(MAX_TOPS, tops, key=lambda name: (name.count("/"), -len(files[name]), name))
    sizes = {name: sum(len(files[part]) for part in _parts(name, files)) for name in longest} if len(tops) > 1 else {}
    return min(
        tops,
        key=lambda name: (name.count("/"), name.lower() not in likely, -sizes.get(name, len(files[name])), name),
        default=None,
    )


def _parts(main: str, files: Mapping[str, str]) -> set[str]:
    """A file and all that it includes."""
    top, found, waiting = posixpath.dirname(main), {main}, [main]
    while waiting:
        name = waiting.pop()
        for match in _INCLUDE.finditer(files[name]):
            wanted = posixpath.join((match[4] or "").strip(), (match[3] or match[5] or "").strip())
            other = _resolve(wanted, (top, "", posixpath.dirname(name)), files)
            if other is not None and other not in found:
                found.add(other)
                waiting.append(other)
    return found


def main_parts(files: Mapping[str, str]) -> tuple[str, set[str]]:
    """The main file of a submission, and it with all that it includes, in comments too or by the name of a macro; `""` and
    none where no file has \\documentclass."""
    main = _main_file(files)
    if main is None:
        return "", set()
    parts = _parts(main, files)
    # Macros alone make merging find more; where the text grows without end, that is said once it is made.
    if any("\\" in (match[3] or "") + (match[4] or "") for name in parts for match in _INCLUDE.finditer(files[name])):
        with suppress(TexError):
            parts |= _merged(main, files)[1]
    return main, parts


def left_out(files: Mapping[str, str]) -> tuple[str, ...]:
    """The whole documents of a submission that are no part of its main one: supplements, letters, earlier versions. A file
    that holds a drawing alone is none, nor is a part that can also be set by itself (the class subfiles). Raises TexError."""
    main = _main_file(files)
    whole = {
        name
        for name, text in files.items()
        if r"\begin{document}" in text and _DOCUMENT.search(text) and not name.endswith(PACKAGES)
    }
    if main is None or not whole - {main}:
        return ()
    others = ((name, without_comments(files[name])) for name in sorted(whole - _merged(main, files)[1]))
    return tuple(
        name
        for name, text in others
        if r"\begin{document}" in text and _DOCUMENT.search(text) and not _NO_DOCUMENT.search(text)
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
        typed = kept[kept.index(mark) + 1 : -1]
        return _as_typed(re.sub(r"[\\{}$&#_~%]", lambda sign: _ESCAPES.get(sign[0], f"\\{sign[0]}"), typed))
    if kept.startswith("\\href"):
        return ""
    return kept if len(kept) == 2 else _as_typed(kept.replace("%", PER_CENT).replace("~", _ESCAPES["~"]))


def _as_typed(text: str) -> str:
    """Text of code and addresses, in which two hyphens are no dash and two quotes no quotation mark."""
    return _LIGATURE.sub(r"\1{}", text)


_LIGATURE = re.compile(r"([-`'])(?=\1)")
_TYPED = re.compile(r"\\texttt\s*+\{[^{}]{0,2000}\}")


_ESCAPES = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}


def _merged(main: str, files: Mapping[str, str]) -> tuple[str, set[str]]:
    """The text of a file and of all that it includes, and the names of those files."""
    size = 0
    unread, macros, names = list[str](), dict[str, str](), set[str]()

    def spelled(wanted: str) -> str:
        """A file's name without the macros that the text before stands for."""
        while "\\" in wanted and unread:
            definitions = _definitions(unread.pop(0))
            macros.update({name: macro[2].strip() for *_, name, macro in definitions if macro and not macro[0]})
        return _NAME_IN_NAME.sub(lambda match: macros.get(match[1], match[0]), wanted)

    def merge(name: str, above: tuple[str, ...], folder: str) -> str:
        nonlocal size
        names.add(name)
        text = without_comments(files[name])
        if len(above) > 1:
            text = _own_body(text)
        unread.append(text)
        size += len(text)
        if size > MAX_CHARS:
            raise TexError(f"included files grow to more than {MAX_CHARS} characters")

        def include(match: "re.Match[str]") -> str:
            wanted, inside = spelled((match[3] or match[5] or "").strip()), folder
            if match[4] is not None:
                # `\import` and `\subimport` name a folder first, in which all stands that their file includes.
                wanted, inside = (
                    spelled(match[4].strip()),
                    posixpath.join(folder if match[1] == "subimport" else top, wanted),
                )
            found = _resolve(wanted, (inside, top, "", posixpath.dirname(name)), files)
            if found in above:
                return ""
            if found is None or len(above) > 20:
                return "" if NO_TEXT.search(wanted) else f"\ue004{wanted}\ue005"
            return f"\n{merge(found, (*above, found), inside)}\n"

        return _INCLUDE.sub(include, text)

    top = posixpath.dirname(main)
    return merge(main, (main,), top), names


def _own_body(part: str) -> str:
    """Of a part that can also be set by itself, as with the package subfiles, what stands in its document: its end is not
    that of the paper. A part that shows a document as an example has text before it, or the example in a listing."""
    if not _DOCUMENT.search(part):
        return part
    pieces = _VERBATIM.split(part)
    for begin, end in _listed(pieces):
        pieces[begin + 1 : end] = [" " * len(piece) for piece in pieces[begin + 1 : end]]
    outside = "".join(pieces)
    document, start = _DOCUMENT.search(outside), outside.find(r"\begin{document}")
    if document is None or start < document.end() or r"\begin{" in outside[: document.start()]:
        return part
    start += len(r"\begin{document}")
    end = outside.find(r"\end{document}", start)
    return part[start : end if end >= 0 else None]


def _resolve(wanted: str, folders: Sequence[str], files: Mapping[str, str]) -> str | None:
    for base in folders:
        name = posixpath.normpath(posixpath.join(base, wanted))
        for option in (name, f"{name}.tex"):
            if option in files:
                return option
    return None


def _argument_of(command: str, text: str) -> str:
    match = re.search(rf"{re.escape(command)}\b\s*+(?:\[[^\]]{{0,300}}\])?\s*+(?=\{{)", text)
    end = closing(text, match.end()) if match else None
    return text[match.end() + 1 : end - 1] if match and end else ""


def _without_notes(title: str) -> str:
    pieces, position = list[str](), 0
    for match in _NOTE.finditer(title):
        end = closing(title, match.end()) if match.start() >= position else None
        if end is not None:
            pieces.append(title[position : match.start()])
            position = end
    return "".join(pieces) + title[position:]


Macro = tuple[int, str | None, str]
"""(arguments, what the first is where it is left out or None, body)."""


def _definitions(text: str) -> Iterator[tuple[int, int, int, str, Macro | None]]:
    """(start, start of the body, end, name, macro) of each definition that stands in none; no macro where its arguments
    are of a kind that is not resolved."""
    position, unclosed = 0, 0
    for match in _DEFINITION.finditer(text):
        if match.start() < position:
            continue
        end = closing(text, match.end())
        if end is None:
            unclosed += 1
            if unclosed > MAX_UNCLOSED:
                break
            continue
        body = text[match.end() + 1 : end - 1]
        if match[1]:
            yield match.start(), match.end(), end, match[1], (int(match[2] or 0), match[3], body)
        elif match[4]:
            yield match.start(), match.end(), end, match[4], (len(match[5]) // 2, None, body)
        elif match[7]:
            operator = rf"\operatorname{match[6]}{{{body}}}"
            yield match.start(), match.end(), end, match[7], (0, None, operator)
        else:
            plain = _PLAIN_ARGUMENTS.fullmatch("".join(match[9].replace("+", "").split()))
            macro = (len(plain[3]) + bool(plain[1]), (plain[2] or "") if plain[1] else None, body) if plain else None
            yield match.start(), match.end(), end, match[8], macro
        position = end


def _packaged(text: str, folder: str, files: Mapping[str, str], read: set[str]) -> dict[str, Macro]:
    """The macros that a text's packages and class define, as far as the submission has them as files, in the paper's folder
    or at the top, and which stand for words and are no programs."""
    macros: dict[str, Macro] = {}
    for match in _PACKAGE.finditer(text):
        for wanted in (f"{name.strip()}{suffix}" for name in match[1].split(",") for suffix in PACKAGES):
            file = _resolve(wanted, (folder, ""), files)
            if file is None or file in read:
                continue
            read.add(file)
            source = without_comments(files[file])
            macros |= _packaged(source, folder, files, read)
            for start, *_, defined, macro in _definitions(source):
                renews = source.startswith("\\renew", start)
                if macro is not None and not renews and not _PROGRAM.search(macro[2]) and not _known(defined):
                    macros[defined] = macro
    return macros


def _known(name: str) -> bool:
    """Whether what a command of this name says is read off itself, so that a package's way to print it is none of ours."""
    return name in _OWN or any(
        pattern.match(f"\\{name}{{}}") for pattern in (_HEADING, _CITE, _REFERENCE, _DROPPED, _INCLUDE)
    )


def _expanded(text: str, packaged: Mapping[str, Macro]) -> str:
    macros = dict(packaged)
    kept: list[str] = []
    position = 0
    for start, _, end, name, macro in _definitions(text):
        if macro is not None:
            macros[name] = macro
        kept += [text[position:start], apart(text[position:start], text[end : end + 1])]
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


def _expand_once(text: str, macros: Mapping[str, Macro]) -> tuple[str, int]:
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
            end = closing(text, at) if text[at : at + 1] == "{" else at + 1
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
            if len(body) + body.count(f"#{number}") * len(argument) > MAX_CHARS:
                raise TexError(f"macros grow beyond {MAX_CHARS} characters or {MAX_EXPANSIONS} expansions")
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


def _paragraphs(text: str, inline: Callable[[str], str], listings: Sequence[str], theorems: Collection[str]) -> str:
    text, formulas = _without_math(_without_floats(text), listings)
    text = without_arguments(_TYPED.sub(lambda match: _as_typed(match[0]), text))
    text = _with_headings(text)
    text = _CITE.sub(lambda match: f" [{', '.join(key.strip() for key in match[1].split(','))}]", text)
    # The group parts the key from a command before it: `\S\ref{sec:a}`.
    text = _REFERENCE.sub(lambda match: f"{{}}{match[1]}", text)
    text = _DROPPED.sub("", text)
    text = text.replace(r"\begin{abstract}", "\n\n\ue002## Abstract\n\n")
    text = _with_cells(text)
    text = _ENVIRONMENT.sub(lambda match: f"\n({match[2]}) " if match[2] and match[1] in theorems else "\n", text)
    text = re.sub(r"\\item\b\s*(?:\[([^\]]{0,300})\])?", lambda match: f"\n- {match[1] or ''}", text)
    text = _LINE_END.sub("\n", text)
    done = []
    for paragraph in re.split(r"\n[ \t]*\n\s*", text):
        plain = inline(paragraph) if _SPECIAL.search(paragraph) else paragraph
        plain = re.sub(r"[ \t]+", " ", plain).strip()
        if not plain:
            continue
        done.append(" ".join(plain.split()) if plain.startswith("\ue002") else plain)
    return _unmarked("\n\n".join(done), formulas).replace("\ue002", "").replace(PER_CENT, "%")


def _unmarked(text: str, marked: Sequence[str]) -> str:
    return re.sub(r"\ue000(\d+)\ue001", lambda match: marked[int(match[1])], text)


def _with_cells(text: str) -> str:
    """The sign between two cells of a table as a bar, and elsewhere as itself; each row of a table in a line."""
    parts = _TABLE.split(text)
    depth = 0
    for index, part in enumerate(parts):
        if index % 2:
            depth = max(0, depth + (1 if part.startswith("\\begin") else -1))
        else:
            part = _ROW_END.sub("\n", part) if depth else part
            parts[index] = _CELL_END.sub(r"\1 | " if depth else r"\1\\&", part)
    return "".join(parts)


def _with_headings(text: str) -> str:
    pieces: list[str] = []
    position, unclosed = 0, 0
    for match in _HEADING.finditer(text):
        if match.start() < position:
            continue
        end = closing(text, match.end())
        if end is None:
            unclosed += 1
            if unclosed > MAX_UNCLOSED:
                break
        else:
            pieces += [
                text[position : match.start()],
                f"\n\n\ue002{_LEVEL[match[1]]} {text[match.end() + 1 : end - 1]}\n\n",
            ]
            position = end
    return "".join(pieces) + text[position:]


def _without_listings(text: str) -> tuple[str, list[str]]:
    """The text with each listing as a mark, and the listings as they are written: nothing in them is TeX."""
    # The marks are characters of private use; a source has no business with them.
    parts = _VERBATIM.split(re.sub("[\ue000-\ue002]", "", text))
    pieces, listings, position = list[str](), list[str](), 0
    for begin, end in _listed(parts):
        listing = _VERBATIM_ARGUMENTS.sub("", "".join(parts[begin + 1 : end]), count=1)
        pieces += [*parts[position:begin], f"\n\n\ue000{len(listings)}\ue001\n\n"]
        listings.append(listing.rstrip())
        position = end + 1
    return "".join(pieces + parts[position:]), listings


def _listed(parts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where each listing begins and ends among the parts into which _VERBATIM splits a text, up to one without an end."""
    index = 1
    while index < len(parts):
        begin, end = parts[index], parts[index].replace("\\begin", "\\end")
        if begin == end:
            index += 2
        elif (close := next((at for at in range(index + 2, len(parts), 2) if parts[at] == end), None)) is None:
            break
        else:
            yield index, close
            index = close + 2


def _without_math(text: str, marked: Sequence[str]) -> tuple[str, list[str]]:
    """The text with each formula as a mark that no converter touches, and behind what is `marked` already the formulas as
    they are written."""
    formulas = [*marked]
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
                lines = (line.strip() for line in formula.split("\n"))
                formulas.append(_unmarked("\n".join(line for line in lines if line), formulas))
                position, opened = match.end(), ""
        elif match[1] is not None:
            opened, start = match[1], match.start()
        elif token in _CLOSING:
            opened, start = token, match.start()
    pieces.append(text[position:])
    return "".join(pieces), formulas


def _without_floats(text: str) -> str:
    """Figures become their captions, of panels too, a line each; bibliographies, drawings and data vanish."""
    pieces: list[str] = []
    position, inside, start = 0, "", 0
    for match in _FLOAT.finditer(text):
        if match[1] == "begin" and not inside:
            inside, start = match[2], match.end()
            pieces.append(text[position : match.start()])
        elif match[1] == "end" and match[2] == inside:
            if inside.endswith("figure"):
                captions = "\n".join(_captions(text[start : match.start()]))
                pieces.append(f"\n\nFigure: {captions}\n\n" if captions else "\n\n")
            position, inside = match.end(), ""
    if not inside:
        pieces.append(text[position:])
    return _CAPTION_OF.sub(lambda match: "\n\nFigure: " if match[1] else "\n\n", "".join(pieces))


def _captions(figure: str) -> Iterator[str]:
    position, unclosed = 0, 0
    for match in _CAPTION.finditer(figure):
        if match.start() < position:
            continue
        start = match.end()
        end = closing(figure, start) if figure[start] == "{" else _closing_bracket(figure, start)
        if end is not None and figure[start] == "[" and figure[end : end + 1] == "[":
            # `\subfloat[for the list of figures][under the panel]`
            start, end = end, _closing_bracket(figure, end)
        if end is None:
            unclosed += 1
            if unclosed > MAX_UNCLOSED:
                break
        else:
            if caption := figure[start + 1 : end - 1].strip():
                yield caption
            position = end


def _closing_bracket(text: str, opening: int) -> int | None:
    """The place behind the bracket that closes the one at `opening`: the next one that stands in no braces of its own."""
    depth = 0
    for match in _BRACKET.finditer(text, opening, opening + MAX_ARGUMENT):
        if match[0] == "]" and depth == 0:
            return match.end()
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth < 0:
            return None
    return None
