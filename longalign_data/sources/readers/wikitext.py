"""Wikitext as text for a reader: headings, lists and tables keep a plain form, markup and furniture go.

    '''Anarchism''' is a [[political philosophy]].<ref>x</ref>   ->   Anarchism is a political philosophy.
    == History ==                                                ->   ## History
    {| ... | 1 || 2 |}                                           ->   1 | 2

Templates are programs that only a wiki can run: the few that stand for their own argument are kept, all others are left
out. Nothing is expanded.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

DROPPED_TAGS = frozenset(
    (
        "ref",
        "references",
        "gallery",
        "timeline",
        "score",
        "imagemap",
        "style",
        "script",
        "hr",
        "graph",
        "mapframe",
        "maplink",
        "templatestyles",
        "indicator",
        "section",
        "categorytree",
        "inputbox",
    )
)
BLOCK_TAGS = frozenset(
    ("p", "div", "blockquote", "center", "pre", "syntaxhighlight", "source", "poem", "dl", "ul", "ol")
)
FURNITURE = frozenset(
    (
        "file",
        "image",
        "category",
        "media",
        "文件",
        "檔案",
        "档案",
        "图像",
        "圖像",
        "分类",
        "分類",
        "媒体",
    )
)
PROJECTS = frozenset(("wikt", "wiktionary", "commons", "s", "wikisource", "d", "species"))
INTERWIKI = re.compile(r"^[a-z]{2,3}(-[a-z-]+)?$|^simple$")
_CODES = (
    "aa ab af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es et "
    "eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk "
    "kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lv mg mh mi mk ml mn mr ms mt my na nb ne ng nl nn no nr nv ny oc om "
    "or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg sh si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn "
    "to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu"
)
LANGUAGES = frozenset(_CODES.split())
"""Codes of two letters of wikis, which no title begins with in capitals either: [[Fr:Jamais]] is French, [[Re:Zero]] a title."""

FIRST_ARGUMENT = frozenset(
    (
        "nowrap",
        "nobold",
        "small",
        "smaller",
        "big",
        "larger",
        "var",
        "mvar",
        "math",
        "em",
        "strong",
        "abbr",
        "code",
        "mono",
        "sc",
        "smallcaps",
        "angbr",
        "unicode",
        "script",
        "noitalic",
        "lang-en",
        "le",
        "nobr",
        "kbd",
        "tt",
        "samp",
        "chem2",
        "internal link helper",
        "ill",
        "interlanguage link",
        "as of",
        "sic",
        "flag",
        "flagu",
        "flagcountry",
        "nihongo",
        "internal link helper/en",
        "date",
        "tooltip",
        "vanchor",
        "visible anchor",
        "nts",
        "ruby",
        "sort",
        "overline",
        "railgauge",
        "track gauge",
        "columns-list",
        "center",
    )
)
QUOTES = frozenset(
    (
        "quote",
        "quotation",
        "cquote",
        "blockquote",
        "block quote",
        "block indent",
        "bq",
        "quote box",
        "rquote",
        "pull quote",
        "poemquote",
        "poem quote",
    )
)
LISTS = frozenset(
    ("plainlist", "plain list", "flatlist", "hlist", "unbulleted list", "ubl", "ubil", "bulleted list", "ordered list")
)
SECOND_ARGUMENT = frozenset(
    ("lang", "langx", "transl", "transliteration", "color", "colour", "rtl-lang", "sort", "columns-list")
)
SIGNS = {
    "nbsp": " ",
    "spaces": " ",
    "ndash": "–",
    "mdash": "—",
    "snd": " – ",
    "spnd": " – ",
    "spaced ndash": " – ",
    "en dash": "–",
    "em dash": "—",
    "spaced en dash": " – ",
    "!": "|",
    "=": "=",
    "'": "'",
    "'s": "'s",
    "-'": "'",
    "'\"": "'\"",
    "·": " · ",
    "•": " • ",
    "pi": "π",
    "times": "×",
    "minus": "−",
    "half": "1/2",
}
ACCIDENTALS = {"flat": "♭", "b": "♭", "sharp": "♯", "#": "♯", "natural": "♮"}
"""Signs of `{{music}}`."""

DATES = frozenset(
    ("dts", "birth date", "birth date and age", "death date", "death date and age", "start date", "end date")
)
SAYS = {"yes": "Yes", "no": "No", "won": "Won", "nom": "Nominated", "n/a": "N/A"}
"""Templates of a table's cells, and what they say where they are given nothing."""

