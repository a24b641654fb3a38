"""Every teacher there is."""

from longalign_data.recipe import TeacherChoice
from longalign_data.records import Teacher as TeacherRecord
from longalign_data.teachers import anthropic, extractive, openai
from longalign_data.teachers.base import Connection, Provider, Teacher

PROVIDERS: dict[str, Provider] = {
    "extractive": Provider(
        open=extractive.ExtractiveTeacher, read=extractive.read, terms=extractive.TERMS, is_free=True
    ),
    "anthropic": Provider(
        open=anthropic.AnthropicTeacher,
        read=anthropic.read,
        terms=anthropic.TERMS,
        notice=lambda base_url: anthropic.NOTICE,
    ),
    "openai": Provider(open=openai.OpenAITeacher, read=openai.read, terms=openai.TERMS, notice=openai.notice),
}


def load_teacher(
    choice: TeacherChoice,
    *,
    api_key: str | None = None,
    base_url: str | None = None,
    timeout_s: float = 600.0,
    retry_s: float = 600.0,
    concurrency: int = 64,
    prompt_cache: bool = True,
    calls_per_document: int = 2,
) -> Teacher:
    """The teacher that a recipe chose; what else is given says how it is reached (`base.Connection`).

    Nothing is connected before its first request, so a build whose replies all stand in the ledger needs no key.
    """
    connection = Connection(
        api_key=api_key,
        base_url=base_url,
        timeout_s=timeout_s,
        retry_s=retry_s,
        concurrency=concurrency,
        prompt_cache=prompt_cache,
        calls_per_document=calls_per_document,
    )
    return PROVIDERS[choice.provider].open(choice, connection)


def teacher_record(choice: TeacherChoice) -> TeacherRecord:
    """What a sample says about its teacher; the provider's default terms where the recipe states none."""
    terms = choice.terms if choice.terms is not None else PROVIDERS[choice.provider].terms
    return TeacherRecord(provider=choice.provider, model=choice.model, terms=terms)
