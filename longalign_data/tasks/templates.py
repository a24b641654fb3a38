"""Prompt files: what a teacher is told when it is to ask about a document.

In: the built-in files of `prompts/` and the recipe's own. Out: `Templates`. One file:

    task: summary
    version: 1
    instructions:
      en: |
        Write five requests ... 1: the first request ...
      zh: |
        ...
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from longalign_data import yamlfile
from longalign_data.errors import RecipeError
from longalign_data.identity import digest
from longalign_data.yamlfile import Strict

PROMPTS = Path(__file__).parent / "prompts"
FALLBACK_LANGUAGE = "en"

REPLY_READER = 2
"""Version of `questions.parse_questions`; raised when the same reply would be read differently."""


class TaskTemplate(Strict):
    """One task: for each language the instruction that follows a document when its questions are asked for.

    A document in a language without an instruction gets the English one, or the first of the file where there is no
    English. `version` is raised with every change of a text, so that two data sets can be told apart by number.
    """

    task: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    version: Annotated[int, Field(gt=0)]
    instructions: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], Annotated[str, Field(min_length=1)]], Field(min_length=1)
    ]

    @field_validator("instructions")
    @classmethod
    def _not_blank(cls, value: dict[str, str]) -> dict[str, str]:
        stripped = {lang: text.strip() for lang, text in value.items()}
        blank = [lang for lang, text in stripped.items() if not text]
        if blank:
            raise ValueError(f"the instruction for {blank[0]!r} is blank; write one or take the language out")
        return stripped

    def language_for(self, lang: str) -> str:
        """The language whose instruction a document in `lang` gets."""
        if lang in self.instructions:
            return lang
        return FALLBACK_LANGUAGE if FALLBACK_LANGUAGE in self.instructions else next(iter(self.instructions))


@dataclass(frozen=True, slots=True)
class Templates:
    """The tasks at hand, by name."""

    by_task: Mapping[str, TaskTemplate]

    @property
    def identity(self) -> str:
        """A hash of every text and version and of how replies are read; part of the generate stage's fingerprint."""
        tasks = {name: template.model_dump() for name, template in self.by_task.items()}
        return digest({"tasks": tasks, "reply_reader": REPLY_READER})

    def only(self, tasks: Iterable[str]) -> "Templates":
        """The templates of these tasks alone. Raises RecipeError for a task without one, with the known tasks."""
        wanted = list(tasks)
        unknown = [task for task in wanted if task not in self.by_task]
        if unknown:
            raise RecipeError(
                f"no prompt file for {', '.join(map(repr, unknown))}; known tasks: "
                f"{', '.join(sorted(self.by_task))}. A task of your own needs a file under generate.templates"
            )
        return Templates({task: self.by_task[task] for task in sorted(set(wanted))})

    def instruction(self, task: str, lang: str) -> str:
        """What the teacher is told for this task after a document in `lang`."""
        template = self.by_task[task]
        return template.instructions[template.language_for(lang)]


def load_templates(files: Sequence[Path] = ()) -> Templates:
    """The built-in tasks and those of `files`; a task in `files` replaces the built-in one of that name.

    Raises RecipeError naming file, line and key, or both files when two of them hold the same task.
    """
    by_task = {template.task: template for template in map(_load, sorted(PROMPTS.glob("*.yaml")))}
    owner: dict[str, Path] = {}
    for path in files:
        template = _load(path)
        if template.task in owner:
            raise RecipeError(
                f"{path}: task {template.task!r} is already in {owner[template.task]}; keep one of the two"
            )
        owner[template.task] = path
        by_task[template.task] = template
    return Templates(by_task)


def _load(path: Path) -> TaskTemplate:
    return yamlfile.load(path, TaskTemplate)