JOINED = {
    "gaps": "",
    "linktext": "",
    "keypress": "+",
    "key press": "+",
    "simplenuclide": "-",
    "simplenuclide2": "-",
}
"""Templates that show their arguments one behind the other, and what stands between them."""

BEFORE = {
    "sub": "_",
    "sup": "^",
    "e": "×10^",
    "10^": "10^",
    "us$": "US$",
    "usd": "US$",
    "¥": "¥",
    "€": "€",
    "£": "£",
    "gbp": "£",
    "inr": "₹",
    "uss": "USS ",
    "hms": "HMS ",
    "rms": "RMS ",
    "ss": "SS ",
    "sqrt": "√",
}
"""Templates that put something before their first argument."""

RANGES = {
    "-": "–",
    "–": "–",
    "to": " to ",
    "to(-)": " to ",
    "to(–)": " to ",
    "to about": " to about ",
    "and": " and ",
    "&": " and ",
    "and(-)": " and ",
    "and(–)": " and ",
    ", and": ", and ",
    "or": " or ",
    "or(-)": " or ",
    "or(–)": " or ",
    ", or": ", or ",
    ",": ", ",
    "by": " by ",
    "by(x)": " by ",
    "x": " by ",
    "xx": " × ",
    "×": " × ",
    "(x)": " × ",
    "*": " × ",
    "+": " + ",
    "+/-": " ± ",
    "±": " ± ",
}
"""What `{{convert}}` takes between two numbers of one unit, as it shows them."""

PARTS = {
    "mi": ("yd", "ch", "ft"),
    "yd": ("ft",),
    "ft": ("in",),
    "foot": ("in",),
    "st": ("lb",),
    "lb": ("oz",),
}
"""Units of which `{{convert}}` takes a number of a smaller one behind: 6 ft 4 in."""

DISAMBIGUATION = re.compile(
    # Of those with the word in their name only the marks of a single link stand in articles.
    r"\{\{(?:[^{}|]{0,60}\bdisambig(?:uation)?\b(?!\s+need)[^{}|]{0,60}|"
    r"\s*(?:dab|disamb|hndis|geodis|schooldis|roaddis|mathdab|numberdis|callsigndis|mil-unit-dis)\s*|"
    r"\s*(?:消歧义|消歧義|消歧义页|消歧義頁|人名消歧义|人名消歧義|地名消歧义|地名消歧義)\s*)(?:\||\}\})",
    re.IGNORECASE,
)
CHARGE = re.compile(r"\d*[+−–-]")
NUMBERS = tuple(map(str, range(1, 13)))
"""Names of the arguments that are written without one, as far as any template here asks for them."""

DISAMBIGUATION_TITLE = re.compile(r"\((?:disambiguation|消歧义|消歧義)\)$")
VARIANT = re.compile(r"-\{(?!\{)((?:(?!-\{|\}-).)*)\}-", re.DOTALL)
FALLBACK = {
    "zh-cn": ("zh-cn", "zh-hans", "zh-sg", "zh-my", "zh"),
    "zh-sg": ("zh-sg", "zh-my", "zh-hans", "zh-cn", "zh"),
    "zh-tw": ("zh-tw", "zh-hant", "zh-hk", "zh-mo", "zh"),
    "zh-hk": ("zh-hk", "zh-mo", "zh-hant", "zh-tw", "zh"),
}


MAX_REREAD = 5_000_000
"""Characters of a page that the parser may read again: it reads on to the end for each thing that nothing closes, half a
million characters a second or more. Of 206 real pages the worst has it read 161,996 again."""

MAX_LIST_DEPTH = 20
"""List signs at the beginning of a line; more are dropped, as the parser's time grows with the square of their number."""

