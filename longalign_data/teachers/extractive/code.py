"""Questions about source code: files, definitions, imports, identifiers."""

from collections.abc import Iterator
from itertools import pairwise

from longalign_data.teachers.extractive.kind import Candidate, Kind, Saying, Slots, View, shuffled
from longalign_data.teachers.extractive.prose import Span
from longalign_data.teachers.extractive.source import Definition


def _propose_files(view: View) -> Iterator[Candidate]:
    if 2 <= len(view.source.files) <= 60:
        yield Candidate((), None)


def _answer_files(view: View, slots: Slots, say: Saying) -> str | None:
    del slots
    files = view.source.files
    if not files[0].path:
        return None
    paths = [say.code(Span(file.path_start, file.path_start + len(file.path))) for file in files]
    return say.either(
        f"It consists of {len(paths)} files, in this order: {say.listing(paths)}.",
        f"一共有 {len(paths)} 个文件，依次是：{say.listing(paths)}。",
    )


def _propose_definitions(view: View) -> Iterator[Candidate]:
    for number, file in enumerate(view.source.files):
        if file.path and 2 <= len(view.source.top_level(number)) <= 40 and view.source.file_named(file.path) == number:
            yield Candidate((file.path,), file.start)


def _answer_definitions(view: View, slots: Slots, say: Saying) -> str | None:
    number = view.source.file_named(slots[0])
    definitions = view.source.top_level(number) if number is not None else []
    if not definitions:
        return None
    names = [_named(definition, say) for definition in definitions]
    return say.either(
        f"`{slots[0]}` defines {len(names)} at its left margin: {say.listing(names)}.",
        f"`{slots[0]}` 在最外层定义了 {len(names)} 个，依次是：{say.listing(names)}。",
    )


def _named(definition: Definition, say: Saying) -> str:
    """`class Foo` or `bar`, with its place as evidence."""
    name_at = definition.start + say.text[definition.start : definition.end].index(definition.name, 2)
    quoted = say.code(Span(name_at, name_at + len(definition.name)))
    return say.either(f"the class {quoted}", f"类 {quoted}") if definition.is_class else quoted


def _propose_methods(view: View) -> Iterator[Candidate]:
    for number, methods in view.source.methods.items():
        definition = view.source.definitions[number]
        names = [method.name for method in methods]
        if 2 <= len(names) <= 40 and len(set(names)) == len(names) and view.source.only(definition.name) == number:
            yield Candidate((definition.name,), definition.start)


def _answer_methods(view: View, slots: Slots, say: Saying) -> str | None:
    number = view.source.only(slots[0])
    methods = view.source.methods.get(number) if number is not None else None
    if not methods:
        return None
    names = [_named(method, say) for method in methods]
    return say.either(
        f"`{slots[0]}` defines {len(names)}: {say.listing(names)}.",
        f"`{slots[0]}` 定义了 {len(names)} 个，依次是：{say.listing(names)}。",
    )


def _propose_next_definition(view: View) -> Iterator[Candidate]:
    definitions = view.source.definitions
    for number, (definition, following) in enumerate(pairwise(definitions)):
        if definition.file == following.file and view.source.only(definition.name) == number:
            yield Candidate((definition.name,), definition.start)


def _answer_next_definition(view: View, slots: Slots, say: Saying) -> str | None:
    number = view.source.only(slots[0])
    definitions = view.source.definitions
    if number is None or number + 1 >= len(definitions) or definitions[number + 1].file != definitions[number].file:
        return None
    following = say.code(definitions[number + 1])
    return say.either(f"The next definition is {following}", f"下一个定义是 {following}")


def _propose_only_definitions(view: View) -> Iterator[Candidate]:
    for number, definition in enumerate(view.source.definitions):
        if view.source.only(definition.name) == number and len(definition.name) >= 3:
            yield Candidate((definition.name,), definition.start)


def _propose_defined_in(view: View) -> Iterator[Candidate]:
    if len(view.source.files) >= 2:
        yield from _propose_only_definitions(view)


def _answer_defined_in(view: View, slots: Slots, say: Saying) -> str | None:
    number = view.source.only(slots[0])
    if number is None:
        return None
    definition = view.source.definitions[number]
    file = view.source.files[definition.file]
    if not file.path:
        return None
    path = say.code(Span(file.path_start, file.path_start + len(file.path)))
    header = say.code(definition)
    return say.either(f"It is defined in {path}, where it says {header}", f"它定义在 {path} 中，定义是 {header}")


