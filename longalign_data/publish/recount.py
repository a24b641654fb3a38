"""The figures of a plan, counted again from the packs that were written.

In: packs in the order of training, each with its entry of the plan. Out: what `packing.figures` says of them, to be held
against what the manifest says.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from longalign_data.packing.figures import figures
from longalign_data.packing.pack import shape_of
from longalign_data.packing.steps import Plan
from longalign_data.recipe import PackSequences

ROUNDED = {"fill": 2e-6}
"""Figures are rounded to four digits but these; sums of stored weights may differ in the last."""


class Recount:
    """Takes packs one by one; holds some 24 bytes for each of their sequences."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._lengths = array("q")
        self._totals = array("d")
        self._sequences = array("q")
        self._pack_starts = array("q", [0])
        self._step_starts = array("q", [0])
        self._capacity = array("q")
        self._epoch = array("q")

    def add(self, entry: Mapping[str, Any], sequences: Iterable[tuple[str, int, float]]) -> None:
        """The next pack, of whose sequences name, tokens and what they add to Z are given."""
        for name, length, total in sequences:
            number = self._numbers.setdefault(name, len(self._numbers))
            if number == len(self._lengths):
                self._lengths.append(length)
                self._totals.append(total)
            self._sequences.append(number)
        if entry["position"] == 0:
            self._step_starts.append(0)
            self._capacity.append(entry["capacity"])
            self._epoch.append(entry["epoch"])
        self._pack_starts.append(len(self._sequences))
        self._step_starts[-1] = len(self._pack_starts) - 1

    def wrong(self, details: Mapping[str, Any], choice: PackSequences) -> Iterator[str]:
        """What the details of the stage `pack` say otherwise."""
        plan = Plan(
            sequences=np.asarray(self._sequences, np.int64),
            pack_starts=np.asarray(self._pack_starts, np.int64),
            step_starts=np.asarray(self._step_starts, np.int64),
            step_capacity=np.asarray(self._capacity, np.int64),
            step_epoch=np.asarray(self._epoch, np.int64),
        )
        lengths, totals = np.asarray(self._lengths, np.int64), np.asarray(self._totals, np.float64)
        for name, found in figures(plan, lengths, totals, shape_of(choice)).items():
            if not _same(details.get(name), found, ROUNDED.get(name, 2e-4)):
                yield f"{name} {details.get(name)}; counted from the packs it is {found}"


def _same(said: Any, found: Any, tolerance: float) -> bool:
    if isinstance(found, Mapping):
        return (
            isinstance(said, Mapping)
            and said.keys() == found.keys()
            and all(_same(said[name], value, tolerance) for name, value in found.items())
        )
    if isinstance(found, list):
        return (
            isinstance(said, list)
            and len(said) == len(found)
            and all(_same(*pair, tolerance) for pair in zip(said, found, strict=True))
        )
    if isinstance(found, float) and isinstance(said, int | float):
        return bool(np.isclose(said, found, rtol=1e-5, atol=tolerance))
    return bool(said == found)
