"""The generator that draws crystals from the Wyckoff transformer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.generators.condition import PARTS, Condition
from paragenesis.engine.generators.contract import refuse_unhonoured
from paragenesis.engine.generators.wyckoff.tally import Tally
from paragenesis.errors import InputError
from paragenesis.settings import Settings

if TYPE_CHECKING:
    import torch

    from paragenesis.engine.generators.learned.checkpoint import Checkpoint
    from paragenesis.engine.generators.learned.context import Context
    from paragenesis.engine.generators.wyckoff.decorate import Geometry, SeedRules
    from paragenesis.engine.generators.wyckoff.form import WyckoffForm
    from paragenesis.engine.generators.wyckoff.model import WyckoffModel
    from paragenesis.engine.generators.wyckoff.rules import Rules, Template
    from paragenesis.engine.generators.wyckoff.sample import Sampler

SHIPPED = Path(__file__).parents[1] / "weights" / "wyckoff.safetensors"
_CHECKED = frozenset({"space_group", "seed_structure", "charge_neutral"})  # seen on the finished crystal once more
_PATIENCE = 6  # batches in a row without a new crystal after which there are taken to be no more


class WyckoffSettings(Settings):
    """How crystals are drawn.

    Attributes:
        weights: A checkpoint; those that ship with the package by default.
        adapters: Checkpoints of further properties, trained for these weights.
        known: "avoid" leaves out the decorated templates of the training crystals, "allow" lets them through.
        temperature: Of templates; 1 is the learned distribution, less repeats the likely.
        geometry_temperature: Of cells and coordinates.
        tries: Geometries drawn for each template, of which the best is kept.
        closest: Least distance of two atoms, in sums of their covalent radii.
        radioactive: Whether elements without a stable isotope are used where the condition does not name them.
        batch: Templates drawn at once, at most.
        device: "auto", "cpu", "cuda", ...
    """

    weights: str | None = None
    adapters: tuple[str, ...] = ()
    known: Literal["avoid", "allow"] = "avoid"
    temperature: float = Field(default=1.0, gt=0)
    geometry_temperature: float = Field(default=0.7, gt=0)
    tries: int = Field(default=4, ge=1)
    closest: float = Field(default=0.6, ge=0)
    radioactive: bool = False
    batch: int = Field(default=1024, ge=1)
    device: str = "auto"


class Wyckoff:
    """Crystals from a transformer over Wyckoff positions; each carries the space group it was drawn in.

    It honours every part of a condition but the prototype; `properties` are pursued by classifier-free guidance.
    """

    honours: frozenset[str] = PARTS - {"prototype"}

    def __init__(self, settings: WyckoffSettings | None = None, directory: Path = Path()) -> None:
        """Take the settings; weights are read when first needed.

        Args:
            settings: How crystals are drawn.
            directory: The folder that relative paths of weights start from.
        """
        self.settings = settings or WyckoffSettings()
        self.directory = directory
        self.tally = Tally()

    def generate(self, n: int, condition: Condition, seed: int) -> Crystals:
        """Up to n distinct crystals that obey the condition; fewer only if fewer were found after long search.

        Raises:
            InputError: No crystal can obey the condition, or the weights do not know a property.
        """
        refuse_unhonoured("wyckoff", self.honours, condition)
        if n < 0:
            raise InputError(f"{n} crystals were asked for; ask for 0 or more")
        if n == 0:
            return Crystals.empty()
        kept: list[Crystals] = []
        found = idle = 0
        draw = self._prepared(condition, seed)
        while found < n and idle < _PATIENCE:
            crystals = draw(min(self.settings.batch, 32 + 5 * (n - found) // 4))
            idle = 0 if len(crystals) else idle + 1
            found += len(crystals)
            kept.append(crystals)
        if not found:
            raise InputError(
                f"none of {self.tally.templates} templates became a crystal under this condition "
                f"({self.tally.dead_ends} dead ends, {self.tally.clashing} with clashing atoms, {self.tally.known} "
                'known); widen the condition or set known = "allow"'
            )
        out = Crystals.concatenate(kept)[:n]
        return out.with_ids([str(i) for i in range(len(out))])

    def with_weights(self, weights: Path) -> Wyckoff:
        """The same generator with other weights."""
        return Wyckoff(self.settings.model_copy(update={"weights": str(weights)}), self.directory)

    def learn(self, crystals: Crystals, labels: Mapping[str, FloatArray], *, out: Path, seed: int) -> Path:
        """Fine-tune on crystals and write the new weights to `out`; see `learned.training.tune`."""
        from paragenesis.engine.generators.learned.training import tune
        from paragenesis.engine.generators.wyckoff.trainee import WyckoffTrainee

        return tune(WyckoffTrainee, self._weights_file, crystals, labels, out=out, seed=seed)

    # --- one batch after the other -----------------------------------------------------------------------------------

    def _prepared(self, condition: Condition, seed: int) -> Callable[[int], Crystals]:
        """A function that draws so many templates and gives the new crystals that come of them.

        Raises:
            InputError: No crystal can obey the condition, or the weights do not know a property.
        """
        import torch

        from paragenesis.engine.generators.learned.context import Wishes
        from paragenesis.engine.generators.wyckoff.decorate import Geometry
        from paragenesis.engine.generators.wyckoff.sample import Sampler

        wishes = Wishes.from_condition(condition, self.model.encoder.all_scales, 1).to(self.device)  # all want the same
        geometry = None if condition.seed_structure is None else Geometry.of(condition.seed_structure)
        rules = self._rules(condition, geometry)
        random = torch.Generator(self.device).manual_seed(seed)
        sampler = Sampler(self.model, random, condition.guidance if condition.properties else 0.0, self.tally)
        with torch.no_grad():
            wanted = self.model.context(wishes)
            open_ = self.model.context(wishes.without_properties()) if condition.properties else None
        seen: set[int] = set()

        def draw(batch: int) -> Crystals:
            templates = sampler.templates(wanted, open_, rules, batch, self.settings.temperature)
            fresh = self._fresh(templates, seen, condition)
            if geometry is None:
                crystals = self._placed(sampler, fresh, wanted, open_)
            else:
                crystals = self._apart(geometry.decorated(fresh))
            crystals = self._obedient(crystals, condition)
            self.tally.kept += len(crystals)
            return crystals

        return draw

    def _fresh(self, templates: list[Template], seen: set[int], condition: Condition) -> list[Template]:
        """Compounds that this call has not met, and the training data neither; elements only where asked for."""
        from paragenesis.engine.generators.wyckoff.memory import template_number

        pure = condition.exact_elements is not None and len(condition.exact_elements) == 1
        out = []
        for template in templates:
            number = template_number(template)
            if len(set(template.numbers)) == 1 and not pure:
                self.tally.elemental += 1
            elif number in seen:
                self.tally.repeated += 1
            elif self.settings.known == "avoid" and number in self.known:
                self.tally.known += 1
            else:
                out.append(template)
            seen.add(number)
        return out

    def _placed(self, sampler: Sampler, templates: list[Template], wanted: Context, open_: Context | None) -> Crystals:
        """The best geometry of each template."""
        from paragenesis.engine.generators.wyckoff.build import to_crystals

        if not templates:
            return Crystals.empty()
        forms: list[WyckoffForm] = []
        owners: list[int] = []
        drawn = sampler.geometries(templates, wanted, open_, self.settings.tries, self.settings.geometry_temperature)
        for place, choices in drawn:
            forms += choices
            owners += [place] * len(choices)
        best = self._best(forms, np.array(owners, dtype=np.int64))
        self.tally.clashing += len(templates) - len(best)
        chosen = [forms[i] for i in best]
        return to_crystals(chosen, [_origin(form) for form in chosen])

    def _apart(self, crystals: Crystals) -> Crystals:
        """The crystals whose atoms keep their distance."""
        from paragenesis.engine.generators.wyckoff.build import closest_contacts

        good = closest_contacts(crystals) >= self.settings.closest if len(crystals) else np.zeros(0, dtype=np.bool_)
        self.tally.clashing += int((~good).sum())
        return crystals[good]

    def _obedient(self, crystals: Crystals, condition: Condition) -> Crystals:
        """The crystals that obey; the rules leave little to find, but for accidental symmetry."""
        if not len(crystals) or not condition.parts() & _CHECKED:
            return crystals
        good = np.array([not violation for violation in condition.violations(crystals)], dtype=np.bool_)
        self.tally.disobedient += int((~good).sum())
        return crystals[good]

    def _best(self, forms: list[WyckoffForm], owners: np.ndarray) -> list[int]:  # type: ignore[type-arg]
        """For each owner that has one, the form with the least strained contacts among those without a clash."""
        from paragenesis.engine.generators.wyckoff.build import closest_contacts, to_crystals
        from paragenesis.engine.generators.wyckoff.contacts import contact_penalty

        if not forms:
            return []
        crystals = to_crystals(forms)
        apart = np.flatnonzero(closest_contacts(crystals) >= self.settings.closest)
        if not len(apart):
            return []
        strain = np.full(len(forms), np.inf)
        strain[apart] = contact_penalty(crystals[apart], self.contacts)
        best: dict[int, int] = {}
        for i in apart.tolist():
            own = int(owners[i])
            if own not in best or strain[i] < strain[best[own]]:
                best[own] = i
        return [best[own] for own in sorted(best)]

    def _rules(self, condition: Condition, geometry: Geometry | None) -> Rules | SeedRules:
        """The hard side of the condition.

        Raises:
            InputError: No crystal can obey it.
        """
        from paragenesis.engine.generators.wyckoff.decorate import SeedRules
        from paragenesis.engine.generators.wyckoff.rules import Rules, usable_elements

        elements = usable_elements(condition, self.learned_elements, self.settings.radioactive)
        return Rules(condition, elements) if geometry is None else SeedRules(geometry, elements)

    # --- the weights -------------------------------------------------------------------------------------------------

    @property
    def _weights_file(self) -> Path:
        return SHIPPED if self.settings.weights is None else self.directory / self.settings.weights

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint in use."""
        from paragenesis.engine.generators.learned.checkpoint import load_checkpoint

        return load_checkpoint(self._weights_file, "wyckoff")

    @cached_property
    def model(self) -> WyckoffModel:
        """The network, with its adapters."""
        from paragenesis.engine.generators.learned.checkpoint import load_checkpoint
        from paragenesis.engine.generators.learned.weights import with_adapter
        from paragenesis.engine.generators.wyckoff.weights import load_model

        model = load_model(self.checkpoint)
        for adapter in self.settings.adapters:
            with_adapter(model, load_checkpoint(self.directory / adapter, "adapter"))
        return model.to(self.device)

    @cached_property
    def device(self) -> torch.device:
        """Where the network runs."""
        import torch

        from paragenesis.engine.potentials.contract import pick_device

        return torch.device(pick_device(self.settings.device))

    @cached_property
    def known(self) -> frozenset[int]:
        """Numbers of the training crystals' decorated templates."""
        return frozenset(self.checkpoint.tensors["known"].tolist())

    @cached_property
    def contacts(self) -> FloatArray:
        """Typical distances between elements."""
        table: FloatArray = self.checkpoint.tensors["contacts"].double().numpy()
        return table

    @cached_property
    def learned_elements(self) -> np.ndarray:  # type: ignore[type-arg]
        """Elements that occur in the training crystals, shape `104`."""
        out = np.zeros(104, dtype=np.bool_)
        out[self.checkpoint.config["elements"]] = True
        return out


def _origin(form: WyckoffForm) -> str:
    """How a crystal was made: "Wyckoff transformer, Fm-3m (225): Na on a, Cl on b"."""
    from ase.data import chemical_symbols

    from paragenesis.engine.generators.wyckoff.sites import wyckoff_sites

    sites = wyckoff_sites(form.group)
    orbits = ", ".join(
        f"{chemical_symbols[z]} on {sites[s].multiplicity}{sites[s].letter}"
        for s, z in zip(form.sites, form.numbers, strict=True)
    )
    return f"Wyckoff transformer, {_symbol(form.group)} ({form.group}): {orbits}"


@cache
def _symbol(group: int) -> str:
    """The short Hermann-Mauguin symbol of a space group."""
    from moyopy import SpaceGroupType

    return str(SpaceGroupType(group).hm_short).replace(" ", "")