_MARK = re.compile(
    r"\{\{|\}\}|\[\[|\]\]?|\{\||\|\}(?!\}(?!\}))|\[(?=[a-z]{0,9}:?//)|<!--|-->|<(/?)([a-z]+)([^<>]*)", re.IGNORECASE
)
_DEEP_LIST = re.compile(rf"^([*#:;]{{{MAX_LIST_DEPTH}}})[*#:;]+", re.MULTILINE)
_CLOSES = {"}}": "{{", "]]": "[[", "|}": "{|", "]": "[", "-->": "<!--"}
_RAW = frozenset(
    ("<!--", "nowiki", "pre", "math", "syntaxhighlight", "source", "score", "timeline", "gallery", "chem", "ce")
)
_SINGLE = frozenset(("br", "wbr", "hr", "meta", "link", "img", "li", "dt", "dd", "th", "td", "tr"))


class WikitextError(Exception):
    """A page that the parser would not be done with."""


def is_disambiguation(title: str, wikitext: str) -> bool:
    """Whether a page lists the meanings of its title instead of being about one."""
    return bool(DISAMBIGUATION_TITLE.search(title) or DISAMBIGUATION.search(wikitext))


def choose_variant(wikitext: str, variant: str) -> str:
    """Chinese text with each `-{...}-` marker replaced by the form for `variant`; hidden rules and titles vanish."""

    def chosen(match: "re.Match[str]") -> str:
        body = match[1]
        flags, bar, rest = body.partition("|")
        if bar and re.fullmatch(r"[A-Za-z;\- ]{0,20}", flags):
            if set(flags.upper().replace(" ", "").split(";")) & {"H", "T", "-", "D"}:
                return ""
            body = rest
        forms = {}
        for part in body.split(";"):
            name, colon, value = part.partition(":")
            if colon and name.strip().lower().startswith("zh"):
                forms[name.strip().lower()] = value.strip()
        if not forms:
            return body
        return next((forms[name] for name in FALLBACK[variant] if name in forms), next(iter(forms.values())))

    for _ in range(4):
        # Markers may stand in one another; the inner ones are replaced first.
        wikitext, count = VARIANT.subn(chosen, wikitext)
        if not count:
            break
    return wikitext


def plain_text(wikitext: str, parse: Callable[[str], Any]) -> str:
    """The text of a page; `parse` is `mwparserfromhell.parse`. Raises WikitextError."""
    wikitext = _DEEP_LIST.sub(r"\1", without_references(wikitext.replace(_CODE_BRACKET, "")))
    unclosed = _unclosed(wikitext, _RAW)
    if unclosed * len(wikitext) > MAX_REREAD:
        what = f"{unclosed} templates, links, tables or tags that nothing closes, in {len(wikitext)} characters"
        raise WikitextError(f"{what}; expected at most {MAX_REREAD // len(wikitext)} in a page of that length")
    pieces: list[str] = []
    _render(parse(wikitext).nodes, pieces, 0)
    text = "".join(pieces)
    text = re.sub(r"__[A-Z]{4,}__|(?<![ \t])[ \t]++(?=\n)|\u200b", "", text)
    text = re.sub(r"^( *)- +", r"\1- ", _without_broken_tables(text), flags=re.MULTILINE)
    # What a dropped template leaves behind: "( ; )", "(, born 1900)"; but `malloc()` is a name.
    text = re.sub(r"(?: |(?<![A-Za-z0-9_]))\([\s,;:，；：、]*[)）]|[ ]?（[\s,;:，；：、]*[)）]", "", text)
    text = re.sub(r"([(（])[\s,;，；]+", r"\1", text)
    text = re.sub(r"\n{3,}", "\n\n", text)
    return _without_empty_sections(text).strip().replace(_CODE_BRACKET, "(")


_CODE_BRACKET = "\uffff"
"""No character (Unicode, 23.7) for a bracket in code, behind which nothing was dropped. Those of private use stand in pages."""


def _as_code(text: str) -> str:
    return text.replace("(", _CODE_BRACKET)


REFERENCE = re.compile(r"(<ref\b[^<>]*>|</ref\s*>)", re.IGNORECASE)


