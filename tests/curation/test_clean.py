"""Secrets and personal data: what is found, what is left alone, and that masking is safe to measure by."""

import pydoc_data.topics
import random
import string
import time
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_data.curation.curate import Cleaned, Curation, Refused, clean
from longalign_data.curation.personal import find_personal, is_card_number, is_chinese_identity
from longalign_data.curation.secrets import find_secrets
from longalign_data.recipe import Curate

RANDOM = "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC2dE3fG4hI5jK6"

# Joined from pieces, so that no file of this repository holds anything that a scanner would stop at.
SECRETS = {
    "github-token": "gh" + "p_" + RANDOM[:36],
    "aws-key-id": "AK" + "IA" + "J4KQ7ZT2MNB5RX3C",
    "google-key": "AI" + "za" + RANDOM[:35],
    "slack-token": "xo" + "xb-1234567890-" + RANDOM[:24],
    "stripe-key": "sk_" + "live_" + RANDOM[:24],
    "provider-key": "sk-" + "proj-" + RANDOM,
    "bearer-token": RANDOM[:32],
    "jwt": "ey" + "J" + RANDOM[:20] + ".ey" + "J" + RANDOM[:30] + "." + RANDOM[:43],
    "private-key": "\n" + (RANDOM[:44] + "\n") * 4,
    "assignment": RANDOM[:24],
    "url-password": "Xk29fLq81mZp",
}
WRITTEN = {
    "private-key": "-----BEGIN RSA PRIVATE" + " KEY-----{}-----END RSA PRIVATE" + " KEY-----",
    "bearer-token": "Authorization: Bearer {}",
    "assignment": 'db_password = "{}"',
    "url-password": "postgres://admin:{}@db.internal/x",
}


def curation(*, is_code: bool = False, **switches: Mapping[str, object]) -> Curation:
    return Curation(wish=Curate.model_validate(switches), is_code=is_code, index=None)


@pytest.mark.parametrize("rule", SECRETS)
def test_every_kind_of_secret_is_masked_and_nothing_else_of_the_text(rule: str) -> None:
    before, after = "first = 1\n" + WRITTEN.get(rule, "{}").partition("{}")[0], "\nlast = 2\n"
    if rule in WRITTEN:
        after = WRITTEN[rule].partition("{}")[2] + after
    text = before + SECRETS[rule] + after
    assert [found.rule for found in find_secrets(text)] == [rule]
    cleaned = clean(text, "", curation(is_code=True))
    assert isinstance(cleaned, Cleaned)
    assert cleaned.text == before + "[SECRET]" + after
    assert cleaned.masked == {f"secret-{rule}": 1, "documents-with-secret": 1}


@pytest.mark.parametrize(
    ("rule", "before", "secret", "after"),
    [
        (
            "assignment",
            "[default]\naws_secret_access_key = ",
            RANDOM[:19] + "/" + RANDOM[20:40],
            "\nregion = eu-west-1\n",
        ),
        ("assignment", "SECRET_KEY=", "k3J9x82mQ7vB1zR5", "\r\nDEBUG=1\r\n"),
        ("assignment", "DB_PASSWORD=", "Tr0ub4dor&3xyzQW%RTY", "\n"),
        ("assignment", "services:\n  api_token: ", "9f86d081884c7d659a2feaa0c55ad015", ""),
        ("assignment", '"primaryKey": "', "9f86d081884c7d659a2feaa0c55ad015", '",\n'),
        ("assignment", 'public_key_password = "', "9f86d081884c7d65", '"\n'),
        ("assignment", "export STORAGE_KEY=", RANDOM[:42] + "==", "  \n"),
        (
            "private-key",
            "-----BEGIN RSA PRIVATE" + " KEY-----",
            "\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0F1E2D3C\n\n" + (RANDOM[:44] + "\n") * 4,
            "-----END RSA PRIVATE" + " KEY-----\n",
        ),
    ],
)
def test_secrets_without_quotes_and_encrypted_keys_are_masked(rule: str, before: str, secret: str, after: str) -> None:
    assert [found.rule for found in find_secrets(before + secret + after)] == [rule]
    cleaned = clean(before + secret + after, "", curation(is_code=True))
    assert isinstance(cleaned, Cleaned)
    assert cleaned.text == before + "[SECRET]" + after


