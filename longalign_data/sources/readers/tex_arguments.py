"""Arguments of TeX commands that are no words: widths, columns, colours, placements.

\\multicolumn{2}{c}{both}  ->  {both}        \\begin{minipage}[t]{3cm} text  ->  \\begin{minipage} text
"""

import re

MAX_ARGUMENT = 100_000
"""Characters of a macro's argument or of a caption."""

MAX_UNCLOSED = 20
"""Braces that nothing closes, after which no more are looked for: each costs a search through MAX_ARGUMENT characters."""

NO_WORDS = {
    # Tables
    "multicolumn": "{{",
    "multirow": "[{[{[",
    "multirowcell": "{[[",
    "makecell": "*[",
    "thead": "*[",
    "shortstack": "[",
    "diagbox": "[",
    "cline": "{",
    "cmidrule": "[({",
    "cdashline": "{[",
    "hdashline": "[",
    "specialrule": "{{{",
    "addlinespace": "[",
    "toprule": "[",
    "midrule": "[",
    "bottomrule": "[",
    "rowcolor": "[{[[",
    "cellcolor": "[{[[",
    "columncolor": "[{[[",
    "arrayrulecolor": "[{",
    "rowcolors": "*[{{{",
    # Boxes
    "parbox": "[[[{",
    "raisebox": "{[[",
    "resizebox": "*{{",
    "scalebox": "{[",
    "rotatebox": "[{",
    "adjustbox": "*{",
    "makebox": "([[",
    "framebox": "([[",
    "fcolorbox": "[{[{",
    "colorbox": "[{",
    "textcolor": "[{",
    "color": "[{",
    "rule": "[{{",
    "phantom": "{",
    "hphantom": "{",
    "vphantom": "{",
    # The head of a paper
    "title": "[{",
    "titlerunning": "[{",
    "author": "[{",
    "authorrunning": "[{",
    "date": "[{",
    "address": "[",
    "affil": "[",
    "affiliation": "[",
    "ead": "[{",
    "corref": "{",
    "fnref": "{",
    "tnoteref": "{",
    "cortext": "[{",
    "fntext": "[{",
    "tnotetext": "[{",
    "orcid": "{",
    "orcidlink": "{",
    "orcidicon": "{",
    "orcidID": "{",
    # Links and languages
    "href": "[{",
    "hyperref": "[",
    "hyperlink": "{",
    "hypertarget": "{",
    "foreignlanguage": "[{",
    "mintinline": "[{",
    "selectlanguage": "{",
    # Notes to the authors, and notes that stand elsewhere
    "todo": "[{",
    "missingfigure": "[{",
    "footnotemark": "[",
    "footnotetext": "[",
    # Entries of an index, and pictures and listings in files
    "index": "[{",
    "sindex": "[{",
    "glossary": "{",
    "pdfbookmark": "[{{",
    "addcontentsline": "{{{",
    "special": "{",
    "lstinputlisting": "[{",
    "verbatiminput": "*{",
    "VerbatimInput": "*[{",
    "inputminted": "[{{",
    "epsfbox": "[{",
    "epsfig": "{",
    "psfig": "{",
    # Definitions of abbreviations, and settings
    "newacronym": "[{{{",
    "newabbreviation": "[{{{",
    "newglossaryentry": "{{",
    "longnewglossaryentry": "{{{",
    "DeclareAcronym": "{{",
    "acrodef": "{[{",
    "hyphenation": "{",
    "DeclareUnicodeCharacter": "{{",
    "nocite": "{",
    "graphicspath": "{",
    "setlength": "{{",
    "addtolength": "{{",
    "setcounter": "{{",
    "addtocounter": "{{",
    "stepcounter": "{",
    "refstepcounter": "{",
    "newcounter": "{[",
    "newlength": "{",
    "settowidth": "{{",
    "numberwithin": "[{{",
    "newtheorem": "*{[{[",
    "theoremstyle": "{",
    "newcolumntype": "{[{",
    "definecolor": "[{{{",
    "colorlet": "[{[{",
    "captionsetup": "[{",
    "hypersetup": "{",
    "lstset": "{",
    "sisetup": "{",
    "tikzset": "{",
    "pgfplotsset": "{",
    "tcbset": "{",
    "setlist": "[{",
    "crefname": "{{{",
    "Crefname": "{{{",
    "fontsize": "{{",
    "fontfamily": "{",
    "fontseries": "{",
    "fontshape": "{",
    "linespread": "{",
    "setstretch": "{",
    "pagenumbering": "{",
    "enlargethispage": "*{",
    "needspace": "*{",
    "linebreak": "[",
    "pagebreak": "[",
    "nolinebreak": "[",
    "nopagebreak": "[",
    "vskip": "d",
    "hskip": "d",
    "kern": "d",
    # Environments
    "begin{CJK}": "{{",
    "begin{CJK*}": "{{",
    "begin{tabular}": "[{",
    "begin{tabular*}": "{[{",
    "begin{tabularx}": "{[{",
    "begin{tabulary}": "{{",
    "begin{longtable}": "[{",
    "begin{supertabular}": "{",
    "begin{xltabular}": "[{{",
    "begin{tblr}": "[{",
    "begin{array}": "[{",
    "begin{table}": "[",
    "begin{table*}": "[",
    "begin{subtable}": "[[[{",
    "begin{subfigure}": "[[[{",
    "begin{wraptable}": "[{[{",
    "begin{minipage}": "[[[{",
    "begin{multicols}": "{[[",
    "begin{multicols*}": "{[[",
    "begin{adjustbox}": "{",
    "begin{spacing}": "{",
    "begin{list}": "{{",
    "begin{otherlanguage}": "[{",
    "begin{otherlanguage*}": "[{",
}
"""The leading arguments of a command that are no words, in the letters of pylatexenc: `*` a star, `[` and `(` one that may
be left out, `{` one that may not, and `d` a length without braces. What stands behind them is text."""