def _answer_signature(view: View, slots: Slots, say: Saying) -> str | None:
    number = view.source.only(slots[0])
    if number is None:
        return None
    header = say.code(view.source.definitions[number])
    return say.either(f"It is declared as {header}", f"它的声明是 {header}")


def _propose_docstring(view: View) -> Iterator[Candidate]:
    for number, definition in enumerate(view.source.definitions):
        if view.source.only(definition.name) == number and view.source.docstring_line(definition):
            yield Candidate((definition.name,), definition.start)


def _answer_docstring(view: View, slots: Slots, say: Saying) -> str | None:
    number = view.source.only(slots[0])
    line = view.source.docstring_line(view.source.definitions[number]) if number is not None else None
    if line is None:
        return None
    return say.either(f"Its first line says: {say.quote(line)}", f"第一行写的是：{say.quote(line)}")


def _propose_first_defined(view: View) -> Iterator[Candidate]:
    chosen = [
        number
        for number, definition in enumerate(view.source.definitions)
        if view.source.only(definition.name) == number and len(definition.name) >= 3
    ]
    step = len(chosen) // 2
    for first, second in zip(chosen, chosen[step:], strict=False):
        one, other = view.source.definitions[first], view.source.definitions[second]
        following = view.source.definitions[first + 1] if first < second else one
        if first != second and following.file == one.file:
            yield Candidate(shuffled([one.name, other.name]), one.start)


def _answer_first_defined(view: View, slots: Slots, say: Saying) -> str | None:
    one, other = (view.source.only(slot) for slot in slots)
    if one is None or other is None or one == other:
        return None
    definitions = view.source.definitions
    first = min(one, other)
    if definitions[first + 1].file != definitions[first].file:
        return None
    earlier, following, later = (say.code(definitions[number]) for number in (first, first + 1, max(one, other)))
    return say.either(
        f"`{definitions[first].name}` is defined first, as {earlier} The definition right after it is {following} "
        f"`{definitions[max(one, other)].name}` comes later, as {later}",
        f"先定义的是 `{definitions[first].name}`，即 {earlier} 紧接着的定义是 {following} "
        f"`{definitions[max(one, other)].name}` 在后面定义，即 {later}",
    )


def _propose_more_methods(view: View) -> Iterator[Candidate]:
    classes = [
        (view.source.definitions[number], len(methods))
        for number, methods in view.source.methods.items()
        if methods and view.source.only(view.source.definitions[number].name) == number
    ]
    step = len(classes) // 2
    for (one, count), (other, other_count) in zip(classes, classes[step:], strict=False):
        if count != other_count:
            yield Candidate(shuffled([one.name, other.name]), one.start)


def _answer_more_methods(view: View, slots: Slots, say: Saying) -> str | None:
    numbers = [view.source.only(slot) for slot in slots]
    counts = {slot: view.source.methods.get(-1 if n is None else n) for slot, n in zip(slots, numbers, strict=True)}
    if not all(counts.values()):
        return None
    often, seldom = sorted(slots, key=lambda slot: -len(counts[slot] or ()))
    many, few = (len(counts[slot] or ()) for slot in (often, seldom))
    for number in numbers:
        if number is not None:
            _named(view.source.definitions[number], say)
    if many == few:
        return say.either(f"Both define {many}.", f"两者都定义了 {many} 个。")
    return say.either(
        f"`{often}` defines more: {many}, against {few} in `{seldom}`.",
        f"`{often}` 定义得更多：{many} 个，而 `{seldom}` 只有 {few} 个。",
    )


def _most_definitions(view: View) -> int | None:
    counts = [len(view.source.top_level(number)) for number in range(len(view.source.files))]
    return counts.index(max(counts)) if len(counts) >= 2 and counts.count(max(counts)) == 1 else None


def _propose_most_definitions(view: View) -> Iterator[Candidate]:
    if _most_definitions(view) is not None:
        yield Candidate((), None)


def _answer_most_definitions(view: View, slots: Slots, say: Saying) -> str | None:
    del slots
    number = _most_definitions(view)
    if number is None:
        return None
    file = view.source.files[number]
    count = len(view.source.top_level(number))
    path = say.code(Span(file.path_start, file.path_start + len(file.path)))
    return say.either(f"{path} defines the most: {count}.", f"{path} 定义得最多，共 {count} 个。")


def _propose_imports(view: View) -> Iterator[Candidate]:
    for number, file in enumerate(view.source.files):
        if file.path and 2 <= len(view.source.imports(number)) <= 30 and view.source.file_named(file.path) == number:
            yield Candidate((file.path,), file.start)


