"""What can be told of running text without understanding it: paragraphs, sentences, headings, lines, words.

In: the text of a document. Out: spans of it (characters, start inclusive, end exclusive). English and Chinese; sentences
of other languages that end in `.`, `!` or `?` are found as well.
"""

import bisect
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_CJK = HAN + "\u3040-\u30ff"

_PARAGRAPH = re.compile(r"\S(?:.*\S)?(?:\n(?![ \t]*\n)[ \t]*\S.*)*")
_END = re.compile(r"[。！？]+[”’」』）]*|[.!?]+[\"'”’)\]]*(?=\s|$)")
_NEXT_BEGINS = re.compile(rf"\s*[\"'“‘(\[]*(?:[A-Z0-9À-Þ]|[{HAN}])")
_LAST_WORD = re.compile(r"(\w+(?:\.\w+)*)\.$")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ABBREVIATIONS = _words(
    """
    mr mrs ms dr prof st vs etc e.g i.e cf no nos vol fig figs al jr sr inc ltd co corp approx dept est gen col capt rev
    hon lt sgt jan feb mar apr jun jul aug sep sept oct nov dec pp ch sec ed eds a.m p.m ca viz resp
    """
)
_PLAIN = re.compile(r"[^|`<>{}\\\t*_~]*")
_PAIRS = [("(", ")"), ("（", "）"), ("“", "”"), ("「", "」"), ("《", "》"), ("[", "]"), ("『", "』")]
_COLUMNS = re.compile(r"\S(?:[ ]{2,}|[ ]*\t)\S")
_ENGLISH = re.compile(r"[\"“(]?[A-ZÀ-Þ].*[a-z0-9)\"”'’][.!?][\"'”’)]*", re.DOTALL)
_CHINESE = re.compile(rf"[“「《（(]?[{HAN}A-Z0-9].*[。！？][”」』）]*", re.DOTALL)
_HAN = re.compile(rf"[{HAN}]")
WORD = re.compile(rf"[^\W{_CJK}]+")

_WIKI_HEADING = re.compile(r"^(={2,6})[ \t]*(?P<title>[^=\n]{2,80}?)[ \t]*\1[ \t]*$", re.MULTILINE)
_HASH_HEADING = re.compile(r"^#{1,6}[ \t]+(?P<title>\S[^\n]{1,79}?)[ \t#]*$", re.MULTILINE)
_UNDERLINED = re.compile(r"^(?P<title>\S[^\n]{1,79})\n(?P<rule>([=\-~^\"'#*+.:`])\3{2,})[ \t]*$", re.MULTILINE)
_CHAPTER = re.compile(
    r"^[ \t]*(?P<title>(?:CHAPTER|Chapter|PART|Part|BOOK|Book|SECTION|Section)[ \t]+(?:[IVXLC]+|\d+)\b[^\n]{0,60}?"
    r"|第[一二三四五六七八九十百千零〇两\d]+[章节節回篇部卷条條][^\n。！？]{0,40}?"
    rf"|\d+(?:\.\d+)+\.?[ \t]+[A-Z{HAN}][^\n]{{1,60}}?)[ \t]*$",
    re.MULTILINE,
)
_SENTENCE_END = re.compile(r"[.!?,;][\"'”’)\]]*$")
_BARE_CHAPTER = re.compile(r"[A-Za-z]+[ \t]+\w+\.")
_GOES_ON = re.compile(r"[A-Za-z]+[ \t]+\w+(?:[,;)]|[ \t]+[a-zà-þ])")
_SMALL_LINE = re.compile(r"\n[ \t]*[a-zà-þ]")

_COMMON_ENGLISH = _words(
    """
    about above after again against almost along already also although always among another anything around because
    become before behind being below between beyond both cannot could during either enough every everything except
    first following from further getting given going having hence herself himself however indeed instead itself likely
    little looking making might nothing often other others ought perhaps quite rather really second seemed several
    should simply since something sometimes still such than their themselves there therefore these things think those
    though through together toward towards under unless until using usually various where whether which while whole
    whose within without would yourself
    """
)
_COMMON_HAN = frozenset(
    "的了是在和有不我他她它这那也就都而及与或为于以之其被把对从到个们来去上下中着过得地等可能会要所但并很更最已还又如则者吗呢吧啊"
    "一二三四五六七八九十年月日曰矣乎焉哉兮無无何此"
)