_COMMAND = re.compile(rf"\\({'|'.join(map(re.escape, sorted(NO_WORDS, reverse=True)))})(?![A-Za-z])")
_COMMAND_AT_END = re.compile(r"\\[A-Za-z]+\Z")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BLANK = re.compile(r"[ \t]*(?:\n(?![ \t]*\n)[ \t]*)?")
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[^\s\\{}]")
_UNIT = r"\s*+(?:true\s*+)?(?:pt|pc|in|bp|cm|mm|dd|cc|sp|em|ex|mu)\b"
_STRETCH = r"(?:\s*+(?:plus|minus)\s*+-?[\d.]+\s*+(?:pt|pc|in|bp|cm|mm|em|ex|mu|fil+)\b)*"
_LENGTH = re.compile(rf"\s*+-?\s*+(?:[\d.]*+{_UNIT}|[\d.]*+\\[A-Za-z]+){_STRETCH}")
_LENGTHS = (
    "baselineskip|lineskip|lineskiplimit|normalbaselineskip|parindent|parskip|parfillskip|topskip|leftskip|rightskip|spaceskip|"
    "xspaceskip|tabskip|(?:above|below)display(?:short)?skip|(?:above|below)captionskip|(?:small|med|big)skipamount|hsize|vsize|"
    "hoffset|voffset|hangindent|emergencystretch|hfuzz|vfuzz|overfullrule|maxdepth|mathsurround|jot|textwidth|textheight|"
    "linewidth|columnwidth|columnsep|columnseprule|paperwidth|paperheight|topmargin|oddsidemargin|evensidemargin|headheight|"
    "headsep|footskip|footnotesep|marginparwidth|marginparsep|tabcolsep|arraycolsep|arrayrulewidth|doublerulesep|fboxsep|"
    "fboxrule|unitlength|itemsep|itemindent|parsep|topsep|partopsep|leftmargin|rightmargin|labelwidth|labelsep|listparindent|"
    "(?:dbl)?(?:text)?floatsep|intextsep|bibsep|bibindent|epsfxsize|epsfysize"
)
_NUMBERS = (
    "(?:pre)?tolerance|[hv]badness|(?:ex)?hyphenpenalty|(?:display)?widowpenalty|clubpenalty|brokenpenalty|relpenalty|"
    "binoppenalty|interlinepenalty|interfootnotelinepenalty|(?:pre|post)displaypenalty|looseness|hangafter|pageno|"
    "(?:left|right)hyphenmin"
)
_EQUALS = r"[ \t]*+(?:(?:\n[ \t]*+)?(?:=|by\b)|(?=[-.\d]))"
_USED = (
    rf"\\(?:[hmv]skip|m?kern|raise|lower|move(?:left|right)|the|{_LENGTHS})(?![A-Za-z])"
    rf"[ \t]*+(?:-[ \t]*+)?[\d.]*+\\(?:{_LENGTHS})(?![A-Za-z])"
)
_ASSIGNED = re.compile(
    rf"({_USED})|\\(?:(?:{_LENGTHS})(?![A-Za-z])(?:{_EQUALS}\s*+-?\s*+[\d.]++{_UNIT}{_STRETCH}"
    r"|[ \t]*+(?:=|by\b)\s*+-?[\d.]*+\\[A-Za-z]+)"
    rf"|(?:{_NUMBERS})(?![A-Za-z]){_EQUALS}\s*+-?\d++)"
)
"""A length or number of TeX's own that is set without braces; without a sign of equality where a number follows at once, on
the same line. In the first group a length that another command uses, behind which a number is text."""