def without_references(wikitext: str) -> str:
    """The page without its footnotes. Half of the markup of an article stands in them, and the parser would build every
    node of it only to be thrown away. A footnote that is not closed stays for the parser to judge."""
    parts = REFERENCE.split(wikitext)
    kept = [parts[0]]
    opening = -1
    for index in range(1, len(parts), 2):
        tag, text = parts[index], parts[index + 1]
        if tag.startswith("</"):
            kept.append(text if opening >= 0 else tag + text)
            opening = -1
        elif opening >= 0:
            # A footnote in a footnote: the outer one was never closed.
            kept += parts[opening:index] if not tag.endswith("/>") else ()
            opening = index if not tag.endswith("/>") else opening
        elif tag.endswith("/>"):
            kept.append(text)
        else:
            opening = index
    if opening >= 0:
        kept += parts[opening:]
    return "".join(kept)


def _unclosed(wikitext: str, raw: frozenset[str]) -> int:
    """How many templates, links, tables, comments and tags nothing closes."""
    opened = Counter[str]()
    inside = ""
    for match in _MARK.finditer(wikitext):
        mark = (match[2] or match[0]).lower()
        closes = mark if match[1] else _CLOSES.get(mark)
        if inside:
            # What stands in a comment or in a program is no markup.
            inside = "" if closes == inside else inside
        elif closes:
            opened[closes] -= opened[closes] > 0
        elif mark in raw and not (match[3] or "").endswith("/"):
            inside = mark
        elif match[2] is None or (mark not in _SINGLE and not match[3].endswith("/")):
            opened[mark] += 1
    # A comment that does not end hides nothing.
    return _unclosed(wikitext, frozenset()) if inside else opened.total()


def _render(nodes: Sequence[Any], pieces: list[str], depth: int) -> None:
    for node in nodes:
        kind = type(node).__name__
        if kind == "Text":
            pieces.append(str(node.value))
        elif kind == "Heading":
            title = _inside(node.title, depth).strip()
            pieces.append(f"\n{'#' * node.level} {title}\n" if title else "\n")
        elif kind == "Wikilink":
            pieces.append(_link(node, depth))
        elif kind == "ExternalLink":
            if node.title is not None:
                pieces.append(_inside(node.title, depth))
            elif not node.brackets:
                pieces.append(str(node.url))
        elif kind == "Template":
            pieces.append(_template(node, depth))
        elif kind == "HTMLEntity":
            try:
                pieces.append(node.normalize().replace("\xa0", " ").replace(_CODE_BRACKET, ""))
            except (ValueError, OverflowError):
                pieces.append(str(node))
        elif kind == "Tag":
            _tag(node, pieces, depth)
        # Arguments ({{{1}}}) and comments are left out.


def _inside(code: Any, depth: int) -> str:
    if code is None or depth > 30:
        return ""
    pieces: list[str] = []
    _render(code.nodes, pieces, depth + 1)
    return "".join(pieces)


def _tag(node: Any, pieces: list[str], depth: int) -> None:
    name = str(node.tag).strip().lower()
    if name in DROPPED_TAGS:
        return
    if name in ("li", "dt", "dd") and node.wiki_markup:
        indent = "" if not pieces or not pieces[-1].endswith(("- ", "  ")) else pieces.pop().replace("- ", "  ")
        if name == "dd" and not indent and pieces and not pieces[-1].endswith("\n"):
            pieces.append("\n")  # behind its term, in one line
        pieces.append(f"{indent}- " if name == "li" else f"{indent}  " if name == "dd" else "")
    elif name == "br":
        pieces.append("\n")
    elif name == "table":
        pieces.append(f"\n{_table(node, depth)}\n")
    elif name in ("chem", "ce"):
        pieces.append(str(node.contents).strip())
    elif name == "math":
        pieces.append(f"${str(node.contents).strip()}$")
    elif name in ("nowiki", "code", "tt", "kbd", "samp"):
        pieces.append(_as_code(str(node.contents) if name == "nowiki" else _inside(node.contents, depth)))
    elif name in ("pre", "syntaxhighlight", "source"):
        pieces.append(f"\n{_as_code(str(node.contents).strip(chr(10)))}\n")
    elif name in BLOCK_TAGS:
        pieces.append(f"\n{_inside(node.contents, depth)}\n")
    elif name in ("sub", "sup"):
        pieces.append(f"{'_' if name == 'sub' else '^'}{_inside(node.contents, depth)}")
    else:
        pieces.append(_inside(node.contents, depth))


