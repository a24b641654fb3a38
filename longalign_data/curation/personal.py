"""Personal data in a text: e-mail addresses, telephone numbers, numbers of identity cards, payment cards and accounts, IP
addresses.

    "Write to jane@firm.example or +44 20 7946 0018" -> "Write to [MAIL] or [PHONE]"

Numbers that carry a checksum count only when it holds (Chinese resident identity number: ISO 7064 MOD 11-2; payment
cards: Luhn; IBAN: ISO 7064 MOD 97-10). IP addresses count when they are routed on the public internet. A finding is never
shorter than what takes its place, so masking never lengthens a text.
"""

import ipaddress
import re
from collections.abc import Callable, Collection
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


_DIGITS_BEFORE, _DIGITS_AFTER = r"(?<![0-9A-Za-z.-])", r"(?![0-9A-Za-z-])"
# The order decides between findings that begin at the same place: what has a checksum is surer than a telephone number.
_RULES = (
    _Rule(
        "email",
        "@",
        re.compile(
            r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}"
            r"@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}(?![A-Za-z0-9])"
        ),
        _always,
    ),
    _Rule(
        "identity-number",
        "",
        re.compile(_DIGITS_BEFORE + r"[1-9][0-9]{16}[0-9Xx]" + _DIGITS_AFTER),
        is_chinese_identity,
    ),
    _Rule(
        "identity-number",
        "-",
        re.compile(_DIGITS_BEFORE + r"(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}" + _DIGITS_AFTER),
        _always,
    ),
    _Rule(
        "card-number",
        "",
        re.compile(_DIGITS_BEFORE + r"[2-6][0-9]{3}(?:[ -]?[0-9]{3,4}){2,3}[ -]?[0-9]{1,7}" + _DIGITS_AFTER),
        is_card_number,
    ),
    _Rule(
        "account-number",
        "",
        re.compile(
            r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])",
        ),
        is_account_number,
    ),
    _Rule(
        "phone",
        "+",
        re.compile(r"(?<![\w+])\+[1-9][0-9]{0,2}(?:[ .-]?\(?[0-9]{2,5}\)?){2,5}(?!\w|[.-][0-9])"),
        is_phone_number,
    ),
    _Rule(
        "phone",
        "-",
        re.compile(r"(?<![\w.-])(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}-[0-9]{4}" + _DIGITS_AFTER),
        is_phone_number,
    ),
    _Rule("phone", "", re.compile(_DIGITS_BEFORE + r"1[3-9][0-9]{9}" + _DIGITS_AFTER), is_phone_number),
    _Rule(
        "phone", "-", re.compile(_DIGITS_BEFORE + r"0[1-9][0-9]{1,2}-[1-9][0-9]{6,7}" + _DIGITS_AFTER), is_phone_number
    ),
    _Rule("ip", ".", re.compile(r"(?<![\w.-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w-]|\.[0-9])"), is_public_address),
    _Rule(
        "ip", ":", re.compile(r"(?<![\w:.])[0-9A-Fa-f]{1,4}:[0-9A-Fa-f:]{2,34}[0-9A-Fa-f](?![\w:.])"), is_public_address
    ),
)


def find_personal(text: str, kinds: Collection[str] = tuple(WORDS)) -> list[Found]:
    """Every finding of the kinds asked for (keys of WORDS), from left to right, none overlapping another."""
    found: list[Found] = []
    taken: list[tuple[int, int]] = []
    for order, rule in enumerate(_RULES):
        if rule.kind not in kinds or rule.hint not in text:
            continue
        for match in rule.pattern.finditer(text):
            if len(match[0]) >= len(WORDS[rule.kind]) and rule.holds(match[0]):
                found.append(Found(rule=rule.kind, start=match.start(), end=match.end()))
                taken.append((match.start(), order))
    places = sorted(range(len(found)), key=taken.__getitem__)
    kept: list[Found] = []
    for index in places:
        if not kept or found[index].start >= kept[-1].end:
            kept.append(found[index])
    return kept