_ALONE = re.compile(
    r"(?<=[^\s])[ \t]*+\n[ \t]*+(?:\\(?:label|index|sindex|glossary|nocite|orcid)"
    r"(?:\[[^\]]{0,100}\])?\{(?:[^{}]|\{[^{}]{0,300}\}){0,300}+\}[ \t]*+)++(?=\n)"
)
"""A line of commands that leave no trace in the text, which is no end of its paragraph."""

_OPTIONAL = {"[": re.compile(r"\[[^\]]{0,500}\]"), "(": re.compile(r"\([^)]{0,100}\)"), "*": re.compile(r"\*")}


def closing(text: str, opening: int) -> int | None:
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


def apart(before: str, after: str) -> str:
    """What must stand between the two, so that a command at the end of the one does not take letters of the other."""
    return " " if after[:1].isalpha() and _COMMAND_AT_END.search(before[-60:]) else ""


def without_arguments(text: str) -> str:
    """TeX without the commands of NO_WORDS and their arguments; environments keep their `\\begin`."""
    text = _ASSIGNED.sub(lambda match: match[1] or "", _ALONE.sub("", text))
    pieces: list[str] = []
    position, unclosed = 0, 0
    for match in _COMMAND.finditer(text):
        if match.start() < position:
            continue
        kept = match.end() if match[1].startswith("begin") else match.start()
        end = _behind(text, match.end(), NO_WORDS[match[1]])
        if end is None:
            unclosed += 1
            if unclosed > MAX_UNCLOSED:
                break
            continue
        pieces.append(text[position:kept])
        position = end
    return "".join(pieces) + text[position:]


def _behind(text: str, at: int, arguments: str) -> int | None:
    """The place behind the arguments that stand at `at`; None when one of them is never closed."""
    for sign in arguments:
        if sign == "d":
            length = _LENGTH.match(text, at)
            return length.end() if length else at
        blank = _BLANK.match(text, at)
        start = blank.end() if blank else at
        if sign == "{" and text[start : start + 1] == "{":
            end = closing(text, start)
            if end is None:
                return None
            at = end
        else:
            found = (_TOKEN if sign == "{" else _OPTIONAL[sign]).match(text, start)
            at = found.end() if found else at
    return at
