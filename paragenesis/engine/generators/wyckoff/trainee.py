"""How the Wyckoff transformer learns: from crystals as they are, with other origins, and with kindred elements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.engine.generators.learned.checkpoint import load_checkpoint
from paragenesis.engine.generators.learned.context import ELEMENTS, Adapter, PropertyScale, Wishes
from paragenesis.engine.generators.learned.data import TrainingSet
from paragenesis.engine.generators.learned.training import moved
from paragenesis.engine.generators.learned.weights import base_digest
from paragenesis.engine.generators.wyckoff import tokens as tk
from paragenesis.engine.generators.wyckoff.contacts import learn_contacts
from paragenesis.engine.generators.wyckoff.form import WyckoffForm, canonical, equivalents, wyckoff_forms
from paragenesis.engine.generators.wyckoff.memory import bare_keys, known_keys
from paragenesis.engine.generators.wyckoff.model import Inputs, WyckoffModel, WyckoffModelSettings, inputs_of
from paragenesis.engine.generators.wyckoff.tokens import Slot
from paragenesis.engine.generators.wyckoff.weights import load_model
from paragenesis.errors import InputError

_LONGEST = 96  # tokens; longer crystals (1 in 200) cost more than they teach
_MOST_ORIGINS = 8
_VALIDATED = 256  # crystals at once
_EXTRA_PROPERTIES = ("energy_above_hull", "formation_energy_per_atom", "band_gap")


class WyckoffTraineeSettings(WyckoffModelSettings):
    """What is trained, and on what.

    Attributes:
        properties: Labels that become conditions, those of them that the data have.
        substituted: Share of training crystals in which an element is exchanged for a kindred one; they are marked.
        origins: Share of training crystals that are told from another origin than the canonical one.
        validation: Share of compositions that are held out to see when learning stops.
        symprec: Tolerance of the symmetry search, angstrom.
        adapter: A property to add to weights that do not know it, everything else frozen; "" trains all weights.
    """

    properties: tuple[str, ...] = _EXTRA_PROPERTIES
    substituted: float = 0.2
    origins: float = 0.3
    validation: float = 0.03
    symprec: float = 0.1
    adapter: str = ""


@dataclass(frozen=True)
class Batch:
    """Tokens to learn from, and what was wanted of them."""

    inputs: Inputs
    lowest: Tensor
    targets: Tensor
    wishes: Wishes
    synthetic: Tensor


class WyckoffTrainee:
    """The model, its training crystals as tokens, and its loss."""

    defaults: Mapping[str, Any] = {"epochs": 70, "learning_rate": 3e-3}

    def __init__(
        self, data: TrainingSet, options: Mapping[str, Any], seed: int, batch: int, weights: Path | None = None
    ) -> None:
        """Read the crystals' symmetry and make, or load, the model.

        Args:
            data: Crystals with labels.
            options: `WyckoffTraineeSettings`; with `weights` the sizes and properties are those of the weights.
            seed: Fixes the split, the order and every augmentation.
            batch: Crystals in a step.
            weights: A checkpoint to go on from.

        Raises:
            InputError: No crystal has a Wyckoff form, or the options do not fit.
        """
        self.settings = WyckoffTraineeSettings.parse(options, where="wyckoff")
        self.kind = "adapter" if self.settings.adapter else "wyckoff"
        self.seed, self.batch, self.data = seed, batch, data
        found = wyckoff_forms(data.crystals, self.settings.symprec)
        usable = [i for i, form in enumerate(found) if isinstance(form, WyckoffForm)]
        forms = [tk.in_order(canonical(form)) for form in found if isinstance(form, WyckoffForm)]
        if not forms:
            raise InputError(
                f"none of the {len(found)} training crystals has a Wyckoff form; see the first: {found[:1]}"
            )
        sequences = tk.encode(forms)
        short = np.flatnonzero(sequences.lengths <= _LONGEST)
        self.forms = [forms[i] for i in short]
        rows = np.array(usable, dtype=np.int64)[short]
        self.labels = {name: np.asarray(values)[rows] for name, values in data.labels.items()}
        self.fractions = _fractions(self.forms)
        self.sequences, self.first, self.count = self._with_origins()
        self.train_rows, self.validation_rows = self._split()
        torch.manual_seed(seed)
        self.base = None if weights is None else load_checkpoint(weights, "wyckoff")
        self.model = self._new_model() if self.base is None else load_model(self.base)
        if self.settings.adapter:
            self.adapter = self._with_adapter(self.settings.adapter)

    def _new_model(self) -> WyckoffModel:
        scales = [PropertyScale.of(name, self.labels[name]) for name in self.settings.properties if name in self.labels]
        size = {name: getattr(self.settings, name) for name in WyckoffModelSettings.model_fields}
        return WyckoffModel(WyckoffModelSettings(**size), scales)

    def _with_adapter(self, name: str) -> Adapter:
        """Add an adapter to the model.

        Raises:
            InputError: There are no weights to add it to, they know the property, or the data do not.
        """
        if self.base is None:
            raise InputError(f"an adapter for '{name}' needs weights to be added to; give them with --from")
        if name not in self.labels:
            raise InputError(f"the data have no column '{name}'; they have {', '.join(sorted(self.labels)) or 'none'}")
        if name in {scale.name for scale in self.model.encoder.scales}:
            raise InputError(f"the weights know the property '{name}' already; it needs no adapter")
        self._base_digest = base_digest(self.model)
        return self.model.add_adapter(PropertyScale.of(name, self.labels[name]))

    def _with_origins(self) -> tuple[tk.Sequences, IntArray, IntArray]:
        """The tokens of every crystal, canonical first, then other origins; where each begins and how many it has."""
        told: list[WyckoffForm] = []
        first, count = [], []
        for form in self.forms:
            others = [tk.in_order(e) for e in equivalents(form)] if self.settings.origins else []
            versions = [form, *dict.fromkeys(o for o in others if o != form)][:_MOST_ORIGINS]
            first.append(len(told))
            count.append(len(versions))
            told.extend(versions)
        return tk.encode(told), np.array(first, dtype=np.int64), np.array(count, dtype=np.int64)

    def _split(self) -> tuple[IntArray, IntArray]:
        """Crystals to learn from and crystals to validate on; a composition is on one side only."""
        formulas = np.array([_formula_key(f) for f in self.fractions])
        names = np.unique(formulas)
        held = np.random.default_rng(self.seed).permutation(names)[: int(len(names) * self.settings.validation)]
        out = np.isin(formulas, held)
        return np.flatnonzero(~out), np.flatnonzero(out)

    # --- what the training loop asks for ----------------------------------------------------------------------------

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The crystals of an epoch in random order, those of like length together."""
        rng = np.random.default_rng([self.seed, epoch])
        rows = rng.permutation(self.train_rows)
        other = rng.random(len(rows)) < self.settings.origins
        version = np.where(other, (rng.random(len(rows)) * self.count[rows]).astype(np.int64), 0)
        places = self.first[rows] + version
        pool = self.batch * 24
        batches = []
        for start in range(0, len(rows), pool):
            part = np.arange(start, min(start + pool, len(rows)))
            part = part[np.argsort(self.sequences.lengths[places[part]], kind="stable")]
            batches += [part[i : i + self.batch] for i in range(0, len(part), self.batch)]
        for index in rng.permutation(len(batches)):
            part = batches[index]
            yield self._batch(rows[part], places[part], rng)

    def _batch(self, rows: IntArray, places: IntArray, rng: np.random.Generator) -> Batch:
        sequences, fractions = self.sequences.rows(places), self.fractions[rows]
        labels = {name: values[rows] for name, values in self.labels.items()}
        synthetic = rng.random(len(rows)) < self.settings.substituted
        if synthetic.any():
            exchange = np.tile(np.arange(ELEMENTS), (len(rows), 1))
            for i in np.flatnonzero(synthetic):
                _exchange_one(exchange[i], np.flatnonzero(fractions[i]), rng)
            sequences, fractions = _exchanged(sequences, fractions, exchange)
            labels = {name: np.where(synthetic, np.nan, values) for name, values in labels.items()}
        wishes = Wishes.for_training(self.model.encoder.all_scales, labels, fractions, rng)
        return Batch(*inputs_of(sequences), wishes, torch.from_numpy(synthetic).float())

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mean negative log-likelihood a token, nats."""
        context = self.model.context(batch.wishes, batch.synthetic)
        losses = self.model.loss(batch.inputs, batch.lowest, batch.targets, context)
        return losses.sum() / (batch.inputs.following != Slot.START).sum()

    @torch.no_grad()
    def validation(self) -> dict[str, float]:
        """Negative log-likelihood of held-out crystals, nats a crystal; in all and by slot.

        Nothing is wished of them; where an adapter learns, their value of its property is.
        """
        self.model.eval()
        device = next(self.model.parameters()).device
        rows = self.validation_rows if len(self.validation_rows) else self.train_rows[:_VALIDATED]
        total, by_slot = 0.0, dict.fromkeys(Slot, 0.0)
        for start in range(0, len(rows), _VALIDATED):
            part = rows[start : start + _VALIDATED]
            batch = moved((inputs_of(self.sequences.rows(self.first[part])), self._told(part)), device)
            (inputs, lowest, targets), wishes = batch
            losses = self.model.loss(inputs, lowest, targets, self.model.context(wishes), smooth=False)
            total += float(losses.sum())
            for slot in Slot:
                by_slot[slot] += float(losses[inputs.following == slot].sum())
        parts = {slot.name.lower(): value / len(rows) for slot, value in by_slot.items() if value}
        return {"loss": total / len(rows), **parts}

    def _told(self, rows: IntArray) -> Wishes:
        """The wishes under which crystals are validated."""
        none = torch.zeros(len(rows), ELEMENTS)
        bins = {scale.name: torch.ones(len(rows), scale.bins) for scale in self.model.encoder.all_scales}
        if self.settings.adapter:
            scale, values = self.adapter.scale, self.labels[self.settings.adapter][rows]
            own = torch.from_numpy(scale.bin_of(np.nan_to_num(values)))
            exact = torch.nn.functional.one_hot(own, scale.bins).float()
            known = torch.from_numpy(np.isfinite(values))[:, None]
            bins[scale.name] = torch.where(known, exact, bins[scale.name])
        return Wishes(bins, none, none)

    def parameters(self) -> list[torch.nn.Parameter]:
        """What is trained: everything, or the adapter alone."""
        return list((self.adapter if self.settings.adapter else self.model).parameters())

    def tensors(self) -> dict[str, Tensor]:
        """What the checkpoint holds: all weights, or the adapter's."""
        return dict((self.adapter if self.settings.adapter else self.model).state_dict())

    def config(self) -> dict[str, Any]:
        """What rebuilds the model."""
        if self.settings.adapter:
            scale = self.adapter.scale
            return {"scale": {"name": scale.name, "edges": list(scale.edges)}, "base": self._base_digest}
        return {
            "model": self.model.settings.model_dump(mode="json"),
            "elements": sorted(self._elements()),
            "scales": [{"name": s.name, "edges": list(s.edges)} for s in self.model.encoder.scales],
        }

    def _elements(self) -> set[int]:
        """Atomic numbers that the weights have seen."""
        before = [] if self.base is None else self.base.config["elements"]
        return {*before, *np.flatnonzero(self.fractions.sum(0)).tolist()}

    def extras(self) -> dict[str, Tensor]:
        """Tensors beside the weights: numbers of what was learned from, and typical distances between elements."""
        if self.settings.adapter:
            return {}
        numbers = {"known": known_keys(self.forms), "templates": bare_keys(self.forms)}
        if self.base is None:
            contacts = torch.from_numpy(learn_contacts(self.data.crystals))
        else:  # what the weights saw before stays known
            numbers = {name: np.union1d(new, self.base.tensors[name].numpy()) for name, new in numbers.items()}
            contacts = self.base.tensors["contacts"]
        return {**{name: torch.from_numpy(found) for name, found in numbers.items()}, "contacts": contacts}