HEXADECIMAL = "0123456789abcdef"


@pytest.mark.parametrize(
    ("written", "characters", "length", "share"),
    [
        ("postgres://app:{}@db:5432/x", string.ascii_letters + string.digits, 8, 0.72),
        ("postgres://app:{}@db:5432/x", string.ascii_letters + string.digits, 9, 0.75),
        ("postgres://app:{}@db:5432/x", string.ascii_letters + string.digits, 12, 0.84),
        ("postgres://app:{}@db:5432/x", string.ascii_letters + string.digits, 15, 0.88),
        ("postgres://app:{}@db:5432/x", string.ascii_letters + string.digits, 16, 0.86),
        ("postgres://app:{}@db:5432/x", HEXADECIMAL, 8, 0.8),
        ('api_key = "{}"', string.ascii_letters + string.digits, 16, 0.86),
        ('api_key = "{}"', string.ascii_letters + string.digits, 24, 0.95),
        ('api_key = "{}"', HEXADECIMAL, 16, 0.95),
        ('api_key = "{}"', HEXADECIMAL, 20, 0.97),
        ('api_key = "{}"', HEXADECIMAL, 32, 0.99),
        ("  api_token: {}", HEXADECIMAL, 32, 0.92),
    ],
)
def test_of_secrets_drawn_at_random_the_stated_share_is_found(
    written: str, characters: str, length: int, share: float
) -> None:
    rng = random.Random(f"{written}{characters}{length}")
    texts = [written.format("".join(rng.choices(characters, k=length))) for _ in range(2000)]
    assert sum(bool(find_secrets(text)) for text in texts) >= share * len(texts)


