"""The stage `mix`: sets of conversations in, the table `chats` out, whose rows are samples like those of `samples`.

In: the recipe's `mix`. Out: `chats`, set by set in the order of the recipe, each in the order of its files, and rejects
(reasons: `files` and `conversations`). Conversations that stand twice in a set are left out as `duplicate`, those beyond
the count as `not-drawn`, those that the recipe excludes as `withdrawn`.

Each set is read twice: once to know which conversations there are (16 bytes each in memory), once to store those that
were drawn. A draw depends on the seed and the conversation alone.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from longalign_data.engine import Progress, RunOptions
from longalign_data.errors import SourceError
from longalign_data.identity import Plain, digest, uniform
from longalign_data.mixing.conversations import conversation_of, document_span
from longalign_data.mixing.files import Bad, files_of, records
from longalign_data.recipe import LoadedRecipe, MixSet, PlacedMix
from longalign_data.records import Checks, Message, Reject, Sample, Teacher, Usage
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.stage import StageReport, StageWriter
from longalign_data.sources.reading import Unit
from longalign_data.sources.snapshot import Hashes
from longalign_data.tokenizers import Tokenizer, count_tokens, load_tokenizer

STAGE = "mix"
_CHUNK = 512
"""Conversations tokenised at once."""


def mix_inputs(loaded: LoadedRecipe, build: BuildFolder) -> Plain:
    """What identifies the sets: all that the recipe says of their reading, and the hashes of their files."""
    hashes = Hashes(build, "mix-inputs")
    found: list[Plain] = []
    for placed in loaded.mix:
        files: list[Plain] = [
            {"key": name, "sha256": hashes.unit(str(path.parent), Unit(name=name, files=(path.name,), size=0))}
            for name, path in files_of(placed)
        ]
        found.append({"set": placed.set.model_dump(mode="json", exclude={"path", "redistribute"}), "files": files})
    hashes.save()
    return found


def mix(
    loaded: LoadedRecipe, build: BuildFolder, *, fingerprint: str, run: RunOptions, progress: Progress
) -> StageReport:
    """Writes `chats`. `details["sets"]` says of each set what it was asked for, what it holds and what was taken; a set
    that holds less than its count gives all it has. Raises SourceError for a set that cannot be read, or changes while it
    is read."""
    tokenizer = load_tokenizer(loaded.recipe.tokenizer)
    progress.start(STAGE, None, "conversations")
    with StageWriter(build, STAGE, fingerprint=fingerprint, run=run) as writer:
        position = 0
        details: list[dict[str, Any]] = []
        for placed in loaded.mix:
            drawn = _draw(placed, loaded.recipe.seed)
            details.append(drawn.details(placed.set))
            skip = max(0, writer.cursor - position)
            position += len(drawn.fate)
            for chunk in _chunks(placed, drawn, skip):
                lengths = iter(_lengths(chunk, tokenizer, run))
                for where, fate, found in chunk:
                    if isinstance(found, Bad):
                        reject = Reject(id=f"{placed.set.id}/{where}", stage=STAGE, reason=found[0], detail=found[1])
                        writer.reject(reject)
                    elif fate != _TAKEN:
                        writer.leave_out("duplicate" if fate == _TWICE else "not-drawn")
                    else:
                        sample = _sample(placed.set, found, *next(lengths))
                        if sample.sample_id in loaded.recipe.exclude.samples:
                            writer.leave_out("withdrawn")
                        else:
                            writer.write("chats", sample)
                    writer.next_input()
                    progress.advance(items=1)
        return writer.finish({"sets": details})


_BAD, _TWICE, _LEFT, _TAKEN = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """What becomes of each record of a set, in order."""

    fate: npt.NDArray[np.int8]

    def details(self, choice: MixSet) -> dict[str, Any]:
        counts = Counter(self.fate.tolist())
        usable = counts[_LEFT] + counts[_TAKEN]
        asked = choice.count or (round(choice.share * usable) if choice.share is not None else usable)
        return {
            "id": choice.id,
            "records": len(self.fate),
            "usable": usable,
            "asked": asked,
            "taken": counts[_TAKEN],
        }


def _draw(placed: PlacedMix, seed: int) -> _Drawn:
    """The first reading: a conversation's draw is a hash of (seed, set, its id), and the smallest are taken."""
    choice = placed.set
    fate: list[int] = []
    draws: list[float] = []
    for where, record in records(placed):
        turns = record if isinstance(record, Bad) else conversation_of(record, where)
        fate.append(_BAD if isinstance(turns, Bad) else _LEFT)
        if not isinstance(turns, Bad):
            draws.append(uniform(seed, "mix", _sample_id(choice, turns)))
    fates = np.asarray(fate, np.int8)
    usable = np.flatnonzero(fates == _LEFT)
    values, first = np.unique(np.asarray(draws, np.float64), return_index=True)
    fates[usable] = _TWICE
    fates[usable[first]] = _LEFT
    wanted = len(values)
    if choice.count is not None:
        wanted = min(wanted, choice.count)
    elif choice.share is not None:
        wanted = round(choice.share * wanted)
    # `values` are sorted, so the first ones are the smallest.
    fates[usable[first[:wanted]]] = _TAKEN
    return _Drawn(fate=fates)


def _chunks(placed: PlacedMix, drawn: _Drawn, skip: int) -> Iterator[Sequence[tuple[str, int, list[Message] | Bad]]]:
    """The second reading, behind the first `skip` records."""
    fates = iter(drawn.fate[skip:].tolist())
    found = islice(records(placed), skip, None)
    while chunk := list(islice(found, _CHUNK)):
        outcomes = []
        for where, record in chunk:
            fate = next(fates, None)
            turns: list[Message] | Bad = record if isinstance(record, Bad) else conversation_of(record, where)
            if fate is None or isinstance(turns, Bad) != (fate == _BAD):
                raise SourceError(f"mix set {placed.set.id!r}: {where}: changed while it was read; run the build again")
            outcomes.append((where, fate, turns))
        yield outcomes


def _lengths(
    chunk: Sequence[tuple[str, int, list[Message] | Bad]], tokenizer: Tokenizer, run: RunOptions
) -> list[tuple[int, int]]:
    """Tokens of all contents and of the answers, for each conversation that is taken."""
    taken = [turns for _, fate, turns in chunk if fate == _TAKEN and not isinstance(turns, Bad)]
    counts = iter(count_tokens(tokenizer, [turn.content for turns in taken for turn in turns], threads=run.workers))
    lengths = []
    for turns in taken:
        numbers = [(next(counts), turn.role == "assistant") for turn in turns]
        lengths.append((sum(n for n, _ in numbers), sum(n for n, is_answer in numbers if is_answer)))
    return lengths


def _sample_id(choice: MixSet, turns: Sequence[Message]) -> str:
    return digest({"mix": choice.id, "messages": [[turn.role, turn.content] for turn in turns]})


def _sample(choice: MixSet, turns: list[Message], num_tokens: int, num_answer_tokens: int) -> Sample:
    return Sample(
        sample_id=_sample_id(choice, turns),
        doc_ids=[],
        source=choice.id,
        lang=choice.lang,
        task=choice.task,
        messages=turns,
        document_spans=document_span(turns) if choice.document == "before-last-blank-line" else [],
        questions=[],
        question_index=-1,
        teacher=Teacher(provider="dataset", model=choice.id, terms=choice.terms),
        usage=Usage(),
        cost_usd=0.0,
        stop_reason="",
        request_ids=[],
        num_tokens=num_tokens,
        num_answer_tokens=num_answer_tokens,
        checks=Checks(),
        license=choice.license,
    )
