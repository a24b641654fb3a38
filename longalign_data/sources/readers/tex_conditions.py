"""Conditionals of TeX whose outcome the source says: `\\iffalse`, `\\iftrue`, `\\if0`, and the switches that it makes itself.

    \\newif\\ifdraft \\drafttrue ... \\ifdraft seen\\else unseen\\fi \\iffalse unseen\\fi   ->   ... seen

Of any other, such as `\\ifx`, both branches stay: what it compares is known to TeX alone.
"""

import re
from collections.abc import Sequence

from longalign_data.sources.readers.tex_arguments import apart

WITH_ARGUMENTS = frozenset((
    "iff", "ifthenelse", "ifbool", "iftoggle", "ifdef", "ifundef", "ifcsdef", "ifcsundef", "ifdefempty", "ifdefvoid",
    "ifdefstring", "ifdefequal", "ifstrequal", "ifstrempty", "ifblank", "ifnotblank", "ifnumcomp", "ifnumequal",
    "ifnumgreater", "ifnumless", "ifnumodd", "ifdimcomp", "ifinlist", "ifboolexpr", "ifboolexpe", "ifpackageloaded",
    "ifoldversion",
))  # fmt: skip
"""Commands named like conditionals that take their branches as arguments, so that no `\\fi` ends them."""

_TOKEN = re.compile(
    r"\\(?:newif\s*+\\if(?P<new>[A-Za-z]+)|let\s*+\\if(?P<let>[A-Za-z]+)\s*+=?\s*+\\if(?P<as>true|false)(?![A-Za-z])"
    r"|if *+(?P<one>\d)(?P<two>[^\\{}])"
    r"|(?P<name>if[A-Za-z]*|else|fi)(?![A-Za-z])|(?P<switch>[A-Za-z]+)(?P<to>true|false)(?![A-Za-z]))"
    r"(?:[ \t]*\n(?![ \t]*\n))?"
)


def without_false_branches(text: str, bodies: Sequence[tuple[int, int]]) -> str:
    """The text without the branches that are not taken and without the commands around those that are. A conditional
    that begins in one of `bodies`, the places of the definitions of macros in their order, waits for its macro's use; one
    that never ends is left as it is, with all behind it."""
    switches: dict[str, bool | None] = {"true": True, "false": False}
    unsure = 0  # open conditionals of which nothing says the outcome: what is switched inside of them is not known
    # For each open conditional its outcome, None where nothing says it; where it and its branch begin; whether what stands
    # around it is taken.
    opened: list[tuple[bool | None, int, int, bool]] = []
    dropped: list[tuple[int, int]] = []
    taken, body = True, 0
    for match in _TOKEN.finditer(text):
        while body < len(bodies) and bodies[body][1] <= match.start():
            body += 1
        if body < len(bodies) and bodies[body][0] <= match.start():
            continue
        name = "if" if match["one"] else match["name"]
        if name is None:
            if taken and match["new"]:
                switches[match["new"]] = False
            elif taken and match["let"]:
                switches[match["let"]] = None if unsure else match["as"] == "true"
            elif taken and match["switch"] in switches:
                switches[match["switch"]] = None if unsure else match["to"] == "true"
        elif name.startswith("if"):
            if name not in WITH_ARGUMENTS:
                # Two characters are compared: `\if0 unseen\fi`, `\if00seen\fi`.
                outcome = match["one"] == match["two"] if match["one"] else switches.get(name[2:])
                if outcome is not None:
                    dropped.append((match.start(), match.end()))
                opened.append((outcome, match.start(), match.end(), taken))
                unsure += outcome is None
                taken = taken and outcome is not False
        elif opened:
            outcome, begin, start, outer = opened.pop()
            unsure -= outcome is None
            if outcome is not None:
                dropped.append((match.start() if outcome else start, match.end()))
            if name == "else":
                other = None if outcome is None else not outcome
                opened.append((other, begin, match.end(), outer))
                unsure += other is None
                taken = outer and other is not False
            else:
                taken = outer
    unclosed = min((begin for outcome, begin, _, _ in opened if outcome is not None), default=len(text))
    pieces, position, last = list[str](), 0, "\n"
    for start, end in sorted(dropped):
        if end > unclosed:
            break
        if end > position:
            piece = text[position : max(position, start)]
            last = piece[-1:] or last
            # The line end behind a command that stands alone goes with it.
            between = "\n" if text[end - 1] == "\n" and not last.isspace() else apart(piece, text[end : end + 1])
            last = between or last
            pieces += [piece, between]
            position = end
    return "".join(pieces) + text[position:]