def _answer_imports(view: View, slots: Slots, say: Saying) -> str | None:
    number = view.source.file_named(slots[0])
    imports = view.source.imports(number) if number is not None else []
    if not imports:
        return None
    lines = [say.code(line) for line in imports]
    return say.either(
        f"There are {len(lines)}: {say.listing(lines)}." if len(lines) > 1 else f"There is one: {lines[0]}.",
        f"一共有 {len(lines)} 行：{say.listing(lines)}。",
    )


def _propose_identifier(view: View) -> Iterator[Candidate]:
    for number, definition in enumerate(view.source.definitions):
        places = view.prose.occurrences(definition.name)
        if 3 <= len(places) <= 60 and len(definition.name) >= 4 and view.source.only(definition.name) == number:
            yield Candidate((definition.name,), definition.start)


def _answer_identifier(view: View, slots: Slots, say: Saying) -> str | None:
    places = view.prose.occurrences(slots[0])
    if not places:
        return None
    line = next(line for line in view.prose.lines if line.start <= places[0] < line.end)
    return say.either(
        f"`{slots[0]}` occurs {say.times(len(places))}. The first line with it is {say.code(line)}",
        f"`{slots[0]}` 一共出现了 {say.times(len(places))}。第一次出现在这一行：{say.code(line)}",
    )


KINDS = {
    "files": Kind(
        en="Which files does the source consist of, in order?",
        zh="这份源代码由哪些文件组成？请按顺序列出。",
        propose=_propose_files,
        answer=_answer_files,
    ),
    "definitions": Kind(
        en="Which functions and classes does `{a}` define at the left margin, in order?",
        zh="`{a}` 在最外层依次定义了哪些函数和类？",
        propose=_propose_definitions,
        answer=_answer_definitions,
    ),
    "methods": Kind(
        en="Which methods does the class `{a}` define directly in its body, and how many are they?",
        zh="类 `{a}` 在类体中直接定义了哪些方法？一共有几个？",
        propose=_propose_methods,
        answer=_answer_methods,
    ),
    "next-definition": Kind(
        en="Which function or class is the next to be defined after `{a}`?",
        zh="在 `{a}` 之后，下一个定义的函数或类是什么？",
        propose=_propose_next_definition,
        answer=_answer_next_definition,
    ),
    "defined-in": Kind(
        en="In which file is `{a}` defined, and how does its definition begin?",
        zh="`{a}` 定义在哪个文件中？它的定义是怎样开头的？",
        propose=_propose_defined_in,
        answer=_answer_defined_in,
    ),
    "signature": Kind(
        en="How is `{a}` declared? Quote the whole header of its definition.",
        zh="`{a}` 是如何声明的？请引用其定义的完整首部。",
        propose=_propose_only_definitions,
        answer=_answer_signature,
    ),
    "docstring": Kind(
        en="What does the first line of the docstring of `{a}` say?",
        zh="`{a}` 的文档字符串第一行写了什么？",
        propose=_propose_docstring,
        answer=_answer_docstring,
    ),
    "first-defined": Kind(
        en="Which is defined first, `{a}` or `{b}`, and what is the definition right after it?",
        zh="`{a}` 和 `{b}` 哪一个先定义？紧接在它之后的定义是什么？",
        propose=_propose_first_defined,
        answer=_answer_first_defined,
    ),
    "more-methods": Kind(
        en="Which class defines more methods directly in its body, `{a}` or `{b}`?",
        zh="类 `{a}` 和类 `{b}`，哪一个在类体中直接定义的方法更多？",
        propose=_propose_more_methods,
        answer=_answer_more_methods,
    ),
    "most-definitions": Kind(
        en="Which file defines the most functions and classes at the left margin, and how many?",
        zh="哪个文件在最外层定义的函数和类最多？有多少个？",
        propose=_propose_most_definitions,
        answer=_answer_most_definitions,
    ),
    "imports": Kind(
        en="Which import statements stand at the left margin of `{a}`? Quote the first line of each.",
        zh="`{a}` 的最外层有哪些 import 语句？请引用每条语句的第一行。",
        propose=_propose_imports,
        answer=_answer_imports,
    ),
    "identifier": Kind(
        en="How many times does `{a}` occur in the source as a whole word, and which line is the first with it?",
        zh="`{a}` 作为完整的词在源代码中一共出现了多少次？第一次出现在哪一行？",
        propose=_propose_identifier,
        answer=_answer_identifier,
    ),
}
