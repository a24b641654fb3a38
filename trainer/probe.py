"""Start-up checks on the very engine, model and attention that will train.

`calibrate`: what does the engine divide by? `probe`: do sequences of a pack see each other, and is our loss the model's own?
Out: nothing, or a LongAlignError. Packing is only exact for models that keep sequences apart; a state-space layer, a short
convolution, a dropped mask or frequencies that follow the longest sequence mix neighbours without any error. The checks take a
second and need no list of models: every module's output is looked at, so that a leak is found where it begins, before rounding
hides it in the residual stream.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from longalign_data.errors import LongAlignError, UserError
from longalign_data.packing.reader import PackBatch
from trainer.batch import MicroBatch, micro_batch
from trainer.engine import Engine, loss_scale
from trainer.errors import first_line, out_of_memory
from trainer.model import mixing
from trainer.objective import Objective, model_inputs
from trainer.world import World

LENGTHS = (23, 41, 16)
"""Of the sequences of the pack. Their ends fall inside the parts of ranks that share it, so that some rank has two of them."""
LOGIT_CAPS = ("final_logit_softcapping", "logits_soft_cap")
"""Settings of models that cap their logits, which small ones do not show."""


def probe(objective: Objective, engine: Engine, world: World, *, longest: int) -> None:
    """Raises UserError when the model cannot take a pack, when another sequence of a pack moves what any module gives for a
    token (by its tokens, or by positions, of which sequences have up to `longest`), when a sequence gives something else at
    another place of a pack or where ranks share it, or when our loss is not the one that the model's own logits give (a model
    that scales or caps its logits). All ranks call it."""
    name = type(objective.model).__name__
    causes = mixing(objective.model.config)
    because = f"; it has {', '.join(causes)}" if causes else ""
    vocabulary = min(objective.model.config.get_text_config().vocab_size, 1000)
    drawn = torch.Generator().manual_seed(0)
    first, middle, last = (
        (ids, 0) for ids in torch.randint(vocabulary, (sum(LENGTHS),), generator=drawn).split(LENGTHS)
    )
    # The changed sequence has the end of a long one in place of its beginning: some models choose frequencies by positions.
    changed = torch.randint(vocabulary, (LENGTHS[1],), generator=drawn), max(longest - LENGTHS[1], 0)
    share = -(-sum(LENGTHS) // world.parts)
    inside = torch.zeros(share * world.parts, dtype=torch.bool)
    inside[LENGTHS[0] : LENGTHS[0] + LENGTHS[1]] = True
    here = slice(world.part * share, (world.part + 1) * share)
    inside = inside[here]
    training = objective.training
    objective.eval()
    try:
        with torch.no_grad(), engine.forward_context():
            with _outputs(objective.model, share) as before:
                unchanged = objective.model(**model_inputs(_pack([first, middle, last], world))).logits[0]
            batch = _pack([first, changed, last], world)
            with _outputs(objective.model, share) as after:
                logits = objective.model(**model_inputs(batch)).logits[0]
            hidden = objective.model.get_decoder()(**model_inputs(batch)).last_hidden_state[0]
            head = objective.model.get_output_embeddings()
            raw = head(hidden.to(head.weight.dtype))
            ours = objective(batch)
            elsewhere = _pack([last, first, changed], dataclasses.replace(world, parts=1))
            alone = objective(elsewhere)
            hidden_alone = objective.model.get_decoder()(**model_inputs(elsewhere)).last_hidden_state[0]
    except (AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
        # The last is what kernels raise at what they cannot do, such as wide heads; but also a rank that is gone.
        if isinstance(error, UserError | dist.DistError) or out_of_memory(error):
            raise
        raise UserError(f"{name} cannot take a pack: {first_line(error)}{because}") from error
    finally:
        objective.train(training)
    # Half-precision kernels may round a neighbour differently, by less than this; a leak moves it by percents and more.
    half = logits.dtype in (torch.bfloat16, torch.float16)
    allowed = 2e-2 if half else 1e-4
    if not float(world.largest((logits - unchanged).abs().max().float())):
        raise UserError(f"{name}: its logits do not depend on its tokens; these weights cannot be trained or checked")
    inside = inside.to(logits.device)
    moves = [(after[place].float() - output.float()).abs().amax(dim=-1) for place, output in before.items()]
    both = world.largest(torch.stack([torch.stack([(m * inside).max(), (m * ~inside).max()]) for m in moves]))
    for place, (own, leaked) in zip(before, both.tolist(), strict=True):
        if leaked > allowed * own:
            raise UserError(
                f"{name}: sequences of one pack see each other, first in {place}, where changing one moved its neighbours by "
                f"{leaked / own if own else 1:.1%} of its own change{because or ': it ignores cu_seqlens'}. This model cannot be "
                "trained on packs here"
            )
    caps = [getattr(objective.model.config.get_text_config(), cap, None) for cap in LOGIT_CAPS]
    # Not the losses alone: where logits are small, as with random weights, all losses are near that of a guess.
    apart, most = world.largest(torch.stack([(raw.float() - logits.float()).abs().max(), logits.float().abs().max()]))
    theirs = F.cross_entropy(logits.float()[batch.target_rows], batch.labels, reduction="none") @ batch.weights.float()
    of_packs = world.sum(torch.stack([ours.double(), theirs.double(), alone.double() / world.parts])).tolist()
    our_loss, their_loss, lone_loss = (total / world.reader[1] for total in of_packs)
    if any(caps) or apart > allowed * most or abs(our_loss - their_loss) > 2e-2 * abs(their_loss):
        raise UserError(
            f"{name}: its logits are not its output head on its last hidden state (loss {our_loss:.4f} against "
            f"{their_loss:.4f}); a model that scales or caps its logits is not supported"
        )
    # The norm, not the largest: experts may take a token or two otherwise where rounding decides.
    wanted = hidden_alone.double().roll(-LENGTHS[2], 0)[here]
    squares = torch.stack([(hidden[: len(wanted)].double() - wanted).square().sum(), wanted.square().sum()])
    off, whole = world.sum(squares).sqrt().tolist()
    if off > (0.1 if half else 1e-3) * whole or abs(our_loss - lone_loss) > (1e-2 if half else 1e-4) * abs(lone_loss):
        why = (
            f"{world.parts} ranks that share a pack compute something else than one of them alone; this model mixes tokens outside "
            "of attention and cannot be trained with sequence_parallel"
            if world.parts > 1
            else "a sequence gives something else at another place of a pack; this model does not follow position_ids and cannot "
            "be trained on packs"
        )
        raise UserError(
            f"{name}: {why} (hidden states by {off / whole:.1%}, a loss of {our_loss:.6f} against {lone_loss:.6f}){because}"
        )


@contextmanager
def _outputs(model: nn.Module, tokens: int) -> Iterator[dict[str, Tensor]]:
    """Name -> what that module gave for each of the `tokens`, [tokens, any], in the order in which they ended."""
    found: dict[str, Tensor] = {}

    def keep(name: str, output: object) -> None:
        tensor = output[0] if isinstance(output, tuple) and output else output
        if isinstance(tensor, Tensor) and tensor.dim() == 3 and tensor.shape[:2] == (1, tokens):
            found[name] = tensor[0].clone()

    hooks = [
        module.register_forward_hook(lambda _, given, output, name=name: keep(name, output))
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _pack(sequences: Sequence[tuple[Tensor, int]], world: World) -> MicroBatch:
    """Sequences with the position of their first token."""
    lengths = [len(ids) for ids, _ in sequences]
    tokens = torch.cat([ids for ids, _ in sequences])
    return micro_batch(
        PackBatch(
            pack_id="probe",
            num_tokens=len(tokens),
            num_sequences=len(sequences),
            input_ids=tokens.numpy(),
            position_ids=torch.cat([torch.arange(start, start + len(ids)) for ids, start in sequences]).numpy(),
            loss_weights=torch.cat([torch.arange(length) > 0 for length in lengths]).double().numpy(),
            cu_seqlens=torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32).numpy(),
            max_seqlen=max(lengths),
        ),
        world.device,
        int(tokens.max()) + 1,
        part=world.part,
        parts=world.parts,
    )


class _Dummy(nn.Module):
    """One parameter; its gradient is whatever it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.parameter = nn.Parameter(torch.zeros(8))

    def forward(self, gradient: Tensor) -> Tensor:
        return (self.parameter * gradient).sum()