def _table(table: Any, depth: int) -> str:
    rows: list[list[str]] = [[]]
    for node in table.contents.nodes:
        name = str(node.tag).strip().lower() if type(node).__name__ == "Tag" else ""
        if name == "tr":
            rows.append(_cells(node, depth))
        elif name in ("td", "th"):
            if str(node).startswith("|+"):
                rows.insert(0, [])  # the caption, over the cells of a first row without a sign of its own
                rows[0].append(_cell(node, depth))
            else:
                rows[-1].append(_cell(node, depth))
    return "\n".join(" | ".join(row) for row in rows if any(row))


def _cells(row: Any, depth: int) -> list[str]:
    nodes = row.contents.nodes
    return [
        _cell(node, depth) for node in nodes if type(node).__name__ == "Tag" and str(node.tag).strip() in ("td", "th")
    ]


def _cell(node: Any, depth: int) -> str:
    # The caption of a table reaches here as a cell that begins with the "+" of "|+".
    words = " ".join(_inside(node.contents, depth).split())
    return words.removeprefix("+").lstrip() if str(node).startswith("|+") else words


def _link(node: Any, depth: int) -> str:
    title = str(node.title)
    prefix, colon, rest = title.partition(":")
    if title.startswith(":"):
        return _inside(node.text, depth) if node.text is not None else title[1:]
    space = prefix.strip().lower()
    # With no blank behind the colon, and in small letters or of a wiki, as [[CSI: Miami]] is not.
    language = space in LANGUAGES or INTERWIKI.match(prefix.strip())
    elsewhere = space in PROJECTS or (language and not rest.startswith(" "))
    if colon and (space in FURNITURE or (elsewhere and node.text is None)):
        return ""
    if node.text is not None:
        return _inside(node.text, depth) or rest or title
    return title.split("#")[0] or title


def _template(node: Any, depth: int) -> str:
    name = " ".join(str(node.name).replace("_", " ").split()).lower()
    if name in SIGNS:
        return SIGNS[name]
    if name.startswith("formatnum:"):
        return name.partition(":")[2]
    if name in QUOTES:
        quoted = next(
            (param.value for key in ("text", "quote", "1") for param in node.params if str(param.name).strip() == key),
            None,
        )
        return f"\n{_inside(quoted, depth).strip()}\n"
    if name in LISTS:
        items = (_inside(param.value, depth).strip() for param in node.params if str(param.name).strip().isdecimal())
        # A list of one argument is written in it, with signs of its own.
        return "".join(f"\n{item}" if item.startswith("- ") else f"\n- {item}" for item in items if item) + "\n"
    if name == "val":
        # Before the numbered arguments: each is rendered once, or templates in one another take time without end.
        return _measured({str(param.name).strip(): _inside(param.value, depth).strip() for param in node.params[:20]})
    if name in JOINED:
        given = {str(param.name).strip(): _inside(param.value, depth).strip() for param in node.params}
        text = JOINED[name].join(value for key, value in given.items() if value and key.isdecimal())
        return _measured(_of_gaps(text, given)) if name == "gaps" else text
    # An argument that holds an equals sign is written with its number: {{nowrap|1=a = b}}.
    numbered = (param for param in node.params[:20] if str(param.name).strip() in NUMBERS)
    values = [_inside(param.value, depth).strip() for param in numbered]
    if name in ("convert", "cvt") and len(values) >= 2:
        return _converted(values)
    if name in SECOND_ARGUMENT and len(values) >= 2:
        return values[-1] if not name.startswith("lang") else values[1]
    if name in ("tsl", "translink") and len(values) >= 2:
        return values[2] if len(values) > 2 and values[2] else values[1]  # language, name there, name here
    if name == "ship" and len(values) >= 2:
        return f"{values[0]} {values[1]}"
    if name in ("sclass", "sclass2") and len(values) >= 2:
        return f"{values[0]}-class {values[1]}"
    if name == "numblk" and len(values) >= 2:
        return f"\n{values[1]}\n"  # indent, formula, its number
    if name == "tmath" and values:
        return f"${values[0]}$"
    if name == "music" and values:
        return "/".join(values[1:3]) if values[0] == "time" else ACCIDENTALS.get(values[0], "")
    if name == "chem":
        return "".join(f"^{value}" if at and CHARGE.fullmatch(value) else value for at, value in enumerate(values))
    if name == "sortname":
        return " ".join(values[:2])
    if name in DATES:
        return ("-" if all(map(str.isdecimal, values)) else " ").join(f"{value:0>2}" for value in values[:3])
    if name in SAYS:
        return values[0] if values and values[0] else SAYS[name]
    if name in BEFORE and values:
        return f"{BEFORE[name]}{values[0]}"
    if (name in FIRST_ARGUMENT or name.startswith(("lang-", "link-"))) and values:
        return values[0]
    if name in ("frac", "sfrac") and values:
        if len(values) == 1:
            return f"1/{values[0]}"
        whole = f"{values[0]} " if len(values) > 2 else ""
        return f"{whole}{'/'.join(values[-2:])}"
    if name in ("circa", "c.") and values:
        return f"c. {values[0]}"
    return ""


