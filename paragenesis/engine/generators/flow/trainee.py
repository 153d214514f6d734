"""What the training loop is handed: the flow's network, its batches and its loss."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from paragenesis.crystals import Crystals, FloatArray, IntArray
from paragenesis.engine.generators.flow.model import FlowNetwork, FlowSize, Prediction
from paragenesis.engine.generators.flow.paths import Clocks, Target, draw_target
from paragenesis.engine.generators.flow.state import TYPES, State, niggli, pack
from paragenesis.engine.generators.flow.weights import (
    load_network,
    read_templates,
    template_tensors,
    templates_of,
)
from paragenesis.engine.generators.learned.checkpoint import Checkpoint, load_checkpoint
from paragenesis.engine.generators.learned.context import Adapter, PropertyScale, Wishes
from paragenesis.engine.generators.learned.weights import base_digest
from paragenesis.errors import InputError
from paragenesis.settings import Settings

if TYPE_CHECKING:
    from paragenesis.engine.generators.learned.data import TrainingSet

_SORTED = 16  # batches whose crystals are sorted by size together: little padding, and still in random company
_VELOCITY_UNIT = 0.02  # mean square of a velocity's component on a matched path; makes the loss of one order
_LATE = 0.2  # an error of the cell counts 1 / (1 - t + _LATE)
_TYPES_WEIGHT = 0.3
_PROBES = (0.1, 0.3, 0.5, 0.7, 0.9)  # times at which the validation loss is taken


class FlowOptions(Settings):
    """How a flow is trained, beside what the training loop says.

    Attributes:
        width: Width of the nodes.
        layers: Blocks of the backbone.
        heads: Attention heads.
        edge: Width of the pairs.
        context: Width of the context.
        waves: Periods up to which coordinate differences are seen.
        properties: Labels that become conditions, those of them that the data have.
        dropout: Share of activations dropped in training.
        held_out: Compositions (reduced formulas) never trained on, to judge structure prediction by.
        validation: Compositions kept for the validation loss, at most a tenth of all.
        adapter: A property to add to weights that do not know it, everything else frozen; "" trains all weights.
    """

    width: int = Field(default=96, ge=8)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    edge: int = Field(default=48, ge=4)
    context: int = Field(default=64, ge=8)
    waves: int = Field(default=6, ge=1)
    properties: tuple[str, ...] = ("energy_above_hull", "formation_energy_per_atom", "band_gap")
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    held_out: int = Field(default=0, ge=0)
    validation: int = Field(default=250, ge=1)
    adapter: str = ""

    @property
    def size(self) -> FlowSize:
        """The size of the network."""
        return FlowSize(**{name: getattr(self, name) for name in FlowSize.__dataclass_fields__})


@dataclass(frozen=True)
class Batch:
    """Whole crystals and what is wished of them.

    The crystals stay on the CPU, where noise is drawn and matched to them.
    """

    state: State
    wishes: Wishes

    def to(self, device: torch.device | str) -> Batch:
        """The same with the wishes on another device."""
        return Batch(self.state, self.wishes.to(device))


@dataclass(frozen=True)
class Split:
    """Which crystals are trained on, and which compositions are not."""

    training: IntArray
    validating: IntArray
    held_out: tuple[str, ...]


def ranked_formulas(formulas: Sequence[str]) -> list[str]:
    """The distinct formulas in the order of their sha256: a split that no order of entries and no seed changes."""
    return sorted(set(formulas), key=lambda formula: hashlib.sha256(formula.encode()).hexdigest())


def split_by_formula(formulas: Sequence[str], held_out: int | Sequence[str], validation: int) -> Split:
    """Divide crystals by composition; polymorphs stay together.

    Args:
        formulas: The reduced formula of each crystal.
        held_out: How many compositions to leave out, or which.
        validation: How many further ones to validate on, at most a tenth of all.

    Raises:
        InputError: Too few are left.
    """
    ranked = ranked_formulas(formulas)
    wanted = held_out if isinstance(held_out, int) else len(held_out)
    aside = tuple(ranked[:held_out]) if isinstance(held_out, int) else tuple(held_out)
    rest = [formula for formula in ranked if formula not in set(aside)]
    if not rest:
        raise InputError(
            f"{len(ranked)} compositions are too few to hold out {wanted}; give more crystals or lower held_out"
        )
    chosen = frozenset(rest[: min(validation, len(rest) // 10)])
    training = [i for i, f in enumerate(formulas) if f not in chosen and f not in set(aside)]
    validating = [i for i, f in enumerate(formulas) if f in chosen] or training  # of a handful, none is spared
    return Split(np.array(training, dtype=np.int64), np.array(validating, dtype=np.int64), aside)


class FlowTrainee:
    """The flow as the training loop sees it."""

    defaults: Mapping[str, Any] = {"epochs": 100, "batch": 64, "learning_rate": 2e-3, "ema": 0.999}

    def __init__(
        self,
        data: TrainingSet,
        options: Mapping[str, Any],
        seed: int,
        batch: int,
        weights: Path | None = None,
    ) -> None:
        """Prepare the crystals and make the network.

        Args:
            data: Crystals and labels.
            options: `FlowOptions`; with `weights`, sizes, properties and held-out compositions are theirs.
            seed: Source of all randomness.
            batch: Crystals a step.
            weights: A checkpoint to go on from.

        Raises:
            InputError: An option does not fit, or too few compositions are left to train on.
        """
        self.options = FlowOptions.parse(options, where="flow")
        self.kind = "adapter" if self.options.adapter else "flow"
        self.seed, self.batch = seed, batch
        self.base: Checkpoint | None = None if weights is None else load_checkpoint(weights, "flow")
        self.crystals = niggli(data.crystals)[0]
        self.state = pack(self.crystals)
        held_out = self.options.held_out if self.base is None else self.base.config["held_out"]
        self.split = split_by_formula(self.crystals.formulas, held_out, self.options.validation)
        self.labels = {name: np.asarray(values, dtype=np.float64) for name, values in data.labels.items()}
        self.fractions = _fractions(self.crystals)
        torch.manual_seed(seed)
        self.network = self._new_network() if self.base is None else load_network(self.base)
        self.model: torch.nn.Module = self.network
        self.adapter = self._with_adapter(self.options.adapter) if self.options.adapter else None

    def _new_network(self) -> FlowNetwork:
        cells = self.state.cell[torch.as_tensor(self.split.training)]
        known = {
            name: self.labels[name][self.split.training] for name in self.options.properties if name in self.labels
        }
        several = [name for name, values in known.items() if len(np.unique(values[np.isfinite(values)])) > 1]
        scales = [PropertyScale.of(name, known[name]) for name in several]
        spread = cells.std(0, unbiased=False).clamp(min=1e-2)  # of a single crystal it would be none
        return FlowNetwork(self.options.size, scales, cells.mean(0).tolist(), spread.tolist())

    def _with_adapter(self, name: str) -> Adapter:
        """Add an adapter to the network.

        Raises:
            InputError: There are no weights to add it to, they know the property, or the data do not.
        """
        if self.base is None:
            raise InputError(f"an adapter for '{name}' needs weights to be added to; give them with --from")
        if name in {scale.name for scale in self.network.encoder.all_scales}:
            raise InputError(f"the weights know the property '{name}' already; it needs no adapter")
        if name not in self.labels:
            raise InputError(f"the data have no '{name}'; they have {', '.join(sorted(self.labels)) or 'no labels'}")
        return self.network.add_adapter(PropertyScale.of(name, self.labels[name]))

    # --- what the training loop asks for ----------------------------------------------------------------------------

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        whole, rest = divmod(len(self.split.training), _SORTED * self.batch)
        return whole * _SORTED + -(-rest // self.batch)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The training crystals in batches of like size, in an order that the epoch decides."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(self.split.training)
        sizes = self.state.n_atoms.numpy()
        batches = []
        for start in range(0, len(order), _SORTED * self.batch):
            some = order[start : start + _SORTED * self.batch]
            some = some[np.argsort(sizes[some], kind="stable")]
            batches += [some[i : i + self.batch] for i in range(0, len(some), self.batch)]
        for place in rng.permutation(len(batches)):
            yield self._batch(batches[place], rng)

    def _batch(self, index: IntArray, rng: np.random.Generator) -> Batch:
        labels = {name: values[index] for name, values in self.labels.items()}
        wishes = Wishes.for_training(self.network.encoder.all_scales, labels, self.fractions[index], rng)
        return Batch(self.state[torch.as_tensor(index)].trimmed(), wishes)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mean loss of a batch at random clocks."""
        parts = self.losses(batch, generator)
        return parts["velocity"] + parts["cell"] + parts["types"]

    def losses(self, batch: Batch, generator: torch.Generator, clocks: Clocks | None = None) -> dict[str, Tensor]:
        """The parts of the loss, at clocks or at random ones."""
        mean, std = self.network.mean.cpu(), self.network.std.cpu()
        target = draw_target(batch.state, mean, std, generator, clocks).to(self.network.mean.device)
        said = self.network(target.point, target.clocks, self.network.encoder(batch.wishes))
        return flow_losses(said, target, self.network.std)

    @torch.no_grad()
    def validation(self) -> dict[str, float]:
        """Losses of the validation crystals: with both clocks alike, and of the geometry with the types known."""
        totals: dict[str, float] = defaultdict(float)
        training = self.model.training
        self.model.eval()
        generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
        sizes = self.state.n_atoms.numpy()[self.split.validating]
        order = self.split.validating[np.argsort(sizes, kind="stable")]
        for start in range(0, len(order), self.batch):
            batch = self._batch(order[start : start + self.batch], rng).to(self.network.mean.device)
            n = len(batch.state)
            share = n / (len(order) * len(_PROBES))
            for time in _PROBES:
                at, end = torch.full((n,), time), torch.ones(n)
                for name, value in self.losses(batch, generator, Clocks(at, at)).items():
                    totals[name] += float(value) * share
                known = self.losses(batch, generator, Clocks(end, at))
                totals["velocity_types_known"] += float(known["velocity"]) * share
                totals["cell_types_known"] += float(known["cell"]) * share
        self.model.train(training)
        return {"loss": sum(totals.values()), **totals}

    def parameters(self) -> list[torch.nn.Parameter]:
        """What is trained: everything, or the adapter alone."""
        return list((self.model if self.adapter is None else self.adapter).parameters())

    def tensors(self) -> dict[str, Tensor]:
        """What the checkpoint holds: all weights, or the adapter's."""
        return dict((self.model if self.adapter is None else self.adapter).state_dict())

    def config(self) -> dict[str, Any]:
        """What rebuilds the network and feeds the sampler.

        "cells" says, for each number of atoms in the reduced formula, how many crystals have how many atoms in the
        cell; "elements" which ones were seen, "held_out" which compositions were not.
        """
        if self.adapter is not None:
            scale = self.adapter.scale
            return {"scale": {"name": scale.name, "edges": list(scale.edges)}, "base": base_digest(self.network)}
        seen = self.crystals[self.split.training]
        units = [round(n / gcd(*counts)) for n, counts in zip(seen.n_atoms.tolist(), _counts(seen), strict=True)]
        cells = Counter({(int(u), int(n)): k for u, row in self._before("cells", {}).items() for n, k in row.items()})
        cells.update(zip(units, seen.n_atoms.tolist(), strict=True))
        table: dict[str, dict[str, int]] = {}
        for (unit, n), count in sorted(cells.items()):
            table.setdefault(str(unit), {})[str(n)] = count
        return {
            **self.network.config(),
            "cells": table,
            "elements": sorted({*self._before("elements", []), *np.unique(seen.numbers).tolist()}),
            "held_out": list(self.split.held_out),
        }

    def extras(self) -> dict[str, Tensor]:
        """The templates of the training crystals, 11 ms a crystal."""
        if self.adapter is not None:
            return {}
        from paragenesis.engine.generators.wyckoff.form import WyckoffForm, wyckoff_forms

        forms = [f for f in wyckoff_forms(self.crystals[self.split.training]) if isinstance(f, WyckoffForm)]
        before = {} if self.base is None else read_templates(self.base.tensors)
        cells = {(t.group, t.sites): t for t in before}
        counts = Counter(before)
        for template, count in templates_of(forms).items():
            counts[cells.get((template.group, template.sites), template)] += count
        return template_tensors(counts)

    def _before(self, name: str, otherwise: Any) -> Any:
        """A value of the configuration that training goes on from."""
        return otherwise if self.base is None else self.base.config[name]


