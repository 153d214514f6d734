"""The generator that draws crystals from the flow: new ones, predicted ones, decorated ones, and refined templates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from paragenesis.crystals import BoolArray, Crystals, FloatArray
from paragenesis.engine.generators.condition import PARTS, Condition
from paragenesis.engine.generators.contract import refuse_unhonoured
from paragenesis.errors import InputError
from paragenesis.settings import Settings

if TYPE_CHECKING:
    import torch

    from paragenesis.engine.generators.flow.guidance import Guide
    from paragenesis.engine.generators.flow.model import FlowNetwork
    from paragenesis.engine.generators.flow.projection import Template
    from paragenesis.engine.generators.flow.sample import Course
    from paragenesis.engine.generators.flow.tasks import Attempt, Task
    from paragenesis.engine.generators.learned.checkpoint import Checkpoint
    from paragenesis.engine.generators.wyckoff.form import WyckoffForm

SHIPPED = Path(__file__).parents[1] / "weights" / "flow.safetensors"
_PATIENCE = 8  # batches in a row without a crystal after which there are taken to be no more


class FlowSettings(Settings):
    """How crystals are drawn.

    Attributes:
        weights: A checkpoint; the one that ships with the package by default.
        adapters: Checkpoints of further properties, trained for these weights.
        steps: Euler steps.
        slope: Anti-annealing: velocities of the coordinates are multiplied by `1 + slope t`.
        templates: "projected" flows inside the symmetry of Wyckoff templates of the training crystals, "free" does so
            only where a space group is asked for.
        temperature: Of the types; 1 is the learned distribution, less repeats the likely.
        closest: Least distance of two atoms, in sums of their covalent radii.
        symprec: Tolerance within which a freely grown crystal is given its symmetry, angstrom; 0 leaves it as it is.
        guides_weight: Weight of the guides, where some are given.
        radioactive: Whether elements without a stable isotope are used where the condition does not name them.
        batch: Most crystals drawn at once.
        device: "auto", "cpu", "cuda", ...
    """

    weights: str | None = None
    adapters: tuple[str, ...] = ()
    steps: int = Field(default=30, ge=1)
    slope: float = Field(default=5.0, ge=0)
    templates: Literal["free", "projected"] = "free"
    temperature: float = Field(default=1.0, gt=0)
    closest: float = Field(default=0.6, ge=0)
    symprec: float = Field(default=0.1, ge=0, le=0.5)
    guides_weight: float = Field(default=1.0, ge=0)
    radioactive: bool = False
    batch: int = Field(default=128, ge=1)
    device: str = "auto"


@dataclass
class Tally:
    """What became of the paths since the generator was made.

    Attributes:
        paths: Begun.
        not_finite: The network's output was not finite.
        dead_ends: A site found no type that the condition leaves.
        shapeless: The cell or a coordinate was no number any more, or too large for one.
        clashing: Two atoms came too close.
        not_primitive: The crystal repeats itself inside its cell.
        disobedient: The finished crystal disobeyed the condition, such as having another space group.
        kept: Became crystals.
    """

    paths: int = 0
    not_finite: int = 0
    dead_ends: int = 0
    shapeless: int = 0
    clashing: int = 0
    not_primitive: int = 0
    disobedient: int = 0
    kept: int = 0


class Flow:
    """Crystals from flow matching with two clocks.

    A composition is predicted a structure, a seed structure is decorated, a space group is grown on a template of the
    training set; otherwise crystals are new in both. It honours every part of a condition but the prototype;
    `properties` are pursued by classifier-free guidance, and whatever the guides say by their gradients.
    """

    honours: frozenset[str] = PARTS - {"prototype"}

    def __init__(
        self,
        settings: FlowSettings | None = None,
        directory: Path = Path(),
        guides: Sequence[Guide] = (),
        forms: Sequence[WyckoffForm] = (),
    ) -> None:
        """Take the settings; weights are read when first needed.

        Args:
            settings: How crystals are drawn.
            directory: The folder that relative paths of weights start from.
            guides: Differentiable property models that bend the flow (`guidance`).
            forms: Crystals whose Wyckoff templates the flow is to stay on, in place of those of the training set.
        """
        self.settings = settings or FlowSettings()
        self.directory = directory
        self.guides, self.forms = tuple(guides), tuple(forms)
        self.tally = Tally()

    def generate(self, n: int, condition: Condition, seed: int) -> Crystals:
        """Up to n crystals that obey the condition; fewer only if fewer were found after long search.

        Raises:
            InputError: No crystal can obey the condition, or the weights do not know a property.
        """
        refuse_unhonoured("flow", self.honours, condition)
        if n < 0:
            raise InputError(f"{n} crystals were asked for; ask for 0 or more")
        if n == 0:
            return Crystals.empty()
        kept: list[Crystals] = []
        before, found = replace(self.tally), 0
        for crystals in self._stream(n, condition, seed):
            kept.append(crystals)
            found += len(crystals)
            if found >= n:
                break
        if not found:
            raise InputError(f"the flow found no crystal under this condition ({self._why(before)}); widen it")
        out = Crystals.concatenate(kept)[:n]
        return out.with_ids([str(i) for i in range(len(out))])

    def refine(self, forms: Sequence[WyckoffForm], *, begin: float = 0.5, seed: int = 0) -> list[WyckoffForm]:
        """Forms whose cells and free parameters the flow has drawn anew, inside their symmetry.

        The path from noise to each form is entered at the time `begin`, and followed to its end: 0 forgets the form's
        geometry, 1 keeps it. A form on which the network's output is not finite comes back as it was.

        Args:
            forms: What to refine; elements and sites stay.
            begin: How far along the path, 0 to 1.
            seed: Fixes the noise.
        """
        from paragenesis.engine.generators.flow.tasks import refined

        if not 0 <= begin <= 1:
            raise InputError(f"begin = {begin:g} is no time of the flow; give 0 (noise) to 1 (the form itself)")
        out: list[WyckoffForm] = []
        for start in range(0, len(forms), self.settings.batch):
            some = forms[start : start + self.settings.batch]
            new, finite = refined(self.network, some, replace(self._course(0.0), begin=begin), seed + start)
            self.tally.not_finite += int((~finite).sum())
            out += [form if ok else old for form, old, ok in zip(new, some, finite, strict=True)]
        return out

    def with_weights(self, weights: Path) -> Flow:
        """The same generator with other weights."""
        return Flow(self.settings.model_copy(update={"weights": str(weights)}), self.directory, self.guides, self.forms)

    def learn(self, crystals: Crystals, labels: Mapping[str, FloatArray], *, out: Path, seed: int) -> Path:
        """Fine-tune on crystals and write the new weights to `out`; see `learned.training.tune`."""
        from paragenesis.engine.generators.flow.trainee import FlowTrainee
        from paragenesis.engine.generators.learned.training import tune

        return tune(FlowTrainee, self._weights_file, crystals, labels, out=out, seed=seed)

    # --- one batch after the other -----------------------------------------------------------------------------------

    def _stream(self, n: int, condition: Condition, seed: int) -> Iterator[Crystals]:
        """Crystals that obey, batch by batch, until several batches bring none."""
        import torch

        task = self._task(condition)
        course = self._course(condition.guidance if condition.properties else 0.0)
        random = torch.Generator().manual_seed(seed)
        size = min(self.settings.batch, n + n // 4 + 3)
        idle = 0
        while idle < _PATIENCE:
            crystals = self._judged(task.attempt(self.network, course, size, random), condition)
            self.tally.kept += len(crystals)
            idle = 0 if len(crystals) else idle + 1
            if len(crystals):
                yield crystals

    def _task(self, condition: Condition) -> Task:
        """What a condition asks for.

        Raises:
            InputError: The weights cannot do it.
        """
        from paragenesis.engine.generators.flow.rules import TypeRules, check_elements
        from paragenesis.engine.generators.flow.tasks import task_of
        from paragenesis.engine.generators.learned.context import Wishes

        wishes = Wishes.from_condition(condition, self.network.encoder.all_scales, 1)
        check_elements(condition, self.learned_elements)
        rules = TypeRules.of(condition, self.learned_elements, self.settings.radioactive)
        cells = {int(u): {int(n): k for n, k in row.items()} for u, row in self.checkpoint.config["cells"].items()}
        projected = self.settings.templates == "projected" or condition.space_group is not None or self.forms
        templates = self.templates if projected else {}
        return task_of(condition, rules, wishes, cells, templates)

    def _course(self, guidance: float) -> Course:
        from paragenesis.engine.generators.flow.sample import Course

        settings = self.settings
        return Course(
            steps=settings.steps,
            slope=settings.slope,
            guidance=guidance,
            guides=self.guides,
            guides_weight=settings.guides_weight,
            temperature=settings.temperature,
        )

    def _judged(self, attempt: Attempt, condition: Condition) -> Crystals:
        """The crystals of an attempt that may be shown; what becomes of the others is counted."""
        from paragenesis.engine.generators.flow.tasks import symmetrised
        from paragenesis.engine.generators.wyckoff.build import closest_contacts

        self.tally.paths += len(attempt.finite)
        self.tally.not_finite += int((~attempt.finite).sum())
        self.tally.dead_ends += int((attempt.finite & ~attempt.finished).sum())
        crystals, tally = attempt.crystals, self.tally
        tally.shapeless += int((attempt.finite & attempt.finished).sum()) - len(crystals)
        if not len(crystals):
            return crystals
        if attempt.free:
            found = symmetrised(crystals, self.settings.symprec)
            tally.not_primitive += len(crystals) - len(found)
            crystals = found
        crystals = self._counted("clashing", crystals, closest_contacts(crystals) >= self.settings.closest)
        return self._counted("disobedient", crystals, np.array([not v for v in condition.violations(crystals)], bool))

    def _counted(self, name: str, crystals: Crystals, keep: BoolArray) -> Crystals:
        """The crystals to keep; the others are counted under a name."""
        setattr(self.tally, name, getattr(self.tally, name) + int((~keep).sum()))
        return crystals[keep]

    def _why(self, before: Tally) -> str:
        """What became of the paths since, in words."""
        gained = {k: getattr(self.tally, k) - getattr(before, k) for k in Tally.__dataclass_fields__}
        parts = [f"{count} {name.replace('_', ' ')}" for name, count in gained.items() if count and name != "paths"]
        return f"of {gained['paths']} paths {', '.join(parts)}"

    # --- the weights -------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Read the weights, which otherwise are read when they are first needed."""
        _ = self.network

    @property
    def _weights_file(self) -> Path:
        return SHIPPED if self.settings.weights is None else self.directory / self.settings.weights

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint in use."""
        from paragenesis.engine.generators.learned.checkpoint import load_checkpoint

        return load_checkpoint(self._weights_file, "flow")

    @cached_property
    def network(self) -> FlowNetwork:
        """The network, with its adapters."""
        from paragenesis.engine.generators.flow.weights import load_network
        from paragenesis.engine.generators.learned.checkpoint import load_checkpoint
        from paragenesis.engine.generators.learned.weights import with_adapter

        network = load_network(self.checkpoint)
        for adapter in self.settings.adapters:
            with_adapter(network, load_checkpoint(self.directory / adapter, "adapter"))
        return network.to(self.device)

    @cached_property
    def device(self) -> torch.device:
        """Where the network runs."""
        import torch

        from paragenesis.engine.potentials.contract import pick_device

        return torch.device(pick_device(self.settings.device))

    @cached_property
    def templates(self) -> Mapping[Template, int]:
        """The templates to flow on, the training crystals' if no others were given, and how often each occurs."""
        from paragenesis.engine.generators.flow.weights import read_templates, templates_of

        return templates_of(self.forms) if self.forms else read_templates(self.checkpoint.tensors)

    @cached_property
    def learned_elements(self) -> BoolArray:
        """Types that occur in the training crystals, shape `104`."""
        out: BoolArray = np.zeros(104, dtype=np.bool_)
        out[self.checkpoint.config["elements"]] = True
        return out
