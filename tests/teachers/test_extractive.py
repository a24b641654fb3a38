"""The offline teacher: what it says is computed a second time here, from how the documents were made."""

import ast
import json
import pydoc_data.topics
import re
import sysconfig
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from longalign_data.tasks.questions import parse_questions
from longalign_data.tasks.templates import load_templates
from longalign_data.teachers.extractive.kind import Candidate, View
from longalign_data.teachers.extractive.kinds import KINDS, LANGUAGES, ask, recognise
from longalign_data.teachers.extractive.prose import Prose, flat
from longalign_data.teachers.extractive.teacher import CODE_KINDS, PROSE_KINDS, read, respond, task_of

STDLIB = Path(sysconfig.get_paths()["stdlib"])
TASKS = ("general", "summary", "reasoning", "extraction")


@dataclass(frozen=True)
class Made:
    """A document with the sentences it was made of: sections of paragraphs of sentences."""

    text: str
    lang: str
    sections: Sequence[tuple[str, Sequence[Sequence[str]]]]

    @property
    def paragraphs(self) -> list[Sequence[str]]:
        return [paragraph for _, paragraphs in self.sections for paragraph in paragraphs]

    @property
    def sentences(self) -> list[str]:
        return [sentence for paragraph in self.paragraphs for sentence in paragraph]

    def count(self, term: str) -> int:
        """How often a term stands in headings and sentences."""
        return len(whole_words(term).findall("\n".join([heading for heading, _ in self.sections] + self.sentences)))

    def having(self, term: str) -> list[str]:
        return [sentence for sentence in self.sentences if whole_words(term).search(sentence)]

    def first(self, term: str) -> int:
        return self.sentences.index(self.having(term)[0])


def whole_words(term: str) -> re.Pattern[str]:
    """Chinese has no borders between words."""
    return re.compile(rf"(?<![A-Za-z0-9]){term}(?![A-Za-z0-9])" if term.isascii() else term)


NAMES = """
    Adelbert Bonifac Cordula Dietmar Eusebia Florian Gottlob Hedwige Isidora Joachim Kunigun Leopold Mechtil Norbert Ottilie
    Pankraz Quirinu Reinald Sebald Theodor Ursulin Valerie Walburg Xaverio
"""
PEOPLE = "赵云鹤 钱景明 孙若梅 李长庚 周远帆 吴静秋 郑思齐 王书怀 冯雪竹 陈牧野 楚江寒 卫青松"
THINGS = "lanterns barrels ledgers candles mirrors compasses violins carpets"
GOODS = "灯笼 铜镜 竹席 墨锭 茶砖 丝绸 瓷碗 油纸伞"
PLACES = "harbour monastery orchard observatory lighthouse foundry quarry library"
SITES = "渡口 书院 茶园 驿站 码头 学堂 铁铺 药铺"


