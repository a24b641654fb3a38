"""Text files among one's own: in the encodings of their time and place."""

from pathlib import Path

import pytest

from longalign_data.sources.reading import RawReject
from tests.sources.reads import docs, everything, placed

CHINESE = "旧系统的手册。第一章介绍如何安装软件，并说明服务器的配置方法。用户应当先阅读安全须知，然后再开始操作。\n"
TAIWAN = "舊系統的手冊。第一章介紹如何安裝軟體，並說明伺服器的設定方法。使用者應當先閱讀安全須知，然後再開始操作。\n"
JAPANESE = (
    "古いシステムの手引き。第一章ではソフトウェアの導入方法を説明します。利用者はまず安全の注意を読んでください。\n"
)
KOREAN = "오래된 시스템의 설명서입니다. 첫 번째 장에서는 소프트웨어를 설치하는 방법을 설명합니다.\n"
RUSSIAN = "Руководство по старой системе. Первая глава описывает установку программы и настройку сервера.\n"
GERMAN = "Das Handbuch für die Geräte. Wählen Sie die Größe, prüfen Sie Öl und Kühlwasser; schließen Sie die Tür.\n"
FRENCH = (
    "Le manuel de l'opérateur : vérifiez la pression, réglez l'arrêt d'urgence, où que vous soyez. Après, ça ira.\n"
)
POLISH = "Podręcznik użytkownika. Proszę sprawdzić ciśnienie, łączność i źródło zasilania przed użyciem. Żółć, gęś.\n"
QUOTES = "It\u2019s the operator\u2019s manual \u2013 read it \u201ccarefully\u201d before you start at 20\xa0\u20ac an hour.\n"
ENGLISH = "The operator reads the manual and starts the pump before the others come to the hall.\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        *((CHINESE, encoding) for encoding in ("gbk", "gb18030", "utf-16", "utf-32", "utf-8-sig")),
        (ENGLISH, "utf-16"),
        (TAIWAN, "big5"),
        (JAPANESE, "cp932"),
        (JAPANESE, "euc-jp"),
        (KOREAN, "cp949"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8-r"),
        (GERMAN, "cp1252"),
        (FRENCH, "cp1252"),
        (POLISH, "cp1250"),
        (POLISH, "iso8859-2"),
        (QUOTES, "cp1252"),
    ],
)
def test_a_text_file_in_another_encoding_than_utf_8_is_read(text: str, encoding: str, tmp_path: Path) -> None:
    (tmp_path / "manual.txt").write_bytes((text * 20).replace("\n", "\r\n").encode(encoding))
    (found,) = docs(everything(placed(tmp_path, "files")))
    assert found.text == text * 20


def test_big_endian_marks_are_known_and_the_end_mark_of_dos_is_no_text(tmp_path: Path) -> None:
    for name, encoding in (("a", "utf-16-be"), ("b", "utf-32-be")):
        (tmp_path / f"{name}.txt").write_bytes(f"\ufeff{CHINESE}".encode(encoding))
    (tmp_path / "c.txt").write_bytes((GERMAN * 20).encode("cp1252") + b"\x1a")
    found = docs(everything(placed(tmp_path, "files")))
    assert [raw.text for raw in found] == [CHINESE, CHINESE, GERMAN * 20]


def test_a_few_foreign_letters_in_english_are_those_of_western_windows(tmp_path: Path) -> None:
    text = ENGLISH * 40 + "A na\xefve question \xe0 la carte.\n" + ENGLISH * 40
    (tmp_path / "a.md").write_bytes(text.encode("cp1252"))
    (found,) = docs(everything(placed(tmp_path, "files")))
    assert found.text == text


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ((FRENCH * 20).encode("cp850"), ["not UTF-8 at byte 17", "tried as cp1252", "iconv -f"]),
        ((FRENCH * 20).encode("mac-roman"), ["not UTF-8 at byte 17", "tried as", "iconv -f"]),
        ((GERMAN * 20).encode("mac-roman"), ["tried as"]),
        ((ENGLISH * 40 + "caf\xe9").encode("cp850"), ["tried as cp1252"]),
        ((CHINESE * 20).encode() + b"\xff\xfe" + CHINESE.encode(), ["UTF-8 with damage in it"]),
        (b"\xff\xfea", ["byte order mark of UTF-16", "not UTF-16 at byte 2", "save the file as UTF-8"]),
        (bytes(range(1, 256)) * 40, ["not UTF-8 at byte 127"]),
    ],
)
def test_a_text_whose_encoding_is_not_sure_is_a_reject_that_says_what_was_tried(
    data: bytes, words: list[str], tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    (found,) = everything(placed(tmp_path, "files"))
    assert isinstance(found, RawReject)
    assert found.reason == "bad-utf8"
    assert [word for word in ["a.txt: ", *words] if word not in found.detail] == []


@pytest.mark.parametrize("kind", ["books", "text"])
def test_the_texts_of_other_sources_are_in_utf_8(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes((GERMAN * 20).encode("cp1252"))
    (found,) = everything(placed(tmp_path, kind))
    assert isinstance(found, RawReject)
    assert found.reason == "bad-utf8"
