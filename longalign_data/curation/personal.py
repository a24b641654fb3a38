"""Personal data in a text: e-mail addresses, telephone numbers, numbers of identity cards, payment cards and accounts, IP
addresses.

    "Write to jane@firm.example or +44 20 7946 0018" -> "Write to [MAIL] or [PHONE]"

Numbers that carry a checksum count only when it holds (Chinese resident identity number: ISO 7064 MOD 11-2; payment
cards: Luhn; IBAN: ISO 7064 MOD 97-10). IP addresses count when they are routed on the public internet. A finding is never
shorter than what takes its place, so masking never lengthens a text.
"""

import ipaddress
import re
import string
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import date

from longalign_data.curation.secrets import Found

WORDS = {
    "email": "[MAIL]",
    "phone": "[PHONE]",
    "identity-number": "[ID]",
    "card-number": "[CARD]",
    "account-number": "[IBAN]",
    "ip": "[IP]",
}
"""What takes the place of each kind."""


MIN_QUAD = 10


def is_chinese_identity(value: str) -> bool:
    """GB 11643-1999: six digits of place, eight of birth, three of order, and a check character."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    try:
        date(int(value[6:10]), int(value[10:12]), int(value[12:14]))
    except ValueError:
        return False
    check = "10X98765432"[sum(w * int(c) for w, c in zip(weights, value[:17], strict=True)) % 11]
    return value[17].upper() == check and value[0] != "0"


def is_card_number(value: str) -> bool:
    """ISO/IEC 7812: 13 to 19 digits that end in Luhn's check digit; one digit over and over is none."""
    digits = [int(char) for char in value if char.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_account_number(value: str) -> bool:
    """ISO 13616 (IBAN): country, two check digits, up to 30 characters; the whole is 1 modulo 97."""
    compact = value.replace(" ", "")
    if not 15 <= len(compact) <= 34:
        return False
    turned = compact[4:] + compact[:4]
    return int("".join(str(int(char, 36)) for char in turned)) % 97 == 1


def is_public_address(value: str) -> bool:
    """An IPv4 or IPv6 address of one machine on the internet: neither private nor loopback nor for groups or documentation.

    A dotted quad of fewer than ten characters is more often the number of a section or a version (`6.2.4.1`) and does not
    count.
    """
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast and (address.version == 6 or len(value) >= MIN_QUAD)


def is_phone_number(value: str) -> bool:
    """8 to 15 digits (ITU-T E.164), of at least three kinds."""
    digits = [char for char in value if char.isdigit()]
    return 8 <= len(digits) <= 15 and len(set(digits)) >= 3


@dataclass(frozen=True, slots=True)
class _Rule:
    kind: str
    hint: str
    pattern: re.Pattern[str]
    holds: Callable[[str], bool]


def _always(value: str) -> bool:
    return bool(value)


_BEFORE, _AFTER = r"(?<![0-9A-Za-z.-].)", r"(?![0-9A-Za-z-])"
# A pattern begins with the characters that it can begin with and looks back over the first: the engine then skips to the
# places where they stand, ten times as fast as where it has to look back from every place.
# What may not stand beside a finding is written out: to Python's `\w` every Chinese character is part of a word.
# The order decides between findings that begin at the same place: what has a checksum is surer than a telephone number.
_RULES = (
    _Rule(
        "email",
        "@",
        # Found at its sign, see _addresses: the part before it has no first character to skip to.
        re.compile(r"@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}(?![A-Za-z0-9])"),
        _always,
    ),
    _Rule(
        "identity-number",
        "",
        re.compile(r"[1-9]" + _BEFORE + r"[0-9]{16}[0-9Xx]" + _AFTER),
        is_chinese_identity,
    ),
    _Rule(
        "identity-number",
        "-",
        re.compile(r"[0-8]" + _BEFORE + r"[0-9]{2}(?<!000)(?<!666)-(?!00)[0-9]{2}-(?!0000)[0-9]{4}" + _AFTER),
        _always,
    ),
    _Rule(
        "card-number",
        "",
        re.compile(r"[2-6]" + _BEFORE + r"[0-9]{3}(?:[ -]?[0-9]{3,4}){2,3}[ -]?[0-9]{1,7}" + _AFTER),
        is_card_number,
    ),
    _Rule(
        "account-number",
        "",
        re.compile(r"[A-Z](?<![A-Za-z0-9].)[A-Z][0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"),
        is_account_number,
    ),
    _Rule(
        "phone",
        "+",
        re.compile(
            # A group of one digit stands behind the country's code alone, as in France; anywhere else it is the next word.
            r"\+(?<![A-Za-z0-9_+].)[1-9][0-9]{0,2}(?:[ .-]?\(?[0-9]\)?)?"
            r"(?:[ .-]?\(?[0-9]{2,14}+\)?){1,5}(?![A-Za-z0-9_]|[.-][0-9])"
        ),
        is_phone_number,
    ),
    # North America. Three groups with blanks alone between them are as often a row of a table.
    _Rule(
        "phone",
        "-",
        re.compile(
            r"[(2-9](?<![A-Za-z0-9_.-].)(?:(?<=\()[2-9][0-9]{2}\) ?|(?<!\()[0-9]{2}[ .-])[2-9][0-9]{2}-[0-9]{4}"
            + _AFTER
        ),
        is_phone_number,
    ),
    _Rule(
        "phone",
        "-",
        re.compile(r"1(?<![A-Za-z0-9_.-].)-[2-9][0-9]{2}-[2-9][0-9]{2}-[0-9]{4}" + _AFTER),
        is_phone_number,
    ),
    _Rule(
        "phone",
        ".",
        re.compile(
            r"[2-9](?<![A-Za-z0-9_./-].)(?<![0-9]:.)[0-9]{2}\.[2-9][0-9]{2}\.[0-9]{4}" + _AFTER + r"(?!\.[0-9])"
        ),
        is_phone_number,
    ),
    # United Kingdom, with its blanks: 020 7946 0018, (0161) 496 0123, 07700 900123; in a longer row of numbers it is none.
    # Codes as Ofcom's National Telephone Numbering Plan gives them out; those of 09 are services that name nobody.
    _Rule(
        "phone",
        "0",
        re.compile(
            r"[(0](?<![A-Za-z0-9_.,/-].)(?<![0-9][ :].)(?:(?<=\()0(?=[0-9]{2,4}\))|(?<!\()(?![0-9]{2,4}\)))"
            r"(?:2[03489]\)? [0-9]{4} ?[0-9]{4}|(?:1[2-9]1|11[3-8]|3[0347][0-9]|8[047][0-9])\)? [0-9]{3} ?[0-9]{4}"
            r"|(?:1[2-9]|7[0-9])[0-9]{2}\)? [0-9]{3} ?[0-9]{3})" + _AFTER + r"(?![.,:/][0-9]| [0-9])"
        ),
        is_phone_number,
    ),
    _Rule("phone", "", re.compile("1" + _BEFORE + r"[3-9][0-9]{9}" + _AFTER), is_phone_number),
    _Rule("phone", "-", re.compile("0" + _BEFORE + r"[1-9][0-9]{1,2}-[1-9][0-9]{6,7}" + _AFTER), is_phone_number),
    _Rule(
        "ip",
        ".",
        re.compile(r"[0-9](?<![A-Za-z0-9_.-].)[0-9]{0,2}\.(?:[0-9]{1,3}\.){2}[0-9]{1,3}(?![A-Za-z0-9_-]|\.[0-9])"),
        is_public_address,
    ),
    _Rule(
        "ip",
        ":",
        re.compile(
            r"[0-9A-Fa-f](?<![A-Za-z0-9_:.].)[0-9A-Fa-f]{0,3}:[0-9A-Fa-f:]{2,34}[0-9A-Fa-f](?![A-Za-z0-9_:]|\.[0-9A-Za-z])"
        ),
        is_public_address,
    ),
)

_LOCAL = string.ascii_letters + string.digits + "._%+-"
MAX_LOCAL = 64


def _addresses(rule: _Rule, text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each e-mail address: the sign and what follows it, with the run of characters before it, which has at
    most MAX_LOCAL (RFC 5321) and begins with a letter or digit."""
    end = 0
    for match in rule.pattern.finditer(text):
        before = text[max(0, match.start() - MAX_LOCAL - 1) : match.start()]
        size = len(before) - len(before.rstrip(_LOCAL))
        start = match.start() - size
        if start >= end and 0 < size <= MAX_LOCAL and before[-size] not in "._%+-":
            end = match.end()
            yield start, end


def _places(rule: _Rule, text: str) -> Iterator[tuple[int, int]]:
    if rule.kind == "email":
        yield from _addresses(rule, text)
    else:
        yield from (match.span() for match in rule.pattern.finditer(text))


def find_personal(text: str, kinds: Collection[str] = tuple(WORDS)) -> list[Found]:
    """Every finding of the kinds asked for (keys of WORDS), from left to right, none overlapping another."""
    found: list[Found] = []
    taken: list[tuple[int, int]] = []
    for order, rule in enumerate(_RULES):
        if rule.kind not in kinds or rule.hint not in text:
            continue
        for start, end in _places(rule, text):
            if end - start >= len(WORDS[rule.kind]) and rule.holds(text[start:end]):
                found.append(Found(rule=rule.kind, start=start, end=end))
                taken.append((start, order))
    places = sorted(range(len(found)), key=taken.__getitem__)
    kept: list[Found] = []
    for index in places:
        if not kept or found[index].start >= kept[-1].end:
            kept.append(found[index])
    return kept