def english() -> Made:
    names, things, places = NAMES.split(), THINGS.split(), PLACES.split()
    sections = []
    number = 0
    for part in range(8):
        paragraphs = []
        for _ in range(3):
            paragraph = []
            for turn in range(4):
                name, thing = names[number % len(names)], things[(number // 3) % len(things)]
                paragraph.append(
                    [
                        f"In the year {1200 + 7 * number} Mr. {name} brought {number + 13} {thing} to the {places[part]}.",
                        f"The keeper of the {places[part]}, who had no use for {thing}, sold {number + 2} of them again.",
                        f"Nobody asked {name} why the price had risen to {5000 + number} crowns.",
                        f"Was it wise to wait {number + 101} days for the answer of Dr. {name}?",
                    ][turn]
                )
                number += 1
            paragraphs.append(paragraph)
        sections.append((f"Part {part + 1} of the {places[part]}", paragraphs))
    blocks = []
    for heading, paragraphs in sections:
        blocks.append(f"{heading}\n{'=' * len(heading)}")
        blocks += ["\n".join(wrapped(" ".join(paragraph), 70)) for paragraph in paragraphs]
    return Made("\n\n".join(blocks) + "\n", "en", sections)


def wrapped(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split(" "):
        if len(line) + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line]


def chinese() -> Made:
    people, goods, places = PEOPLE.split(), GOODS.split(), SITES.split()
    sections = []
    number = 0
    for part in range(8):
        paragraphs = []
        for _ in range(3):
            person, good, place = people[number % 12], goods[(number // 2) % 8], places[part]
            paragraphs.append(
                [
                    f"{person}在第{1200 + 7 * number}号{place}买下了{number + 13}件{good}，打算秋天运往南方。",
                    f"看守{place}的老人并不需要{good}，却仍然收下了其中的{number + 2}件！",
                    f"后来没有人再问起{person}，为什么价钱会涨到{5000 + number}文钱？",
                    f"等了{number + 101}天，那封回信才送到{place}，此事见于《{person}日记》。",
                ]
            )
            number += 1
        sections.append((f"第{'一二三四五六七八'[part]}章 {places[part]}往事", paragraphs))
    blocks = []
    for heading, paragraphs in sections:
        blocks.append(heading)
        blocks += ["".join(paragraph) for paragraph in paragraphs]
    return Made("\n\n".join(blocks) + "\n", "zh", sections)


def beginning(made: Made, words: str) -> int:
    (number,) = [number for number, sentence in enumerate(made.sentences) if sentence.startswith(words)]
    return number


def quoted(made: Made, sentence: str) -> str:
    return f"“{sentence}”" if made.lang == "en" else f"「{sentence}」"


def says_in_order(answer: str, parts: Sequence[str]) -> bool:
    position = 0
    for part in parts:
        position = answer.find(part, position)
        if position < 0:
            return False
        position += len(part)
    return True


Truth = Callable[[Made, Sequence[str], str], bool]


def _section_of(made: Made, sentence: str) -> str:
    return next(heading for heading, paragraphs in made.sections for each in paragraphs if sentence in each)


def _quarters(made: Made) -> list[str]:
    places = []
    position = 0
    for sentence in made.sentences:
        pattern = r"\s+".join(map(re.escape, sentence.split(" ")))
        match = re.compile(pattern).search(made.text, position)
        assert match
        places.append((match.start(), sentence))
        position = match.end()
    size = len(made.text)
    return [next(sentence for start, sentence in places if start >= size * quarter / 4) for quarter in range(4)]


def _lines(made: Made) -> list[str]:
    return [line.strip() for line in made.text.split("\n") if line.strip()]


PROSE_TRUTH: dict[str, Truth] = {
    "next-sentence": lambda m, s, a: quoted(m, m.sentences[beginning(m, s[0]) + 1]) in a,
    "previous-sentence": lambda m, s, a: quoted(m, m.sentences[beginning(m, s[0]) - 1]) in a,
    "between": lambda m, s, a: says_in_order(
        a, [quoted(m, each) for each in m.sentences[beginning(m, s[0]) + 1 : beginning(m, s[1])]]
    ),
    "paragraph-end": lambda m, s, a: quoted(m, next(p[-1] for p in m.paragraphs if p[0].startswith(s[0]))) in a,
    "next-line": lambda m, s, a: quoted(m, _lines(m)[_lines(m).index(s[0]) + 1]) in a,
    "mention": lambda m, s, a: [quoted(m, each) in a for each in m.having(s[0])] == [True],
    "count": lambda m, s, a: (
        str(m.count(s[0])) in re.findall(r"\d+", a.replace("once", "1").replace("twice", "2"))
        and quoted(m, m.sentences[m.first(s[0])]) in a
    ),
    "trace": lambda m, s, a: (
        f"{m.count(s[0])} " in a and says_in_order(a, [quoted(m, m.having(s[0])[end]) for end in (0, -1)])
    ),
    "first-of-two": lambda m, s, a: says_in_order(
        a, [part for term in sorted(s, key=m.first) for part in (term, quoted(m, m.sentences[m.first(term)]))][:2]
    ),
    "order": lambda m, s, a: says_in_order(a, sorted(s, key=lambda term: _place(m, term))),
    "compare": lambda m, s, a: (
        says_in_order(a, [max(s, key=m.count), str(max(map(m.count, s)))]) and str(min(map(m.count, s))) in a
    ),
    "outline": lambda m, s, a: says_in_order(
        a, [h for h, _ in m.sections][[h for h, _ in m.sections].index(s[0]) :][: _span(m, s)]
    ),
    "section-opening": lambda m, s, a: quoted(m, next(p[0][0] for h, p in m.sections if h == s[0])) in a,
    "section-of": lambda m, s, a: quoted(m, _section_of(m, m.sentences[beginning(m, s[0])])) in a,
    "overview": lambda m, s, a: says_in_order(a, [quoted(m, each) for each in _quarters(m)]),
    "ends": lambda m, s, a: says_in_order(a, [quoted(m, m.sentences[0]), quoted(m, m.sentences[-1])]),
}


def _place(made: Made, term: str) -> int:
    whole = re.sub(r"\s+", " " if made.lang == "en" else "", made.text)
    return whole_words(term).search(whole).start()  # type: ignore[union-attr]  # the term is there


def _span(made: Made, slots: Sequence[str]) -> int:
    titles = [heading for heading, _ in made.sections]
    return titles.index(slots[1]) - titles.index(slots[0]) + 1


def tree(name: str) -> dict[str, str]:
    """The files of a package of the standard library."""
    return {
        file.relative_to(STDLIB).as_posix(): file.read_text(encoding="utf-8").rstrip()
        for file in sorted((STDLIB / name).rglob("*.py"))
    }


def joined(files: dict[str, str]) -> str:
    return "\n".join(f"==> {path} <==\n{text}\n" for path, text in files.items())


Node = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Package:
    """A package as Python itself reads it: definitions in the order of their lines, over all files."""

    def __init__(self, name: str) -> None:
        self.files = tree(name)
        self.trees = {path: ast.parse(text) for path, text in self.files.items()}
        self._definitions = {
            path: sorted((node for node in ast.walk(module) if isinstance(node, Node)), key=lambda node: node.lineno)
            for path, module in self.trees.items()
        }

    def definitions(self, path: str) -> list[Node]:
        return self._definitions[path]

    def find(self, name: str) -> tuple[str, int]:
        (found,) = [
            (path, number)
            for path in self.files
            for number, node in enumerate(self.definitions(path))
            if node.name == name
        ]
        return found

    def node(self, name: str) -> Node:
        path, number = self.find(name)
        return self.definitions(path)[number]

    def methods(self, name: str) -> list[str]:
        return [n.name for n in self.node(name).body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]

    def top_level(self, path: str) -> list[str]:
        return [node.name for node in self.trees[path].body if isinstance(node, Node)]

    def header(self, name: str) -> str:
        """The source from the keyword to the line before the body."""
        path, _ = self.find(name)
        node = self.node(name)
        lines = self.files[path].split("\n")
        return flat("\n".join(lines[node.lineno - 1 : max(node.lineno, node.body[0].lineno - 1)]))


CodeTruth = Callable[[Package, Sequence[str], str], bool]


def _next_name(package: Package, name: str) -> str:
    path, number = package.find(name)
    return package.definitions(path)[number + 1].name


def _import_lines(package: Package, path: str) -> list[str]:
    text = package.files[path].split("\n")
    nodes = [n for n in package.trees[path].body if isinstance(n, ast.Import | ast.ImportFrom)]
    return [flat(text[node.lineno - 1].split("#")[0]) for node in nodes]


def _order_of(package: Package, name: str) -> tuple[int, int]:
    path, number = package.find(name)
    return list(package.files).index(path), number


CODE_TRUTH: dict[str, CodeTruth] = {
    "files": lambda p, s, a: says_in_order(a, [f"`{path}`" for path in p.files]),
    "definitions": lambda p, s, a: (
        re.findall(r"`(\w+)`", a.split(":")[1]) == p.top_level(s[0]) and f" {len(p.top_level(s[0]))} " in a
    ),
    "methods": lambda p, s, a: (
        re.findall(r"`(\w+)`", a.split(":")[1]) == p.methods(s[0]) and f" {len(p.methods(s[0]))}:" in a
    ),
    "next-definition": lambda p, s, a: re.search(rf"`(?:async )?(?:def|class) {_next_name(p, s[0])}\b", a) is not None,
    "defined-in": lambda p, s, a: f"`{p.find(s[0])[0]}`" in a,
    "signature": lambda p, s, a: (
        re.match(r"It is declared as `(.*)`", a)[1].removeprefix("async ")  # type: ignore[index]  # it is
        in p.header(s[0])
    ),
    "docstring": lambda p, s, a: (
        flat(a.removeprefix("Its first line says: “").removesuffix("”"))
        in flat((ast.get_docstring(p.node(s[0])) or "").replace("\\", ""))
        or "\\" in a
    ),
    "first-defined": lambda p, s, a: says_in_order(
        a,
        [
            f"`{min(s, key=lambda n: _order_of(p, n))}` is defined first",
            _next_name(p, min(s, key=lambda n: _order_of(p, n))),
        ],
    ),
    "more-methods": lambda p, s, a: says_in_order(
        a, [f"`{max(s, key=lambda n: len(p.methods(n)))}`", str(max(len(p.methods(n)) for n in s))]
    ),
    "most-definitions": lambda p, s, a: (
        f"`{max(p.files, key=lambda f: len(p.top_level(f)))}`" in a
        and str(max(len(p.top_level(f)) for f in p.files)) in a
    ),
    "imports": lambda p, s, a: says_in_order(a, _import_lines(p, s[0])),
    "identifier": lambda p, s, a: (
        len(re.findall(rf"\b{s[0]}\b", joined(p.files))) == int(re.search(r"occurs (\d+) times", a)[1])  # type: ignore[index]  # it does
    ),
}


def test_every_kind_of_question_has_a_second_computation_of_its_answer() -> None:
    assert PROSE_TRUTH.keys() | CODE_TRUTH.keys() == KINDS.keys()
    assert {kind for table in (PROSE_KINDS, CODE_KINDS) for kinds in table.values() for kind in kinds} <= KINDS.keys()


def candidates(view: View, kind: str, most: int = 40) -> list[Candidate]:
    found = list(KINDS[kind].propose(view))
    return found[:: max(1, len(found) // most)]


def answer_of(document: str, question: str) -> str:
    reply = read(respond(document, question))
    assert reply.stop_reason == "end_turn", (question, reply.detail)
    for start, end in reply.evidence:
        assert 0 <= start < end <= len(document)
        assert flat(document[start:end]) in reply.text, (question, document[start:end])
    assert reply.evidence, question
    return reply.text


@pytest.mark.parametrize("kind", PROSE_TRUTH)
@pytest.mark.parametrize("made", [english(), chinese()], ids=["en", "zh"])
def test_every_answer_about_prose_is_true(made: Made, kind: str) -> None:
    asked = 0
    for candidate in candidates(View(made.text), kind):
        question = ask(KINDS[kind], candidate, made.lang)
        if question:
            answer = answer_of(made.text, question)
            assert PROSE_TRUTH[kind](made, candidate.slots, answer), (question, answer)
            asked += 1
    assert asked > 0


PACKAGES = [Package("json"), Package("importlib")]


@pytest.mark.parametrize("kind", CODE_TRUTH)
@pytest.mark.parametrize("package", PACKAGES, ids=["json", "importlib"])
def test_every_answer_about_source_code_is_true(package: Package, kind: str) -> None:
    text = joined(package.files)
    asked = 0
    for candidate in candidates(View(text), kind, most=12):
        question = ask(KINDS[kind], candidate, "en")
        if question:
            answer = answer_of(text, question)
            assert CODE_TRUTH[kind](package, candidate.slots, answer), (question, answer)
            asked += 1
    assert asked > 0


@pytest.mark.parametrize(
    "line",
    [
        "Section 104 of report 1 says that unit 104 was inspected.",
        "Chapter 3 Smith went to the market!",
        "Part 2 Nobody knows why?”",
        "Section 12, as we saw above",
        "Chapter 5 describes what the keeper of the harbour told Mr",
        "Chapter 5\nof the book tells more.",
        "1.5 Million people came to the harbour.",
        "3.14 Is the number that everybody in the harbour, young and old, knew by heart then",
    ],
)
def test_a_sentence_that_begins_like_a_chapter_is_no_heading(line: str) -> None:
    assert Prose(f"The beginning of it.\n\n{line}\n\nThe end of it.\n").headings == []


@pytest.mark.parametrize(
    "title",
    [
        "CHAPTER I", "CHAPTER I.", "Chapter 12", "CHAPTER II. THE POOL OF TEARS.", "Chapter 3: the harbour", "Part IV The Sea",
        "Section 7 - Boats", "2.1 Installing", "第三章 渡口往事", "2.1 安装",
    ],
)  # fmt: skip
def test_a_chapter_with_a_number_is_a_heading(title: str) -> None:
    assert [heading.title for heading in Prose(f"It began.\n\n{title}\n\nIt went on.\n").headings] == [title]


def test_reports_whose_sentences_begin_with_sections_are_not_said_to_stand_under_them() -> None:
    document = "\n\n".join(
        f"Section {number} of report 1 says that unit {number} was inspected.\n\nThe unit of number {number} was in order then."
        for number in range(100, 160)
    )
    for task in TASKS:
        questions = parse_questions(respond(document, load_templates().instruction(task, "en"))["text"])
        assert len(questions) == 5
        assert not any("heading" in question or "the section “" in question for question in questions)


@pytest.mark.parametrize("kind", KINDS)
def test_every_question_is_recognised_as_what_it_is_and_every_chinese_one_is_answered(kind: str) -> None:
    text = joined(tree("json")) if kind in CODE_TRUTH else chinese().text
    for candidate in candidates(View(text), kind, most=5):
        for lang in LANGUAGES:
            question = ask(KINDS[kind], candidate, lang)
            if question:
                assert recognise(question) == (kind, lang, candidate.slots)
                answer_of(text, question)


DOCUMENTS = {
    "made english": (english().text, "en"),
    "made chinese": (chinese().text, "zh"),
    "documentation": (max(pydoc_data.topics.topics.values(), key=len), "en"),
    "json": (joined(tree("json")), "en"),
    "one module": ((STDLIB / "argparse.py").read_text(encoding="utf-8"), "en"),
    "a list": ("\n".join(f"Entry number {number} of the list" for number in range(200)), "en"),
    "code, asked in chinese": (joined(tree("json")), "zh"),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_task_gets_five_questions_over_the_whole_document_and_an_answer_to_each(name: str, task: str) -> None:
    document, lang = DOCUMENTS[name]
    instruction = load_templates().instruction(task, lang)
    reply = read(respond(document, instruction))
    questions = parse_questions(reply.text)
    assert len(questions) == 5
    places = []
    for question in questions:
        answer_of(document, question)
        places += [start / len(document) for start, _ in read(respond(document, question)).evidence]
    assert min(places) < 0.34
    assert max(places) > 0.5


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("task", TASKS)
def test_every_built_in_instruction_is_taken_for_its_task(task: str, lang: str) -> None:
    assert task_of(load_templates().instruction(task, lang)) == task


def test_the_four_tasks_ask_different_things_of_one_document() -> None:
    for lang, document in (("en", english().text), ("zh", chinese().text), ("en", joined(tree("json")))):
        replies = {respond(document, load_templates().instruction(task, lang))["text"] for task in TASKS}
        assert len(replies) == len(TASKS)


def test_the_same_request_gets_the_same_reply() -> None:
    instruction = load_templates().instruction("general", "en")
    assert respond(english().text, instruction) == respond(english().text, instruction)


@pytest.mark.parametrize("document", ["", "   \n\n ", "x", "短。", "One.\nTwo.", "\x00", "# # #", '"""', "class A:\n"])
def test_a_document_with_nothing_to_ask_about_gets_no_question_and_no_error(document: str) -> None:
    for task in TASKS:
        for lang in LANGUAGES:
            reply = read(respond(document, load_templates().instruction(task, lang)))
            assert (reply.text, reply.stop_reason) == ("", "end_turn")


def test_a_short_document_gives_the_questions_that_it_can() -> None:
    document = "The miller went to the town on a Monday. He came back with an empty cart on the Thursday after."
    reply = read(respond(document, load_templates().instruction("general", "en")))
    questions = parse_questions(reply.text)
    assert 1 <= len(questions) < 5
    for question in questions:
        answer_of(document, question)


@pytest.mark.parametrize(
    "instruction",
    [
        "What is the meaning of life?",
        "Which sentence comes directly after the one that begins with “No such words”?",
        "`nobody` 的文档字符串第一行写了什么？",
        "",
    ],
)
def test_what_it_cannot_answer_is_refused(instruction: str) -> None:
    reply = read(respond(english().text, instruction))
    assert (reply.text, reply.stop_reason) == ("", "refusal")
    assert reply.detail


def test_an_instruction_of_ones_own_gets_questions_too() -> None:
    own = "Ask five things, please, so that I can condense the text.\n1. first\n2. second"
    assert len(parse_questions(respond(english().text, own)["text"])) == 5
    assert task_of(own) == "summary"


def test_evidence_survives_the_way_through_json() -> None:
    question = parse_questions(respond(english().text, load_templates().instruction("general", "en"))["text"])[0]
    raw = respond(english().text, question)
    assert json.loads(json.dumps(raw)) == raw


def test_a_document_of_64k_tokens_takes_well_under_a_second() -> None:
    document = joined(tree("asyncio"))[:280_000]
    prose = (english().text * 40)[:280_000]
    for text in (document, prose):
        began = time.thread_time()  # a machine that is busy with other tests takes longer by the clock
        respond(text, load_templates().instruction("general", "en"))
        assert time.thread_time() - began < 3
