"""What a command of TeX says in a text, where the tables of pylatexenc have no word for it and would drop it, with what
stands in its braces.

    \\texttt{train.py}, p \\textless 0.05, \\SI{5}{\\kilo\\metre} in \\LaTeX   ->   train.py, p <0.05, 5 km in LaTeX
"""

from collections.abc import Callable
from typing import Any

WORDS = {
    "texttt": ("{", "%(1)s"),
    "textsf": ("{", "%(1)s"),
    "textmd": ("{", "%(1)s"),
    "textup": ("{", "%(1)s"),
    "mbox": ("{", "%(1)s"),
    "mathbf": ("{", "%(1)s"),
    "mathit": ("{", "%(1)s"),
    "mathsf": ("{", "%(1)s"),
    "mathtt": ("{", "%(1)s"),
    "keywords": ("{", "%(1)s"),
    "citetext": ("{", "(%(1)s)"),
    "xleftarrow": ("[{", "%(2)s"),
    "xrightarrow": ("[{", "%(2)s"),
    "textsuperscript": ("{", "^%(1)s"),
    "textsubscript": ("{", "_%(1)s"),
    # Numbers and units of the package siunitx
    "num": ("[{", "%(2)s"),
    "ang": ("[{", "%(2)s°"),
    "si": ("[{", "%(2)s"),
    "unit": ("[{", "%(2)s"),
    "SI": ("[{[{", "%(2)s %(4)s"),
    "qty": ("[{{", "%(2)s %(3)s"),
    "numrange": ("[{{", "%(2)s–%(3)s"),
    "SIrange": ("[{{{", "%(2)s–%(3)s %(4)s"),
    "qtyrange": ("[{{{", "%(2)s–%(3)s %(4)s"),
    # What the packages algpseudocode, algorithmic and algorithm2e print around their arguments
    "If": ("{", "if %(1)s then"),
    "ElsIf": ("{", "else if %(1)s then"),
    "For": ("{", "for %(1)s do"),
    "ForAll": ("{", "for all %(1)s do"),
    "While": ("{", "while %(1)s do"),
    "Until": ("{", "until %(1)s"),
    "Function": ("{{", "function %(1)s(%(2)s)"),
    "Procedure": ("{{", "procedure %(1)s(%(2)s)"),
    "Call": ("{{", "%(1)s(%(2)s)"),
    "Comment": ("{", "// %(1)s"),
    "IF": ("{", "if %(1)s then"),
    "ELSIF": ("{", "else if %(1)s then"),
    "FOR": ("{", "for %(1)s do"),
    "FORALL": ("{", "for all %(1)s do"),
    "WHILE": ("{", "while %(1)s do"),
    "UNTIL": ("{", "until %(1)s"),
    "COMMENT": ("{", "// %(1)s"),
    "KwIn": ("{", "Input: %(1)s"),
    "KwOut": ("{", "Output: %(1)s"),
    "KwData": ("{", "Data: %(1)s"),
    "KwResult": ("{", "Result: %(1)s"),
    "KwRet": ("{", "return %(1)s"),
}
"""A command's arguments, in the letters of `tex_arguments.NO_WORDS`, and what it says, with the n-th of them as `%(n)s`."""

SIGNS = {
    # Characters that have a meaning for TeX
    "textless": "<", "textgreater": ">", "textbar": "|", "textunderscore": "_", "textbraceleft": "{", "textbraceright": "}",
    "textpercent": "%", "textampersand": "&", "textquotedbl": '"', "slash": "/", "lbrack": "[", "rbrack": "]",
    # Marks and letters
    "S": "§", "P": "¶", "copyright": "©", "pounds": "£", "euro": "€", "EUR": "€", "ddag": "‡", "ddagger": "‡",
    "degree": "°", "textcelsius": "°C", "checkmark": "✓", "cmark": "✓", "xmark": "✗", "Box": "□", "square": "□",
    "bigstar": "★", "heartsuit": "♡", "male": "♂", "female": "♀", "lq": "‘", "rq": "’", "flqq": "«", "frqq": "»",
    "guillemetleft": "«", "guillemetright": "»", "glqq": "„", "grqq": "“", "glq": "‚", "grq": "‘", "flq": "‹", "frq": "›",
    "SS": "SS", "nobreakspace": " ", "space": " ", "textdblhyphen": "-", "perthousand": "‰", "permil": "‰",
    "and": ", ",
    # Units of siunitx
    "metre": "m", "meter": "m", "gram": "g", "second": "s", "ampere": "A", "kelvin": "K", "mole": "mol", "hertz": "Hz",
    "newton": "N", "pascal": "Pa", "joule": "J", "watt": "W", "volt": "V", "ohm": "Ω", "farad": "F", "tesla": "T",
    "henry": "H", "celsius": "°C", "degreeCelsius": "°C", "litre": "l", "liter": "l", "tonne": "t", "minute": "min", "hour": "h",
    "electronvolt": "eV", "decibel": "dB", "byte": "B", "bit": "bit", "percent": "%", "arcminute": "′", "arcsecond": "″",
    "kilo": "k", "mega": "M", "giga": "G", "tera": "T", "peta": "P", "centi": "c", "milli": "m", "micro": "µ", "nano": "n",
    "pico": "p", "femto": "f", "deci": "d", "hecto": "h", "kibi": "Ki", "mebi": "Mi", "gibi": "Gi", "per": "/",
    "squared": "^2", "cubed": "^3", "km": "km", "cm": "cm", "mm": "mm", "kg": "kg", "ms": "ms", "GHz": "GHz", "MHz": "MHz",
    # What says nothing: where a word may be broken, and a date that is none of the text's
    "-": "", "today": "",
}  # fmt: skip
"""What a command without arguments says."""

