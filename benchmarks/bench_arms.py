"""What the benchmark of generators compares: its arms as plain data, and one-element substitution."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from paragenesis.crystals import Crystals, IntArray
from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.generators.contract import Generator, refuse_unhonoured
from paragenesis.engine.generators.ions import ion_table
from paragenesis.engine.generators.volume import at_predicted_volume
from paragenesis.engine.plugins import build_generator
from paragenesis.settings import Settings

TEMPLATES = "training.extxyz"  # the training crystals, written to the work folder
WHOLE = {"templates": [TEMPLATES], "partial_share": 0.0}  # every element of a crystal may change, no single sites
GUIDED = {"properties": [{"property": "energy_above_hull", "low": 0.0, "high": 0.0}], "guidance": 3.0}
AS_DRAWN = {"known": "allow", "element_temperature": 1.0, "geometry_temperature": 1.0, "tries": 1, "strain": 1e9}


@dataclass(frozen=True)
class Arm:
    """A generator with its settings and what is asked of it.

    Attributes:
        name: How tables call it.
        use: A generator's alias, "package.module:Name" or "file.py:Name".
        options: Its settings; the word `TEMPLATES` in them stands for the file of training crystals.
        condition: What is asked for.
        weights: Which of its options name weights, by the learned generator that they are of.
    """

    name: str
    use: str
    options: Mapping[str, Any] = field(default_factory=dict)
    condition: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)

    def generator(self, work: Path) -> Generator:
        """The generator, built; relative paths in its options start from the work folder."""
        return build_generator(self.use, self.options, work)

    @property
    def wanted(self) -> Condition:
        """The condition."""
        return Condition.parse(self.condition)

    def with_weights(self, weights: Mapping[str, Path]) -> Arm:
        """The same arm with other weights for the learned generators named."""
        given = {option: str(weights[use].resolve()) for use, option in self.weights.items() if use in weights}
        return replace(self, options={**self.options, **given})

    @property
    def digest(self) -> str:
        """A hash of everything that was said about the arm, weights included."""
        said = hashlib.sha256(json.dumps([self.use, self.options, self.condition], sort_keys=True).encode())
        for use, option in sorted(self.weights.items()):
            file = Path(self.options.get(option) or shipped_weights(use))
            said.update(file.read_bytes() if file.is_file() else b"")
        return said.hexdigest()[:12]


def shipped_weights(use: str) -> Path:
    """Where a learned generator's weights lie in the package."""
    import paragenesis.engine.generators as package

    return Path(package.__file__).parent / "weights" / f"{use}.safetensors"


_W, _F = {"wyckoff": "weights"}, {"flow": "weights"}
ARMS = (
    Arm("substitution, one element", f"{__name__}:OneElement", {"templates": TEMPLATES}),
    Arm("substitution, aggressive", "substitution", {**WHOLE, "temperature": 2.0}),
    Arm("substitution, as shipped", "substitution", {"templates": [TEMPLATES]}),  # single sites too, temperature 3
    Arm("wyckoff", "wyckoff", weights=_W),
    Arm("wyckoff, guided", "wyckoff", condition=GUIDED, weights=_W),
    Arm("wyckoff, new templates", "wyckoff", {"new_templates": 0.45}, weights=_W),
    Arm("wyckoff, guided, new templates", "wyckoff", {"new_templates": 0.45}, GUIDED, weights=_W),
    Arm("wyckoff, as drawn", "wyckoff", AS_DRAWN, weights=_W),
    Arm("flow", "flow", weights=_F),
    Arm("flow, training templates", "flow", {"templates": "projected"}, weights=_F),
    Arm("wyckoff refined by flow", f"{__name__}:Refined", weights={"wyckoff": "wyckoff", "flow": "flow"}),
)


class OneElementSettings(Settings):
    """Where the crystals come from.

    Attributes:
        templates: An extxyz file.
    """

    templates: str = Field(min_length=1)