# --- kindred elements ---------------------------------------------------------------------------------------------


@cache
def kindred(number: int) -> tuple[int, ...]:
    """Elements that often take an element's place: of its group, or its fellow lanthanides or actinides."""
    from ase.data import chemical_symbols
    from pymatgen.core import Element

    own = Element(chemical_symbols[number])
    out = []
    for z in range(1, tk.ELEMENTS + 1):
        other = Element(chemical_symbols[z])
        if z == number or other.is_noble_gas or (z == 1) != (number == 1):
            continue
        rare = (own.is_lanthanoid and other.is_lanthanoid) or (own.is_actinoid and other.is_actinoid)
        same = other.group == own.group and other.block == own.block and abs(int(other.row) - int(own.row)) <= 2
        if rare or (same and not own.is_rare_earth):
            out.append(z)
    return tuple(out)


def _exchange_one(exchange: IntArray, present: IntArray, rng: np.random.Generator) -> None:
    """Exchange one of the elements present for a kindred one that is absent, if there is any."""
    own = int(rng.choice(present))
    choices = [z for z in kindred(own) if z not in present]
    if choices:
        exchange[own] = rng.choice(choices)


def _exchanged(sequences: tk.Sequences, fractions: FloatArray, exchange: IntArray) -> tuple[tk.Sequences, FloatArray]:
    """Sequences and fractions with the elements exchanged, each row by its own table."""
    rows = np.arange(len(sequences))[:, None]
    tokens = sequences.tokens
    is_element = sequences.slots == Slot.ELEMENT
    number = np.where(is_element, tokens - tk.ELEMENT_AT + 1, 0)
    tokens = np.where(is_element, exchange[rows, number] + tk.ELEMENT_AT - 1, tokens)
    new = np.zeros_like(fractions)
    np.add.at(new, (rows, exchange), fractions)
    changed = {"tokens": tokens, "element": exchange[rows, sequences.element]}
    kept = {
        name: getattr(sequences, name) for name in ("slots", "groups", "lengths", "atoms", "lowest", "site", "axis")
    }
    return tk.Sequences(**kept, **changed), new


def _fractions(forms: list[WyckoffForm]) -> FloatArray:
    """Atomic fractions, shape `n x 104`."""
    out = np.zeros((len(forms), ELEMENTS))
    counts = tk.group_table().in_primitive
    for row, form in zip(out, forms, strict=True):
        np.add.at(row, list(form.numbers), counts[form.group][list(form.sites)])
    return np.asarray(out / out.sum(1, keepdims=True))


def _formula_key(fractions: FloatArray) -> str:
    present = np.flatnonzero(fractions)
    return " ".join(f"{z}:{fractions[z]:.4f}" for z in present)
