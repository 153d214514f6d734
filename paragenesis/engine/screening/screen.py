"""Screening: one verdict a crystal, for generated and imported crystals alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from paragenesis.crystals import Crystals, IntArray
from paragenesis.engine.screening.fingerprint import fingerprints
from paragenesis.engine.screening.novelty import Seen
from paragenesis.engine.screening.reference import Reference, load_reference
from paragenesis.engine.screening.settings import ScreeningSettings
from paragenesis.engine.screening.validity import invalid_reasons
from paragenesis.engine.verdict import KEPT, Verdict

STAGE = "screen"


class Obeyed(Protocol):
    """What screening needs of a condition."""

    def violations(self, crystals: Crystals, symprec: float, *, relaxed: bool) -> list[str]:
        """How each crystal breaks the condition, or ""."""
        ...


@dataclass(frozen=True)
class Screening:
    """What screening says of n crystals.

    Attributes:
        verdicts: One a crystal, `n` of them.
        keys: Fingerprint keys, `n` of them; "" for crystals that were rejected before they got one.
        space_groups: International numbers, shape `n`; 0 where not found.
    """

    verdicts: tuple[Verdict, ...]
    keys: tuple[str, ...]
    space_groups: IntArray


class Screen:
    """Judges batches of crystals; the reference set is loaded once, at construction."""

    def __init__(self, settings: ScreeningSettings) -> None:
        """A screen with its reference set.

        Raises:
            InputError: The reference file does not exist or cannot be read.
        """
        self.settings = settings
        self.reference: Reference | None = load_reference(settings) if settings.novelty else None

    def screen(self, crystals: Crystals, condition: Obeyed, seen: Seen, *, relaxed: bool = False) -> Screening:
        """Judge crystals in order: valid, obeying the condition, symmetric data found, not a duplicate, novel.

        A later copy inside the batch is a duplicate of the first kept one. `seen` is only read: whoever keeps the
        campaign's books adds what was kept, so that a batch judged twice gets the same verdicts.

        Args:
            crystals: The batch, `n` crystals.
            condition: What the crystals were asked to be.
            seen: Crystals of earlier batches.
            relaxed: They were relaxed, so that their geometry is no longer the one they were made with.
        """
        verdicts = [KEPT] * len(crystals)
        alive = _reject(verdicts, np.arange(len(crystals)), invalid_reasons(crystals, self.settings))
        if alive.size:
            broken = condition.violations(crystals[alive], self.settings.symprec, relaxed=relaxed)
            alive = _reject(verdicts, alive, [reason and f"condition: {reason}" for reason in broken])
        keys, groups = [""] * len(crystals), np.zeros(len(crystals), dtype=np.int64)
        found = fingerprints(crystals[alive], self.settings.symprec)
        groups[alive] = found.space_groups
        here = Seen(self.settings)
        for index, key, error in zip(alive.tolist(), found.keys, found.errors, strict=True):
            keys[index] = key
            verdicts[index] = self._verdict(crystals[index], key, error, (here, seen))
            if verdicts[index] is KEPT:
                here.add(crystals[index], [key])
        return Screening(tuple(verdicts), tuple(keys), groups)

    def _verdict(self, crystal: Crystals, key: str, error: str, registries: Sequence[Seen]) -> Verdict:
        """The verdict on a valid crystal that obeys the condition."""
        if error:
            return Verdict("failed", STAGE, error)
        for registry in registries:
            if (twin := registry.match(crystal, key)) is not None:
                return Verdict("rejected", STAGE, f"duplicate: of {twin}")
        if self.reference is not None and (known := self.reference.match(crystal, key)) is not None:
            return Verdict("rejected", STAGE, f"known: as {known} in {self.reference.name}")
        return KEPT


def _reject(verdicts: list[Verdict], which: IntArray, reasons: Sequence[str]) -> IntArray:
    """Write a rejection for every reason that is not empty; the indices of the others."""
    for index, reason in zip(which.tolist(), reasons, strict=True):
        if reason:
            verdicts[index] = Verdict("rejected", STAGE, reason)
    return which[[not reason for reason in reasons]]