class OneElement:
    """Mild substitution: exactly one element of a known crystal becomes another of its group, cell rescaled.

    The project's generator draws every element anew, so it cannot be asked for this. Crystal, element and its
    replacement are drawn uniformly; the replacement is not radioactive, no noble gas, and not in the crystal already.
    Lanthanides count as one group, and so do actinides.
    """

    honours: frozenset[str] = frozenset({"min_atoms", "max_atoms"})

    def __init__(self, settings: OneElementSettings, directory: Path) -> None:
        """Take the settings; the crystals are read when first needed."""
        self._file = directory / settings.templates

    @cached_property
    def _crystals(self) -> Crystals:
        from ase.io import read

        return Crystals.from_atoms(read(self._file, ":"))

    def generate(self, n: int, condition: Condition, seed: int) -> Crystals:
        """Up to n distinct crystals; two decorations of one template are not compared with each other."""
        refuse_unhonoured("one element", self.honours, condition)
        rng = np.random.default_rng(seed)
        sizes = self._crystals.n_atoms
        fitting = np.flatnonzero((sizes >= condition.min_atoms) & (sizes <= condition.max_atoms))
        out: list[Crystals] = []
        done: set[tuple[int, int, int]] = set()
        for _ in range(100 * n):
            if len(out) == n:
                break
            index = int(rng.choice(fitting))
            crystal = self._crystals[index]
            old = int(rng.choice(np.unique(crystal.numbers)))
            choices = np.setdiff1d(relatives(old), crystal.numbers)
            if not len(choices):
                continue
            new = int(rng.choice(choices))
            if (index, old, new) not in done:
                done.add((index, old, new))
                swapped = replace(crystal, ids=(str(len(out)),), origins=(f"crystal {index}: {old} -> {new}",))
                out.append(replace(swapped, numbers=np.where(crystal.numbers == old, new, crystal.numbers)))
        return at_predicted_volume(Crystals.concatenate(out))


def relatives(number: int) -> IntArray:
    """The elements of an element's group, itself left out."""
    from pymatgen.core import Element

    def family(z: int) -> str:
        element = Element.from_Z(z)
        return "4f" if element.is_lanthanoid else "5f" if element.is_actinoid else str(element.group)

    common = ion_table().common
    return np.array([z for z in common.tolist() if z != number and family(z) == family(number)], dtype=np.int64)


class RefinedSettings(Settings):
    """Two generators in a row.

    Attributes:
        wyckoff: Weights of the first; those that ship by default.
        flow: Weights of the second.
        begin: Where on the path from noise to the first one's crystals the flow sets in; 0 forgets their geometry.
    """

    wyckoff: str | None = None
    flow: str | None = None
    begin: float = Field(default=0.5, ge=0, le=1)


@dataclass
class RefinedTally:
    """What became of the first generator's crystals: refined, or left as they were (no form, or atoms too close)."""

    refined: int = 0
    left: int = 0


class Refined:
    """Crystals of `wyckoff` whose cells and free coordinates the flow has drawn anew, where that keeps atoms apart."""

    def __init__(self, settings: RefinedSettings) -> None:
        """Take the settings."""
        self._begin = settings.begin
        self._first = build_generator("wyckoff", {"weights": settings.wyckoff}, Path())
        self._second: Any = build_generator("flow", {"weights": settings.flow}, Path())
        self.honours = self._first.honours
        self.tally = RefinedTally()

    def generate(self, n: int, condition: Condition, seed: int) -> Crystals:
        """Up to n crystals that obey the condition."""
        from paragenesis.engine.generators.wyckoff.build import closest_contacts, to_crystals
        from paragenesis.engine.generators.wyckoff.form import wyckoff_forms

        crystals = self._first.generate(n, condition, seed)
        forms = wyckoff_forms(crystals)
        known = [i for i, form in enumerate(forms) if not isinstance(form, str)]
        refined = to_crystals(self._second.refine([forms[i] for i in known], begin=self._begin, seed=seed))
        apart = closest_contacts(refined) >= self._second.settings.closest
        new = {i: row for row, i in enumerate(known) if apart[row]}
        self.tally.refined += len(new)
        self.tally.left += len(crystals) - len(new)
        rows = [refined[new[i]] if i in new else crystals[i] for i in range(len(crystals))]
        return Crystals.concatenate(rows).with_ids(crystals.ids)