@pytest.mark.parametrize(
    "piece", ["-----BEGIN RSA PRIVATE" + " KEY-----\n", "key=" + RANDOM, "key=" + "a=" * 8, "= " * 8]
)
def test_the_search_for_secrets_takes_time_in_proportion_to_the_text(piece: str) -> None:
    def seconds(size: int) -> float:
        """The processor's, of three times the least: a collection of what other tests left behind may fall into one."""
        text, taken = piece * (size // len(piece)), []
        for _ in range(3):
            start = time.thread_time()
            find_secrets(text)
            taken.append(time.thread_time() - start)
        return min(taken)

    # Eight times the text; in proportion to its square it would be 64 times the time.
    assert seconds(800_000) < 24 * seconds(100_000) + 0.05


@pytest.mark.parametrize(
    "text",
    [
        'password = "correct horse battery"',
        'api_key = "your-api-key-goes-here"',
        'key = "org.example.settings.theme"',
        "sha256 = '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'",
        "token = tokenizer.encode_ordinary(text)",
        "token = get_token()",
        "token: *anchor_of_block_2b7c9d1e",
        "password = $DB_PASSWORD_OF_HOST_7f3a9c",
        "Authorization: Bearer <your-token-goes-here>",
        "the bearer of_this_letter_is_known_to_us",
        "token = previousTokenOfBlock2",
        "api_key = load_key_v2_from_disk3",
        "key = base64UrlDecodedKeyOfSession",
        "key = 0x9E3779B97F4A7C15",
        "key: build/py311/linux64/release/wheel7",
        "password: MIN_LENGTH_8 + MAX_LENGTH_64",
        "commit = 9f86d081884c7d659a2feaa0c55ad015",
        'publicKeyToken="31bf3856ad364e35"',
        '<assemblyIdentity name="System.Core" publicKeyToken="b03f5f7f11d50a3a" culture="neutral" />',
        "PublicKeyToken: cc7b13ffcd2ddd51",
        '"public-key": "30ad4fe6b2a6aeed89845dcd8080cc91"',
        'cache_key = "9f86d081884c7d659a2feaa0c55ad015"',
        "cacheKey: '9f86d081884c7d659a2feaa0c55ad015'",
        'row["foreign_key"] = "3f2b8c1e-9d4a-4e6b-8f7a-1c2d3e4f5a6b"',
        "AKIAIOSFODNN7EXAMPLE",
        "https://example.org:8080/path@x",
        "postgres://user:${PASSWORD}@host/db",
        "https://user:password@example.org/",
        "https://user:aaaaaaa1@example.org/",
        "docker://alpine:3.18.4-r1b2c3@sha256:9f86d081884c7d659a2feaa0c55ad015",
        "task-list-of-the-department-of-agriculture-and-fisheries",
    ],
)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    assert find_secrets(text) == []


def test_the_documentation_of_python_holds_no_secret() -> None:
    assert find_secrets("\n".join(pydoc_data.topics.topics.values())) == []


def test_secrets_are_masked_in_code_alone_unless_the_recipe_says_more() -> None:
    text = SECRETS["github-token"]
    assert clean(text, "", curation()) == Cleaned(text=text, title="", masked={})
    everywhere = clean(text, text, curation(secrets={"where": "all"}))
    assert isinstance(everywhere, Cleaned)
    assert (everywhere.text, everywhere.title) == ("[SECRET]", "[SECRET]")
    refused = clean(text, "", curation(is_code=True, secrets={"action": "reject"}))
    assert isinstance(refused, Refused)
    assert refused.reason == "secret"
    assert text not in refused.detail


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to jane.doe+x@mail.firm.co.uk.", "Write to [MAIL]."),
        ("Call +44 20 7946 0018, or (212) 555-0187.", "Call [PHONE], or [PHONE]."),
        ("Call 212.555.0187, 1-800-555-0187 or 212-555-0187.", "Call [PHONE], [PHONE] or [PHONE]."),
        (
            "Ring 020 7946 0018, (0161) 496 0123, 01632 960123\nor 07700 900 123.",
            "Ring [PHONE], [PHONE], [PHONE]\nor [PHONE].",
        ),
        ("伦敦020 7946 0018号", "伦敦[PHONE]号"),
        ("(0161 496 0123), (020 7946 0018), ((07700) 900123)", "([PHONE]), ([PHONE]), ([PHONE])"),
        ("Tel:020 7946 0018, Fax:212.555.0187, t:(0161) 496 0123", "Tel:[PHONE], Fax:[PHONE], t:[PHONE]"),
        ("电话：13812345678，座机010-62345678。", "电话：[PHONE]，座机[PHONE]。"),
        ("身份证号11010519491231002X。", "身份证号[ID]。"),
        ("IP为47.98.120.133，从47.98.120.133到2606:2800:220:1:248:1893:25c8:1946的路", "IP为[IP]，从[IP]到[IP]的路"),
        ("联系+44 20 7946 0018联系我，邮箱jane@firm.cn发", "联系[PHONE]联系我，邮箱[MAIL]发"),
        ("总机+86 10 6278 2051转3，手机13812345678找", "总机[PHONE]转3，手机[PHONE]找"),
        (
            "卡4111 1111 1111 1111号，账户GB82 WEST 1234 5698 7654 32号，请拨(212) 555-0187找",
            "卡[CARD]号，账户[IBAN]号，请拨[PHONE]找",
        ),
        ("Tel. +33 1 42 68 53 00, +1 (212) 555-0187", "Tel. [PHONE], [PHONE]"),
        ("+86 138 1234 5678 3 500 and +1 415 555 0123 5 people", "[PHONE] 3 500 and [PHONE] 5 people"),
        ("card 4111 1111 1111 1111 and 5500-0000-0000-0004", "card [CARD] and [CARD]"),
        ("card 4539 1488 0343 6467", "card [CARD]"),
        ("IBAN GB82 WEST 1234 5698 7654 32", "IBAN [IBAN]"),
        ("from 93.184.216.34 and 2606:2800:220:1:248:1893:25c8:1946", "from [IP] and [IP]"),
        ("ssn 123-45-6789", "ssn [ID]"),
    ],
)
def test_personal_data_is_masked(text: str, expected: str) -> None:
    cleaned = clean(text, "", curation(personal={"action": "mask"}))
    assert isinstance(cleaned, Cleaned)
    assert cleaned.text == expected
    assert clean(text, "", curation()) == Cleaned(text=text, title="", masked={})


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1, 192.168.1.17, 10.0.12.133, 224.0.0.251, 203.0.113.77",
        "see section 6.2.4.1 of version 2.10.3",
        "身份证号110105194912310021",
        "order 4111 1111 1111 1112",
        "at 10:15:30 on 2024-01-31, pages 110-1234",
        "std::vector<int>::iterator a::b",
        "a decorator: @property, @app.route",
        "1,234,567,890 and 0.1234567890123",
        "2.212.555.0187, 212.555.0187.3, 10.1000/212.555.0187, 234.567.8901e5, 123.456.7890",
        "ISBN 0-306-40615-2, 978-0-306-40615-7, 978 0 306 40615 7, 0 306 40615 2, 1-800-55501-8",
        "on 02-11-2024 at 01:14, 07/11/2024, 2024-01-31, 0101 2024",
        "0x020 7946 0018, 020 7946 0018 0101 496 0123, 5 0161 496 0123, 0161 496 0123.5, 01632 960123,5",
        "Order 01632-960-123, 01632 960-123, 0900 100 2000 tokens, 0930 123 4567, 01001 234 567, page 0111 222 3333",
        "(tel 0161) 496 0123, 9 (0161) 496 0123, at 10:020 7946 0018, 10:212.555.0187",
        "0161 4960 123, 01632 9601, 017 4960 0123 12, 000 1234 5679, 02134 12345678",
        "| 212 | 555 | 0187 |, 212 555 0187, 01632\t960123, {0161, 496, 0123}",
    ],
)
def test_numbers_that_name_nobody_stay(text: str) -> None:
    assert find_personal(text) == []


