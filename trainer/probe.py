"""Start-up checks on the very model, attention and engine that will train.

In: an `Objective` inside its engine. Out: nothing, or a LongAlignError that says what leaks. Packing is only exact for
models that keep sequences apart; a state-space layer, a short convolution or a dropped mask mixes neighbours without
any error. The checks take a second and need no list of models.
"""

import dataclasses

import torch
import torch.nn.functional as F

from longalign_data.errors import UserError
from longalign_data.packing.reader import PackBatch
from trainer.batch import MicroBatch, micro_batch
from trainer.engine import Engine, World
from trainer.loss import Objective, model_inputs

LENGTHS = (24, 40, 16)


def probe(objective: Objective, engine: Engine, world: World) -> None:
    """Raises UserError when another sequence of a pack moves a token's logits, when our loss is not the one that the model's
    own logits give (a model that scales or caps its logits), or when ranks that share a pack do not compute what one of
    them alone does. All ranks call it."""
    vocabulary = min(objective.model.config.get_text_config().vocab_size, 1000)
    drawn = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocabulary, (sum(LENGTHS),), generator=drawn)
    other = torch.randint(vocabulary, (sum(LENGTHS),), generator=drawn)
    middle = slice(LENGTHS[0], LENGTHS[0] + LENGTHS[1])
    changed = tokens.clone()
    changed[middle] = other[middle]
    share = -(-len(tokens) // world.parts)
    inside = torch.zeros(share * world.parts, dtype=torch.bool)
    inside[middle] = True
    inside = inside[world.part * share : (world.part + 1) * share]
    training = objective.training
    objective.eval()
    try:
        with torch.no_grad(), engine.forward_context():
            batch = _pack(tokens, world)
            before = objective.model(**model_inputs(batch)).logits[0]
            after = objective.model(**model_inputs(_pack(changed, world))).logits[0]
            ours = objective(batch)
            alone = objective(_pack(tokens, dataclasses.replace(world, parts=1)))
    finally:
        objective.train(training)
    # Half-precision kernels may round a neighbour differently; a leak moves it by percents.
    allowed = 1e-3 if before.dtype in (torch.bfloat16, torch.float16) else 1e-5
    before, after = before.float(), after.float()
    moved = (after - before).abs().amax(dim=-1)
    inside = inside.to(moved.device)
    own, leaked = world.largest(torch.stack([(moved * inside).max(), (moved * ~inside).max()])).tolist()
    name = type(objective.model).__name__
    if own == 0:
        raise UserError(f"{name}: its logits do not depend on its tokens; these weights cannot be trained or checked")
    if leaked > allowed * own:
        raise UserError(
            f"{name}: sequences of one pack see each other: changing one moved its neighbours' logits by "
            f"{leaked / own:.2%} of its own change. This model (a state-space or convolution layer, or attention that ignores "
            "cu_seqlens) cannot be trained on packs"
        )
    theirs = F.cross_entropy(before[batch.target_rows], batch.labels, reduction="none") @ batch.weights.to(before.dtype)
    of_packs = world.sum(torch.stack([ours.double(), theirs.double(), alone.double() / world.parts])).tolist()
    our_loss, their_loss, lone_loss = (total / world.reader[1] for total in of_packs)
    if abs(our_loss - their_loss) > 2e-2 * abs(their_loss):
        raise UserError(
            f"{name}: its logits are not its output head on its last hidden state (loss {our_loss:.4f} against "
            f"{their_loss:.4f}); a model that scales or caps its logits is not supported"
        )
    if abs(our_loss - lone_loss) > 10 * allowed * abs(lone_loss):
        raise UserError(
            f"{name}: {world.parts} ranks that share a pack compute a loss of {our_loss:.6f}, one alone {lone_loss:.6f}; this "
            "model mixes tokens outside of attention and cannot be trained with sequence_parallel"
        )


def _pack(tokens: torch.Tensor, world: World) -> MicroBatch:
    borders = [0]
    for length in LENGTHS:
        borders.append(borders[-1] + length)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    return micro_batch(
        PackBatch(
            pack_id="probe",
            num_tokens=len(tokens),
            num_sequences=len(LENGTHS),
            input_ids=tokens.numpy(),
            position_ids=positions.numpy(),
            loss_weights=(positions > 0).double().numpy(),
            cu_seqlens=torch.tensor(borders, dtype=torch.int32).numpy(),
            max_seqlen=max(LENGTHS),
        ),
        world.device,
        int(tokens.max()) + 1,
        part=world.part,
        parts=world.parts,
    )
