"""Sequences to packs, packs to steps: filling, loss weights, the plan, and the reader that a trainer sees."""