def test_only_the_kinds_asked_for_are_masked() -> None:
    cleaned = clean("a@b.example +44 20 7946 0018", "", curation(personal={"action": "mask", "kinds": ["email"]}))
    assert isinstance(cleaned, Cleaned)
    assert cleaned.text == "[MAIL] +44 20 7946 0018"


@given(st.integers(10**16, 10**17 - 1), st.integers(0, 9))
def test_a_wrong_digit_never_passes_luhn(number: int, digit: int) -> None:
    passing = [last for last in "0123456789" if is_card_number(f"{number}{last}")]
    assert len(passing) <= 1
    assert all(not is_card_number(f"{number}{digit}") for _ in [0] if str(digit) not in passing)


@given(st.dates(), st.integers(0, 999))
def test_one_check_character_in_eleven_makes_an_identity_number(day: object, order: int) -> None:
    head = f"110105{day:%Y%m%d}".replace(" ", "0") + f"{order:03d}"
    if len(head) == 17:
        assert sum(is_chinese_identity(head + check) for check in "0123456789X") == 1


pieces = st.sampled_from(
    [
        *SECRETS.values(),
        "a@b.co",
        "+44 20 7946 0018",
        "8.8.8.8",
        "123-45-6789",
        " ",
        "\n",
        '"',
        "=",
        "key",
        "中文",
        "x",
        "1",
    ]
) | st.text(max_size=8)


@settings(max_examples=200)
@given(st.lists(pieces, max_size=12).map("".join))
def test_masking_never_lengthens_a_text_and_leaves_nothing_to_mask_twice(text: str) -> None:
    everything = curation(is_code=True, personal={"action": "mask"})
    cleaned = clean(text, "", everything)
    assert isinstance(cleaned, Cleaned)
    assert len(cleaned.text.encode("utf-8", "surrogatepass")) <= len(text.encode("utf-8", "surrogatepass"))
    assert cleaned.masked or cleaned.text == text
    assert find_secrets(cleaned.text) == []
