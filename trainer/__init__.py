"""A thin trainer on the packs of a build: stock Hugging Face models, block-diagonal attention, an exact loss.

The arithmetic in one line: a step's gradient is grad(sum of w * CE over all its packs) / Z, where w and Z come from the
build and Z is of the *whole* step, so neither ranks nor accumulation nor the shape of a pack can change it.

To trust it, read these in this order; they hold all of the arithmetic:

    batch       a pack as tensors: which hidden rows predict which labels with which weight
    loss        sum(w * CE) over those rows only, in chunks, and its gradient
    attention   block-diagonal attention, registered through Transformers' AttentionInterface
    objective   model, attention and loss as the one module that is trained
    engine      one process, DDP or DeepSpeed behind the same few methods; what they divide by
    probe       what is measured at the start instead of being believed
    loop        `train_step`, then the run around it

and these for what surrounds it:

    config      the YAML configuration, strict, and the learning rate of a step
    settings    whether DeepSpeed knows what a user's file asks of it
    world       the ranks
    fused       the same loss through Liger's kernels, where they are installed
    model       a stock causal LM, longer contexts, adapters; its export
    checkpoints which one to go on from, how it is written, other numbers of ranks
    guard       losses that would spoil the weights, packs that do not fit into memory
    __main__    the command line; `options` is what all commands share
    errors      what other libraries raise, in one line

Two folders change nothing about what is trained. `measure/` is what a step says of itself: losses by group, operations, idle,
logs. `tools/` are commands of their own: batch methods side by side (`python -m trainer.compare`), what a sequence costs
(`python -m trainer.fit_work_model`), who pulls at the weights (`python -m trainer.tools.gradients`).
"""
