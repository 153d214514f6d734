"""The generator that draws crystals from the Wyckoff transformer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
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
    from paragenesis.engine.generators.wyckoff.decorate import Geometry, SeedRules
    from paragenesis.engine.generators.wyckoff.model import WyckoffModel
    from paragenesis.engine.generators.wyckoff.rules import Rules
    from paragenesis.engine.generators.wyckoff.search import Search

SHIPPED = Path(__file__).parents[1] / "weights" / "wyckoff.safetensors"


class WyckoffSettings(Settings):
    """How crystals are drawn.

    Attributes:
        weights: A checkpoint; those that ship with the package by default.
        adapters: Checkpoints of further properties, trained for these weights.
        known: "avoid" leaves out the decorated templates of the training crystals, "allow" lets them through.
        new_templates: Least share of crystals whose space group and sites, elements aside, no training crystal has.
        site_temperature: Of space groups and sites; 1 is the learned distribution, less repeats the likely.
        element_temperature: Of the elements on them.
        geometry_temperature: Of cells and coordinates.
        tries: Geometries drawn of a template, at most; no more are drawn once one is not strained.
        strain: What a crystal's contact penalty may be (`contact_penalty`; 95 % of real crystals have less than 0.08).
            Those beyond it are taken only where a long search has found too few.
        closest: Least distance of two atoms, in sums of their covalent radii.
        radioactive: Whether elements without a stable isotope are used where the condition does not name them.
        batch: Templates drawn at once, at most.
        device: "auto", "cpu", "cuda", ...
    """

    weights: str | None = None
    adapters: tuple[str, ...] = ()
    known: Literal["avoid", "allow"] = "avoid"
    new_templates: float = Field(default=0.0, ge=0, le=1)
    site_temperature: float = Field(default=1.0, gt=0)
    element_temperature: float = Field(default=0.8, gt=0)
    geometry_temperature: float = Field(default=0.7, gt=0)
    tries: int = Field(default=2, ge=1)
    strain: float = Field(default=0.1, gt=0)
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
        out = self._search(condition, seed).crystals(n)
        if not len(out):
            raise InputError(
                f"none of {self.tally.templates} templates became a crystal under this condition "
                f"({self.tally.known} are training crystals, {self.tally.repeated} repeat those or each other, "
                f"{self.tally.clashing} have clashing atoms, {self.tally.dead_ends} are dead ends); widen the "
                'condition, lower the guidance, or set the option known = "allow"'
            )
        return out.with_ids([str(i) for i in range(len(out))])

    def with_weights(self, weights: Path) -> Wyckoff:
        """The same generator with other weights."""
        return Wyckoff(self.settings.model_copy(update={"weights": str(weights)}), self.directory)

    def learn(self, crystals: Crystals, labels: Mapping[str, FloatArray], *, out: Path, seed: int) -> Path:
        """Fine-tune on crystals and write the new weights to `out`; see `learned.training.tune`."""
        from paragenesis.engine.generators.learned.training import tune
        from paragenesis.engine.generators.wyckoff.trainee import WyckoffTrainee

        return tune(WyckoffTrainee, self._weights_file, crystals, labels, out=out, seed=seed)

    def _search(self, condition: Condition, seed: int) -> Search:
        """A search for crystals under the condition.

        Raises:
            InputError: No crystal can obey the condition, or the weights do not know a property.
        """
        import torch

        from paragenesis.engine.generators.learned.context import Wishes
        from paragenesis.engine.generators.wyckoff.decorate import Geometry
        from paragenesis.engine.generators.wyckoff.sample import Sampler
        from paragenesis.engine.generators.wyckoff.search import Search

        wishes = Wishes.from_condition(condition, self.model.encoder.all_scales, 1).to(self.device)  # all want the same
        geometry = None if condition.seed_structure is None else Geometry.of(condition.seed_structure)
        rules = self._rules(condition, geometry)
        random = torch.Generator(self.device).manual_seed(seed)
        sampler = Sampler(self.model, random, condition.guidance if condition.properties else 0.0, self.tally)
        with torch.no_grad():
            wanted = self.model.context(wishes)
            open_ = self.model.context(wishes.without_properties()) if condition.properties else None
        return Search(
            self.settings,
            sampler,
            wanted,
            open_,
            rules,
            condition,
            geometry,
            known=self._numbers("known") if self.settings.known == "avoid" else frozenset(),
            templates=self._numbers("templates") if self.settings.new_templates > 0 and not geometry else frozenset(),
            contacts=self.contacts,
        )

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

    def load(self) -> None:
        """Read the weights, which otherwise are read when they are first needed."""
        _ = self.model

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

    def _numbers(self, name: str) -> frozenset[int]:
        """Numbers of the training crystals' templates: "known" are decorated, "templates" bare."""
        return frozenset(self.checkpoint.tensors[name].tolist())

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