def calibrate(make: Callable[[nn.Module], Engine], world: World, accumulation: int, *, tolerance: float) -> None:
    """Runs one step of a dummy parameter through a fresh engine, as the loop would, and compares the gradient with the
    one wanted. Every micro-batch of every rank has its own gradient, 1 ... K, and Z is K; wanted is (K + 1) / 2.
    Raises LongAlignError when the engine divides by anything else than the number of ranks."""
    dummy = _Dummy()
    engine = make(dummy)
    packs = world.ranks * accumulation
    for micro in range(accumulation):
        gradient = torch.tensor(float(micro * world.ranks + world.rank + 1), device=world.device)
        engine.accumulate(gradient, loss_scale(world, packs), last=micro == accumulation - 1)
    found = float(engine.gradient(dummy.parameter).float().mean())
    engine.close()
    wanted = (packs + 1) / 2
    if not math.isclose(found, wanted, rel_tol=tolerance):
        raise LongAlignError(
            f"{type(engine).__name__} gives a gradient of {found:.6g} where {wanted:.6g} was wanted: with {world.ranks} ranks "
            f"and accumulation {accumulation} it divides by {world.ranks * wanted / found if found else math.inf:.6g}, "
            f"not by {world.ranks}; training would be scaled wrongly, so it does not start"
        )