NAMES = {
    "TeX": "TeX", "LaTeX": "LaTeX", "LaTeXe": "LaTeX2e", "BibTeX": "BibTeX", "XeLaTeX": "XeLaTeX", "LuaLaTeX": "LuaLaTeX",
    "pdfLaTeX": "pdfLaTeX", "AmS": "AMS", "AMS": "AMS",
    # What the classes of conferences define
    "ie": "i.e.", "Ie": "I.e.", "eg": "e.g.", "Eg": "E.g.", "etal": "et al.", "etc": "etc.", "cf": "cf.", "wrt": "w.r.t.",
    "vs": "vs.", "aka": "a.k.a.", "onedot": ".", "xspace": "",
    # What the packages for algorithms print
    "Require": "Require:", "Ensure": "Ensure:", "Return": "return", "Else": "else", "Repeat": "repeat", "Loop": "loop",
    "EndIf": "end if", "EndFor": "end for", "EndWhile": "end while", "EndFunction": "end function",
    "EndProcedure": "end procedure", "EndLoop": "end loop", "REQUIRE": "Require:", "ENSURE": "Ensure:", "RETURN": "return",
    "ELSE": "else", "REPEAT": "repeat", "ENDIF": "end if", "ENDFOR": "end for", "ENDWHILE": "end while", "PRINT": "print",
}  # fmt: skip
"""What a command without arguments says, with the blank behind it, which TeX takes for the end of the command."""

_UNKNOWN = ["latex-ethuebung"]
"""The category of pylatexenc that makes settings of the commands of one class for exercise sheets; elsewhere the same names
stand around words."""


def converter(module: Any) -> Callable[[str], str]:
    """What turns TeX into text by these tables; `module` is `pylatexenc.latex2text`. The function may raise RecursionError,
    and errors of lookup, type and value for what nothing closes."""
    macros, walker = module.macrospec, module.latexwalker
    reading = walker.get_default_latex_context_db().filter_context(exclude_categories=_UNKNOWN)
    reading.add_context_category(
        "words",
        prepend=True,
        macros=[
            *(macros.MacroSpec(name, arguments) for name, (arguments, _) in WORDS.items()),
            *(macros.MacroSpec(name, "") for name in (*SIGNS, *NAMES)),
            macros.MacroSpec("ding", "{"),
        ],
    )
    saying = module.get_default_latex_context_db().filter_context(exclude_categories=_UNKNOWN)
    saying.add_context_category(
        "words",
        prepend=True,
        macros=[
            *(module.MacroTextSpec(name, text) for name, (_, text) in WORDS.items()),
            *(module.MacroTextSpec(name, lambda _, text=text: text) for name, text in SIGNS.items()),
            *(
                module.MacroTextSpec(name, lambda node, text=text: text + node.macro_post_space)
                for name, text in NAMES.items()
            ),
            module.MacroTextSpec("ding", lambda node, l2tobj: _dingbat(l2tobj.node_arg_to_text(node, 0))),
        ],
        specials=[module.SpecialsTextSpec("~", " ")],
    )
    texts = module.LatexNodes2Text(latex_context=saying, math_mode="verbatim", strict_latex_spaces=False)

    def convert(source: str) -> str:
        text: str = texts.latex_to_text(source, latex_context=reading, tolerant_parsing=True)
        return text

    return convert


def _dingbat(number: str) -> str:
    """A sign of the font Zapf Dingbats, where Unicode has it at the same distance from the font's first."""
    return chr(0x2700 + int(number) - 32) if number.isdecimal() and 33 <= int(number) <= 126 else ""