@dataclass(frozen=True, slots=True)
class Span:
    """Characters of a document."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Sentence(Span):
    """A sentence with the number of its paragraph. `flat` is its text on one line; `is_clean` says that it begins and
    ends as a sentence does and holds no markup, so that it can be quoted by itself."""

    paragraph: int
    flat: str
    is_clean: bool


@dataclass(frozen=True, slots=True)
class Heading(Span):
    """A heading; the span is that of its title."""

    title: str
    body: int
    """Where the text below it begins."""


@dataclass(frozen=True, slots=True)
class Term:
    """A word or name with the places where it stands."""

    text: str
    positions: Sequence[int]


def flat(text: str) -> str:
    """The text on one line: a break between two Han characters vanishes, any other run of white space becomes a space."""
    text = re.sub(rf"(?<=[{_CJK}，。；：、！？”」』》）])\s*\n\s*(?=[{_CJK}“「『《（])", "", text)
    return " ".join(text.split())


class Prose:
    """A document as running text. Everything is found on first use and kept."""

    def __init__(self, text: str, *, hash_headings: bool = True) -> None:
        self.text = text
        self._hash_headings = hash_headings

    @cached_property
    def is_chinese(self) -> bool:
        """Whether Han characters outnumber a quarter of the words in Latin and other letters."""
        sample = self.text[:20_000] + self.text[-20_000:]
        num_han = len(_HAN.findall(sample))
        return num_han > 20 and 4 * num_han > len(WORD.findall(sample))

    @cached_property
    def paragraphs(self) -> list[Span]:
        """Runs of lines without a blank line between them."""
        return [Span(*match.span()) for match in _PARAGRAPH.finditer(self.text)]

    @cached_property
    def sentences(self) -> list[Sentence]:
        """All sentences in order; none crosses a paragraph."""
        found: list[Sentence] = []
        for number, paragraph in enumerate(self.paragraphs):
            start = paragraph.start
            for match in _END.finditer(self.text, paragraph.start, paragraph.end):
                if self._ends_sentence(match, start, paragraph.end):
                    found.append(self._sentence(start, match.end(), number))
                    start = match.end()
            if self.text[start : paragraph.end].strip():
                found.append(self._sentence(start, paragraph.end, number))
        return found

    def _ends_sentence(self, match: re.Match[str], start: int, limit: int) -> bool:
        if match[0][0] in "。！？" or match.end() >= limit:
            return True
        if not _NEXT_BEGINS.match(self.text, match.end(), limit):
            return False
        if not match[0].startswith("."):
            return True
        word = _LAST_WORD.search(self.text, max(start, match.start() - 24), match.start() + 1)
        return not word or (word[1].lower() not in _ABBREVIATIONS and (len(word[1]) > 1 or word[1].isdigit()))

    def _sentence(self, start: int, end: int, paragraph: int) -> Sentence:
        raw = self.text[start:end]
        start += len(raw) - len(raw.lstrip())
        line = flat(raw)
        return Sentence(start=start, end=end, paragraph=paragraph, flat=line, is_clean=_is_clean(line, raw))

    @cached_property
    def _starts(self) -> list[int]:
        return [sentence.start for sentence in self.sentences]

    @cached_property
    def _sorted_flats(self) -> list[tuple[str, int]]:
        return sorted((sentence.flat, number) for number, sentence in enumerate(self.sentences))

    def sentence_at(self, position: int) -> int | None:
        """The number of the sentence that holds a character."""
        number = bisect.bisect_right(self._starts, position) - 1
        return number if number >= 0 and position < self.sentences[number].end else None

    def sentence_beginning(self, words: str) -> int | None:
        """The number of the only sentence that begins with these words, or None when there is none or more than one."""
        first = bisect.bisect_left(self._sorted_flats, (words, -1))
        matching = [number for line, number in self._sorted_flats[first : first + 2] if line.startswith(words)]
        return matching[0] if len(matching) == 1 else None

    def opening(self, number: int) -> str | None:
        """The first words of a sentence, enough to tell it from all others; None when they are not."""
        line = self.sentences[number].flat
        if _HAN.search(line[:12]):
            words = line[: min(14, max(4, len(line) * 2 // 3))]
        else:
            parts = line.split(" ")
            words = " ".join(parts[: min(8, max(3, len(parts) * 2 // 3))])
        return words if self.sentence_beginning(words) == number else None

    @cached_property
    def headings(self) -> list[Heading]:
        """Headings in order: underlined, `== wiki ==`, `# hash` and numbered or named chapters."""
        found: dict[int, Heading] = {}
        patterns = [_WIKI_HEADING, _UNDERLINED, _CHAPTER]
        if self._hash_headings:
            patterns.append(_HASH_HEADING)
        for pattern in patterns:
            for match in pattern.finditer(self.text):
                if pattern is _UNDERLINED and not _is_rule_for(match):
                    continue
                if pattern is _CHAPTER and not _is_chapter(match):
                    continue
                start, end = match.span("title")
                title = match["title"].strip()
                found.setdefault(start, Heading(start=start, end=end, title=title, body=match.end()))
        return [found[start] for start in sorted(found)]

    @cached_property
    def lines(self) -> list[Span]:
        """Lines that are not blank, without the white space around them."""
        return [Span(*match.span()) for match in re.finditer(r"\S(?:[^\n]*\S)?", self.text)]

    @cached_property
    def words(self) -> Mapping[str, Sequence[int]]:
        """Every word (a maximal run of letters, digits and underscores, none of them CJK) with its places."""
        places: defaultdict[str, list[int]] = defaultdict(list)
        for match in WORD.finditer(self.text):
            places[match[0]].append(match.start())
        return places

    def occurrences(self, term: str) -> Sequence[int]:
        """Where a term stands: as a whole word, or for a term with Han characters wherever its characters do."""
        if _HAN.search(term):
            return [match.start() for match in re.finditer(re.escape(term), self.text)]
        return self.words.get(term, ())

    @cached_property
    def terms(self) -> list[Term]:
        """Words worth asking about, by their first place: names, figures and long words; in Chinese titles, quoted
        words, foreign words and frequent short strings."""
        chosen = self._chinese_terms() if self.is_chinese else self._english_terms()
        # "Different" at the head of a sentence is a mention of "different" to a reader and not to a search.
        spellings = Counter(word.casefold() for word in self.words)
        chosen = {word for word in chosen if spellings[word.casefold()] <= 1}
        terms = [Term(text, self.occurrences(text)) for text in chosen]
        return sorted((term for term in terms if term.positions), key=lambda term: (term.positions[0], term.text))

    def _english_terms(self) -> set[str]:
        names = set(re.findall(r"(?<=[a-z,;] )[A-Z][a-z]{2,}\w*(?![\w'’])", self.text))
        chosen = {word for word in names if len(word) >= 4}
        for word, places in self.words.items():
            is_figure = word.isdigit() and len(word) in {3, 4} and len(places) == 1
            is_long = word.isalpha() and word.islower() and len(word) >= (10 if len(places) == 1 else 6)
            if is_figure or (is_long and word not in _COMMON_ENGLISH):
                chosen.add(word)
        return {word for word in chosen if "_" not in word}

    def _chinese_terms(self) -> set[str]:
        chosen = set(re.findall(rf"[《“「]([{HAN}]{{2,12}})[》”」]", self.text))
        chosen |= {word for word in self.words if len(word) >= 3 and word.isascii() and word[0].isalpha()}
        chosen |= {match[0] for match in re.finditer(r"(?<!\d)\d{3,4}(?!\d)", self.text) if match[0] in self.words}
        pairs: Counter[str] = Counter()
        for run in re.findall(rf"[{HAN}]{{2,}}", self.text):
            pairs.update(run[i : i + 2] for i in range(len(run) - 1))
        frequent = [pair for pair, count in pairs.most_common(400) if count >= 3 and not _COMMON_HAN & set(pair)]
        chosen |= set(frequent[:80])
        # A string broken over two lines would be counted by a reader and not by a search.
        joined = re.sub(rf"(?<=[{HAN}])\n[ \t\u3000]*(?=[{HAN}])", "", self.text)
        return {term for term in chosen if not _HAN.search(term) or joined.count(term) == self.text.count(term)}


def _is_clean(line: str, raw: str) -> bool:
    if not _PLAIN.fullmatch(line) or "::" in line or _COLUMNS.search(raw):
        return False
    if any(line.count(opening) != line.count(closing) for opening, closing in _PAIRS) or line.count('"') % 2:
        return False
    if _HAN.search(line):
        return 10 <= len(line) <= 200 and len(_HAN.findall(line)) >= 8 and bool(_CHINESE.fullmatch(line))
    return len(line) <= 400 and 5 <= len(line.split(" ")) <= 60 and bool(_ENGLISH.fullmatch(line))


def _is_chapter(match: re.Match[str]) -> bool:
    """Sentences begin with "Section 104" too, and lines of wrapped text do. A title does not end as a sentence does unless
    it is a bare number or in capitals throughout ("CHAPTER II. THE SEA."), and no sentence goes on after or below it."""
    title = match["title"].strip()
    if _HAN.search(title):
        return True
    if _SENTENCE_END.search(title) and not (_BARE_CHAPTER.fullmatch(title) or title.isupper()):
        return False
    goes_on = _GOES_ON.match(title) or _SMALL_LINE.match(match.string, match.end())
    return goes_on is None and len(title.split()) <= 12


def _is_rule_for(match: re.Match[str]) -> bool:
    title = match["title"].strip()
    is_text = any(letter.isalpha() for letter in title) and not title.startswith((".. ", "- ", "* "))
    width = sum(2 if ord(letter) > 0x2E80 else 1 for letter in title)
    return is_text and len(match["rule"]) >= min(width, len(title))