def flow_losses(said: Prediction, target: Target, std: Tensor) -> dict[str, Tensor]:
    """The three parts of the loss: velocity of the coordinates, cell at the end, hidden types."""
    moving = target.clocks.geometry < 1
    weight = (target.point.atoms & moving[:, None])[..., None].float()
    left = 1 - target.clocks.geometry[:, None, None]
    weight = weight * (left / (left + 0.1)) ** 2
    squares = (said.velocity - target.velocity) ** 2 * weight
    late = moving / (1 - target.clocks.geometry + _LATE)
    cell = ((((said.cell - target.cell) / std) ** 2).mean(1) * late).mean()
    types = functional.cross_entropy(said.logits[target.hidden], target.types[target.hidden], reduction="sum")
    return {
        "velocity": squares.sum() / (3 * weight.sum().clamp(min=1)) / _VELOCITY_UNIT,
        "cell": cell,
        "types": _TYPES_WEIGHT * types / target.hidden.sum().clamp(min=1),
    }


def _counts(crystals: Crystals) -> list[list[int]]:
    """Atoms of each element that a crystal has, for each crystal."""
    return [list(Counter(crystals.numbers[crystals.atoms_of(i)].tolist()).values()) for i in range(len(crystals))]


def _fractions(crystals: Crystals) -> FloatArray:
    """Atomic fractions by atomic number, shape `n x 104`."""
    counts = np.zeros((len(crystals), TYPES))
    np.add.at(counts, (crystals.batch, crystals.numbers), 1.0)
    return np.asarray(counts / crystals.n_atoms[:, None])
