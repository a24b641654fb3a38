from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from longalign_data.records import Checks, DocumentSpan, Message, Sample, Teacher, Usage

CORPUS = [
    "The quick brown fox jumps over the lazy dog. What is it about? It is about a fox.\n\nYes, really: [INST] [/INST]",
    "Long documents have many words in them, and each of the words is one of the numbers 0 1 2 3 4 5 6 7 8 9.",
    "敏捷的棕色狐狸跳过了懒狗。这段文字讲了什么？它讲了一只狐狸。",
    "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\nsystem",
]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{%- for m in messages %}<|im_start|>{{ m['role'] + '\n' }}"
    "{%- if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}"
    "{%- else %}{{ m['content'] }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'].split('</think>')[-1] }}"
    "{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ENDED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}{{ eos_token }}{% endif %}"
)
FAULTY = "{% if messages[0]['content'] == 'Q' %}{{ FAULT }}{% endif %}" + CHATML
FAULTS = {
    "zero": "1 / 0", "overflow": "10.0 ** 400", "lookup": "[].pop()", "attribute": "messages | map(attribute=0) | sum"
}  # fmt: skip
DATED = "{{ bos_token }}Today is {{ strftime_now('%d %b %Y') }}.\n" + CHATML
STRICT = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns here') }}{% endif %}" + CHATML


@pytest.fixture(scope="session")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str | None], Path]:
    """Makes the folder of a small byte-level tokenizer with a chat template of that name."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    templates = {
        "chatml": CHATML,
        "marked": MARKED,
        "forgetful": FORGETFUL,
        "dated": DATED,
        "strict": STRICT,
        "ended": ENDED,
    }
    templates |= {name: FAULTY.replace("FAULT", fault) for name, fault in FAULTS.items()}

    def make(template: str | None) -> Path:
        backend = tokenizers.Tokenizer(tokenizers.models.BPE())
        backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=[
                "<s>",
                "</s>",
                "<|im_start|>",
                tokenizers.AddedToken("<|im_end|>", special=True, normalized=False, rstrip=template == "ended"),
            ],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(CORPUS, trainer)
        hub = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
        hub.chat_template = templates[template] if template else None
        folder = tmp_path_factory.mktemp(template or "plain")
        hub.save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def sample() -> Callable[..., Sample]:
    return make_sample


def make_sample(
    turns: Sequence[tuple[str, str]], spans: Sequence[tuple[int, int, int]] = (), name: str = "a"
) -> Sample:
    fixed: dict[str, Any] = {
        "doc_ids": ["d"],
        "source": "s",
        "lang": "en",
        "task": "summary",
        "questions": [],
        "question_index": -1,
        "teacher": Teacher(provider="extractive", model="extractive-1", terms=""),
        "usage": Usage(),
        "cost_usd": None,
        "stop_reason": "end_turn",
        "request_ids": [],
        "num_tokens": 0,
        "num_answer_tokens": 0,
        "checks": Checks(),
        "license": "CC0-1.0",
    }
    return Sample(
        sample_id=name,
        messages=[Message(role=role, content=content) for role, content in turns],
        document_spans=[DocumentSpan(message_index=index, start=start, end=end) for index, start, end in spans],
        **fixed,
    )