def _converted(values: Sequence[str]) -> str:
    """What `{{convert}}` is given, a range or a number of a unit and its parts, without what it is converted to."""
    text, at = values[0], 1
    while values[at] in RANGES and at + 2 < len(values):
        text += f"{RANGES[values[at]]}{values[at + 1]}"
        at += 2
    text += f" {values[at]}"
    while at + 2 < len(values) and values[at + 1][:1].isdigit() and values[at + 2] in PARTS.get(values[at], ()):
        text += f" {values[at + 1]} {values[at + 2]}"
        at += 2
    return text


def _of_gaps(number: str, given: dict[str, str]) -> dict[str, str]:
    """The arguments of `{{gaps}}` as those of `{{val}}`."""
    side = f"{given['lhs']} = " if given.get("lhs") else ""
    return {"1": number, "p": side} | {key: given[key] for key in ("e", "base", "u") if key in given}


def _measured(given: dict[str, str]) -> str:
    """A number as `{{val}}` shows it: prefix, number, uncertainties, power of ten, suffix, unit and what it is per."""
    number, first, second = (given.get(key, "") for key in "123")
    if first:
        number += f"+{first}−{second.removeprefix('-')}" if second else f"±{first}"
    if exponent := given.get("e"):
        power = f"{given.get('base') or 10}^{exponent}"
        number = f"({number})×{power}" if first else f"{number}×{power}" if number else power
    unit, per = given.get("u") or given.get("ul") or "", given.get("up") or given.get("upl")
    unit = f"{unit}/{per}" if per else unit
    return f"{given.get('p', '')}{number}{given.get('s', '')}" + (f" {unit}" if unit else "")


def _without_broken_tables(text: str) -> str:
    """Tables whose markup is too broken for the parser stay in its text as they were typed: their cells are kept."""
    if "{|" not in text:
        return text
    lines, inside = [], False
    for line in text.split("\n"):
        start = line.lstrip(" :*")
        if start.startswith("{|"):
            inside = True
        elif inside and start.startswith("|}"):
            inside = False
        elif inside and start.startswith(("|-", "|+")):
            continue
        elif inside and start.startswith(("|", "!")):
            cells = (cell.rpartition("|")[2].strip() for cell in re.split(r"\|\||!!", start[1:]))
            lines.append(" | ".join(cells))
        else:
            lines.append(line)
    return "\n".join(lines)


def _without_empty_sections(text: str) -> str:
    """Sections that held only references, links or templates: a heading before another of its rank, or at the end."""
    parts = re.split(r"^(#{1,6} .+)$", text, flags=re.MULTILINE)
    kept: list[str] = []
    following = 0
    for index in range(len(parts) - 2, 0, -2):
        heading, body = parts[index], parts[index + 1]
        level = len(heading) - len(heading.lstrip("#"))
        if body.strip() or following > level:
            kept += [body, heading]
            following = level
    return parts[0] + "".join(reversed(kept))
