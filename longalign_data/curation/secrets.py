"""Keys, tokens and passwords in a text.

    'token = "ghp_0123..."' -> 'token = "[SECRET]"'

A table of forms that issuers publish, and some that need judgement (an assignment to something called a password or key,
in quotes or up to the end of the line, and a password in a URL), which count only when the value looks drawn at random.
Rules of pure entropy are left out: on prose, checksums and test data most of what they find is no secret. A password of
fewer than 16 characters in an assignment, or fewer than 8 in a URL, is not looked for: so short a value is seldom told from
a word or an example. For the same reason one without a digit, or without a letter, is none: of values of letters and digits
drawn at random that leaves 76% of 8 characters, 88% of 12, 90% of 16 and 98% of 24, and of hexadecimal ones of 16 to 64
digits between quotes 98% and more.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

SECRET = "[SECRET]"  # noqa: S105 - what stands in a secret's place
MIN_CHARS = len(SECRET)
"""A shorter finding is left alone, so that masking never lengthens a text."""

RANDOM_BITS = 3.5
"""Shannon entropy of its characters, in bits each, from which a value of 16 characters or more counts as drawn at random:
identifiers and words of 16 to 40 characters have 2.5 to 3.4, keys of letters and digits 3.5 to 5."""

SHORT_SHARE = 0.8
"""The same for a shorter value (a password in a URL), as a share of the log2(n) bits that n characters can have at most."""

HEX_BITS = 2.7
"""The most that is asked of hexadecimal digits and hyphens: 98 of 100 keys of 16 digits have it, nearly all longer ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A finding: characters `start` (inclusive) to `end` (exclusive) of the text, by the rule of that name."""

    rule: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Rule:
    """`hints` are substrings of which a text must hold one to be searched at all; group 1 is the secret where the pattern
    has groups. A match counts always, or when it looks random, or when besides a name for secrets stands before it, or when
    besides it is no identifier, number or path of the program itself."""

    name: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    counts: str = "always"


_JUDGED, _ASSIGNED, _BARE = "random", "random-and-named", "random-and-named-and-no-identifier"
_NAME = re.compile(r"(?i)(?:key|secret|token|passwd|password|passphrase|pwd|credentials?)[\"'\])]{0,3}\s{0,8}[=:]?$")

# Public ones, as in the references of .NET's assemblies, and such as only find a row. A primary key may be a cloud's secret.
_NO_SECRETS_NAME = re.compile(
    r"(?i)(?:public[_-]?key(?:[_-]?token)?|(?:foreign|cache)[_-]?key)[\"'\])]{0,3}\s{0,8}[=:]?$"
)

_END = r"(?![A-Za-z0-9_-])"
# What begins with one of the signs ahead is a variable, an alias or a pointer, and no password.
_BARE_VALUE = r"[ \t]{0,3}(?![$&*%])([A-Za-z0-9+/_!@#$%&*^-]{16,256}+={0,2}+)[ \t\r]{0,4}$"
# A pattern begins with literal characters and looks back over them: the engine then skips to the places where they stand.
_RULES = (
    _Rule(
        "private-key",
        ("PRIVATE KEY-----", "PRIVATE KEY BLOCK-----"),
        re.compile(
            r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,2}PRIVATE KEY(?: BLOCK)?-----"
            # To the next five dashes at most: headers hold single ones, and what is never closed is not searched twice.
            r"((?:[^-]|-(?!----)){64,20000}+)-----END (?:[A-Z0-9]{1,12} ){0,2}PRIVATE KEY(?: BLOCK)?-----"
        ),
    ),
    _Rule("aws-key-id", ("AKIA",), re.compile(r"AKIA(?<![A-Za-z0-9]AKIA)[A-Z2-7]{16}(?![A-Za-z0-9])")),
    _Rule("aws-key-id", ("ASIA",), re.compile(r"ASIA(?<![A-Za-z0-9]ASIA)[A-Z2-7]{16}(?![A-Za-z0-9])")),
    _Rule(
        "github-token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), re.compile(r"gh[pousr]_[A-Za-z0-9]{36,255}" + _END)
    ),
    _Rule("github-token", ("github_pat_",), re.compile(r"github_pat_[A-Za-z0-9_]{22,255}" + _END)),
    _Rule("gitlab-token", ("glpat-",), re.compile(r"glpat-[A-Za-z0-9_-]{20,64}" + _END)),
    _Rule("slack-token", ("xox",), re.compile(r"xox[abeoprs]-[0-9A-Za-z-]{20,250}" + _END)),
    _Rule(
        "slack-webhook",
        ("hooks.slack.com",),
        re.compile(r"hooks\.slack\.com/services/(T[A-Z0-9]{6,12}/B[A-Z0-9]{6,12}/[A-Za-z0-9]{20,40})"),
    ),
    _Rule("google-key", ("AIza",), re.compile(r"AIza(?<![A-Za-z0-9]AIza)[0-9A-Za-z_-]{35}" + _END)),
    _Rule("stripe-key", ("k_live_",), re.compile(r"[rs]k_live_[0-9a-zA-Z]{20,120}" + _END)),
    _Rule("provider-key", ("sk-",), re.compile(r"sk-(?<![A-Za-z0-9_-]sk-)[A-Za-z0-9_-]{32,200}" + _END), _JUDGED),
    _Rule("hub-token", ("hf_",), re.compile(r"hf_(?<![A-Za-z0-9_]hf_)[A-Za-z0-9]{34,40}" + _END), _JUDGED),
    _Rule("npm-token", ("npm_",), re.compile(r"npm_(?<![A-Za-z0-9_]npm_)[A-Za-z0-9]{36}" + _END), _JUDGED),
    _Rule("pypi-token", ("pypi-AgEIcHlwaS5vcmc",), re.compile(r"pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,250}")),
    _Rule("sendgrid-key", ("SG.",), re.compile(r"SG\.(?<![A-Za-z0-9]SG\.)[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}" + _END)),
    _Rule("telegram-token", (":AA",), re.compile(r"(?<![A-Za-z0-9])[0-9]{8,10}:AA[A-Za-z0-9_-]{33}" + _END)),
    _Rule(
        "jwt",
        ("eyJ",),
        re.compile(
            r"eyJ(?<![A-Za-z0-9]eyJ)[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{20,1000}" + _END
        ),
    ),
    _Rule(
        "bearer-token",
        ("Bearer ", "bearer "),
        re.compile(r"[Bb]earer (?<![A-Za-z0-9]Bearer )([A-Za-z0-9._~+/-]{20,2000}={0,2})"),
        _JUDGED,
    ),
    _Rule("azure-key", ("AccountKey=",), re.compile(r"AccountKey=([A-Za-z0-9+/]{86}==)")),
    _Rule(
        "url-password",
        ("://",),
        # What stands before the digest of a container's image is its version.
        re.compile(r"://[^\s:/@\"'<>]{1,64}:([^\s:/@\"'<>{}$]{8,128})@(?!sha256:)[A-Za-z0-9]"),
        _JUDGED,
    ),
    _Rule("assignment", ('"', "'"), re.compile(r"[=:>]\s{0,3}[\"']([^\"'\s]{16,256})[\"']"), _ASSIGNED),
    _Rule("assignment", ("=",), re.compile("=" + _BARE_VALUE, re.MULTILINE), _BARE),
    _Rule("assignment", (":",), re.compile(":" + _BARE_VALUE, re.MULTILINE), _BARE),
)
_NO_SECRET = re.compile(
    r"(?i)example|sample|dummy|placeholder|changeme|xxxx|your[_-]|test|\.\.\.|://|^[a-z_.:/-]+$|^[^0-9]+$"
)

_HEXADECIMAL = re.compile(r"[0-9A-Fa-f-]+")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_IDENTIFIER = re.compile(r"[A-Za-z]*[0-9]*(?:[_/+-]+[A-Za-z]*[0-9]*)*|0[xX][0-9A-Fa-f]{1,16}")
WORD_CHARS = 3.0
"""Mean length of the words of an identifier, at least; runs of one kind of letters or digits in keys have 1.2 to 2.7."""


def find_secrets(text: str) -> list[Found]:
    """Every finding, from left to right, none overlapping another."""
    found: list[Found] = []
    for rule in _RULES:
        if any(hint in text for hint in rule.hints):
            found.extend(_matches(rule, text))
    found.sort(key=lambda item: (item.start, -item.end))
    kept: list[Found] = []
    for item in found:
        if not kept or item.start >= kept[-1].end:
            kept.append(item)
    return kept


def _matches(rule: _Rule, text: str) -> Iterator[Found]:
    group = 1 if rule.pattern.groups else 0
    for match in rule.pattern.finditer(text):
        value = match[group]
        if len(value) < MIN_CHARS or "EXAMPLE" in value:
            continue
        if rule.counts in (_ASSIGNED, _BARE):
            before = text[max(0, match.start() - 40) : match.start()]
            if not _NAME.search(before) or _NO_SECRETS_NAME.search(before):
                continue
        if rule.counts == _BARE and _is_identifier(value):
            continue
        if rule.counts == "always" or looks_random(value):
            yield Found(rule=rule.name, start=match.start(group), end=match.end(group))


def _is_identifier(value: str) -> bool:
    """Whether a value without quotes is more likely a name, a path, a sum or a number of the program: `base64UrlKey`,
    `str_to_hex_v2`, `build/py311/linux`, `0x9E3779B97F4A7C15`."""
    words = _WORD.findall(value)
    return _IDENTIFIER.fullmatch(value) is not None or sum(map(len, words)) >= WORD_CHARS * len(words)


def looks_random(value: str) -> bool:
    """Whether a value is more likely a key than a name, a placeholder, a path or a sentence: it mixes digits with letters,
    and its characters have the entropy that its length and its kind of digits ask for."""
    if _NO_SECRET.search(value) or not any(char.isalpha() for char in value):
        return False
    counts = Counter(value)
    entropy = -sum(n / len(value) * math.log2(n / len(value)) for n in counts.values())
    wanted = RANDOM_BITS if len(value) >= 16 else SHORT_SHARE * math.log2(len(value))
    return entropy >= (min(wanted, HEX_BITS) if _HEXADECIMAL.fullmatch(value) else wanted)


def mask(text: str, found: list[Found], words: str | dict[str, str] = SECRET) -> str:
    """The text with every finding replaced by `words` (or by the word of its rule)."""
    parts: list[str] = []
    end = 0
    for item in found:
        parts += [text[end : item.start], words if isinstance(words, str) else words[item.rule]]
        end = item.end
    return "".join([*parts, text[end:]])
