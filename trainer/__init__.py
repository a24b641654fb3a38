"""A thin trainer on the packs of a build: stock Hugging Face models, block-diagonal attention, an exact loss.

    __main__   the command line: build, model, configuration -> one run in one folder
    config     the YAML configuration, strict
    model      a stock causal LM with one of our attention functions; its export
    attention  block-diagonal attention, registered through Transformers' AttentionInterface
    batch      a pack as tensors: which hidden rows predict which labels with which weight
    loss       sum(w * CE) over those rows only, in chunks
    engine     one process, DDP or DeepSpeed behind four methods; the start-up measurement of what they divide by
    probe      the start-up check that neighbours in a pack do not see each other, on the model at hand
    guard      losses that would spoil the weights, packs that do not fit into memory
    checkpoints
               which one to go on from, how it is written, other numbers of ranks
    loop       a run: start-up checks, the plan's steps, the export
    metrics    loss by group, utilisation, memory and idle of a step; `flops` counts the operations
    logs       metrics to a file, the terminal and trackers

The arithmetic in one line: a step's gradient is grad(sum of w * CE over all its packs) / Z, where w and Z come from the
build and Z is of the *whole* step, so neither ranks nor accumulation nor the shape of a pack can change it.
"""
