"""Sampling from the Wyckoff transformer: templates first, then several geometries for each.

A template (space group, sites and their elements) is drawn token by token under hard rules, all templates of a batch
in step. Its cell and free coordinates are then drawn several times from the same prefix, and the best is kept
(`generator`): a template is what a sample is worth, a geometry costs little.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.engine.generators.learned.backbone import Cache
from paragenesis.engine.generators.learned.context import Context
from paragenesis.engine.generators.wyckoff import tokens as tk
from paragenesis.engine.generators.wyckoff.decorate import SeedRules
from paragenesis.engine.generators.wyckoff.form import WyckoffForm
from paragenesis.engine.generators.wyckoff.model import Inputs, WyckoffModel
from paragenesis.engine.generators.wyckoff.rules import Partial, Rules, Template
from paragenesis.engine.generators.wyckoff.sites import wyckoff_sites
from paragenesis.engine.generators.wyckoff.tally import Tally
from paragenesis.engine.generators.wyckoff.tokens import Slot

_CELL_SLOTS = (Slot.RATIO_B, Slot.RATIO_C, Slot.ALPHA, Slot.BETA, Slot.GAMMA)
_TOGETHER = 128  # templates whose geometries are drawn together
_SPARSE = 0.7  # finished rows leave the batch once fewer than this share of it is alive


@dataclass
class Sampler:
    """Draws from a model.

    Attributes:
        model: The network, ready to sample.
        random: Where randomness comes from.
        guidance: Weight w of classifier-free guidance: logits are (1 + w) conditional - w unconditional.
        tally: Where templates, and what is thrown away, are counted.
    """

    model: WyckoffModel
    random: torch.Generator
    guidance: float = 0.0
    tally: Tally = field(default_factory=Tally)

    # --- templates ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def templates(
        self, wanted: Context, open_: Context | None, rules: Rules | SeedRules, n: int, temperature: float
    ) -> list[Template]:
        """At most n templates that obey the rules; the others ran into a dead end or were not finite.

        Args:
            wanted: The context, of n rows or of one for all.
            open_: The context without wished properties, for guidance; None for none.
            rules: What is allowed.
            n: How many to draw.
            temperature: Of the distribution; below 1 the likely is drawn more often.
        """
        self.tally.templates += n
        walk = _Walk.start(self.model, wanted, open_, n, 2 + 2 * (tk.MAX_ORBITS + 1))
        partial = Partial.start(n)
        done: dict[int, Template] = {}

        def choose(slot: Slot, allowed: Any) -> tuple[IntArray, Any]:
            return self._choose(walk, slot, allowed, partial.atoms, temperature)

        group, ok = choose(Slot.GROUP, rules.groups(n))
        partial.group = group + 1
        while True:
            walk, partial = self._drop(walk, partial, ok)
            if not len(partial):
                return [done[row] for row in sorted(done)]  # short ones end first, and must not come first
            walk.enter_groups(partial.group)
            site, ok = choose(Slot.SITE, rules.sites(partial))
            ended = ok & (site == tk.END)
            done |= {int(partial.row[i]): partial.template(i) for i in np.flatnonzero(ended & walk.alive).tolist()}
            partial.site = np.where(ok & ~ended, site, 0)  # a row that has ended idles on
            walk.retire(ended)
            walk, partial = self._drop(walk, partial, ok)
            if not len(partial):
                return [done[row] for row in sorted(done)]
            element, ok = choose(Slot.ELEMENT, rules.elements(partial))
            partial.add(partial.site, element + 1)

    def _choose(
        self, walk: _Walk, slot: Slot, allowed: Any, atoms: IntArray, temperature: float
    ) -> tuple[IntArray, Any]:
        """The next token of every row within its slot, and whether there was any."""
        start, count = tk.BLOCKS[slot]
        logits = walk.step(slot, self.guidance, atoms)[:, start : start + count]
        finite = torch.isfinite(logits).all(1)
        mask = torch.from_numpy(np.ascontiguousarray(allowed)).to(logits.device)
        possible = mask.any(1) & finite
        alive = torch.from_numpy(walk.alive)
        self.tally.dead_ends += int((~mask.any(1).cpu() & alive).sum())
        self.tally.not_finite += int((~finite.cpu() & alive).sum())
        chosen = _drawn(logits.nan_to_num(0.0).masked_fill(~mask, -1e9) / temperature, self.random)
        walk.take(chosen + start, slot)
        return chosen.cpu().numpy(), possible.cpu().numpy()

    @staticmethod
    def _drop(walk: _Walk, partial: Partial, ok: Any) -> tuple[_Walk, Partial]:
        """Retire rows that cannot go on; close ranks when few are left."""
        walk.retire(~ok)
        if walk.alive.mean() >= _SPARSE:
            return walk, partial
        rows = np.flatnonzero(walk.alive)
        return walk.rows(rows), partial.rows(rows)

    # --- geometry ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def geometries(
        self, templates: Sequence[Template], wanted: Context, open_: Context | None, tries: int, temperature: float
    ) -> Iterator[tuple[int, list[WyckoffForm]]]:
        """For each template its place in the list and `tries` forms of it, one where only the cell is free.

        Args:
            templates: What to place.
            wanted: The context, one row a template or one for all.
            open_: The context without wished properties, for guidance.
            tries: Geometries to draw for each.
            temperature: Of the distributions of cell and coordinates.
        """
        for places in _alike(templates):
            index = torch.tensor(places)
            contexts = [None if c is None else c.rows(index) for c in (wanted, open_)]
            part = [templates[p] for p in places]
            copies = np.repeat(np.arange(len(part)), [tries if _coordinates(t) else 1 for t in part])
            forms = self._place(part, contexts[0], contexts[1], copies, temperature)  # type: ignore[arg-type]
            for i, place in enumerate(places):
                own = np.flatnonzero(copies == i).tolist()
                yield place, [form for form in (forms[k] for k in own) if form is not None]

    def _place(
        self,
        templates: Sequence[Template],
        wanted: Context,
        open_: Context | None,
        copies: IntArray,
        temperature: float,
    ) -> list[WyckoffForm | None]:
        """A form of each copy of templates of one length; None where the numbers make no cell."""
        plan = _Plan.of(templates)
        length = 3 + 2 * len(templates[0].sites)
        walk = _Walk.start(self.model, wanted, open_, len(templates), length + plan.steps)
        walk.read(_prefix(templates), np.array([t.group for t in templates], dtype=np.int64))
        walk, plan = walk.rows(copies), plan.rows(copies)
        values = np.zeros((len(copies), plan.steps))
        finite = np.ones(len(copies), dtype=np.bool_)
        order = np.arange(len(copies))
        for step in range(plan.steps):
            going = plan.slots[order, step] != Slot.START
            if going.mean() < _SPARSE:
                rows = np.flatnonzero(going)
                if not len(rows):
                    break
                walk, order, going = walk.rows(rows), order[rows], going[rows]
            # a row that has finished goes on idly until ranks close; its draws are not looked at
            slots = np.where(going, plan.slots[order, step], Slot.VOLUME)
            logits = walk.number(slots, self.guidance, plan.atoms[order], *plan.orbit(order, step))
            good = torch.isfinite(logits).all(1)
            finite[order] &= good.cpu().numpy() | ~going
            token = _drawn(logits.nan_to_num(0.0) / temperature, self.random) + tk.VOLUME_AT
            walk.take(token, slots)
            values[order, step] = token.cpu().numpy() - _BLOCK_START[slots]
        self.tally.not_finite += int((~finite).sum())
        jitter = torch.rand(values.shape, generator=self.random, dtype=torch.float64, device=self.random.device)
        return plan.forms([templates[c] for c in copies], values + jitter.cpu().numpy() - 0.5, finite)


_BLOCK_START = np.array([tk.BLOCKS[slot][0] for slot in Slot], dtype=np.int64)


@dataclass(frozen=True)
class _Plan:
    """The numbers that templates need, in the order they are drawn; shapes `n x steps`."""

    slots: IntArray
    site: IntArray
    element: IntArray
    axis: IntArray
    atoms: IntArray

    def orbit(self, rows: IntArray, step: int) -> tuple[IntArray, IntArray, IntArray]:
        return self.site[rows, step], self.element[rows, step], self.axis[rows, step]

    @property
    def steps(self) -> int:
        return int(self.slots.shape[1])

    @classmethod
    def of(cls, templates: Sequence[Template]) -> _Plan:
        lists = []
        for t in templates:
            sites = wyckoff_sites(t.group)
            row = [(int(slot), 0, 0, 0) for slot in (Slot.VOLUME, *tk.group_table().cell[t.group])]
            for site, number in zip(t.sites, t.numbers, strict=True):
                row += [(int(Slot.COORDINATE), site, number, axis) for axis in sites[site].free]
            lists.append(row)
        out = np.zeros((len(lists), max(map(len, lists)), 4), dtype=np.int64)
        for i, row in enumerate(lists):
            out[i, : len(row)] = row
        counts = tk.group_table().in_primitive
        atoms = np.array([counts[t.group, list(t.sites)].sum() for t in templates], dtype=np.int64)
        return cls(out[..., 0], out[..., 1], out[..., 2], out[..., 3], atoms)

    def rows(self, index: IntArray) -> _Plan:
        return _Plan(self.slots[index], self.site[index], self.element[index], self.axis[index], self.atoms[index])

    def forms(self, templates: Sequence[Template], bins: FloatArray, finite: Any) -> list[WyckoffForm | None]:
        """Forms from (fractional) bins; None where a draw was not finite or the angles make no cell."""
        n = len(templates)
        groups = np.array([t.group for t in templates], dtype=np.int64)
        numbers = {}
        for slot in (Slot.VOLUME, *_CELL_SLOTS):
            here = self.slots == slot
            drawn = np.where(here, bins, 0.0).sum(1)
            numbers[slot] = np.where(here.any(1), tk.unbinned(slot, drawn), 0.0)
        bare = [WyckoffForm(t.group, t.sites, t.numbers, (), ()) for t in templates]
        share = np.array([tk.primitive_share(int(g)) for g in groups])
        volumes = tk.predicted_volumes(bare) * np.exp(numbers[Slot.VOLUME]) * share
        cells = tk.cells_from_numbers(groups, volumes, numbers)
        sound = np.isfinite(cells).all(1) & finite
        coordinates = (bins / tk.COORDINATES) % 1.0
        first = 1 + np.array([len(tk.group_table().cell[g]) for g in groups])
        forms: list[WyckoffForm | None] = []
        for i in range(n):
            forms.append(self._form(templates[i], cells[i], coordinates[i, first[i] :]) if sound[i] else None)
        return forms

    @staticmethod
    def _form(template: Template, cell: FloatArray, coordinates: FloatArray) -> WyckoffForm:
        free = tk.group_table().free[template.group]
        values, parameters, at = coordinates.tolist(), [], 0
        for site in template.sites:
            parameters.append(tuple(values[at : at + int(free[site])]))
            at += int(free[site])
        return WyckoffForm(template.group, template.sites, template.numbers, tuple(cell.tolist()), tuple(parameters))


@dataclass
class _Walk:
    """Token sequences that grow in step, with their caches; under guidance the unconditional twins come second."""

    model: WyckoffModel
    contexts: tuple[Context, ...]
    caches: tuple[list[Cache], ...]
    token: Tensor
    slot: Tensor
    groups: Tensor
    alive: Any
    sites: Tensor | None = None

    @classmethod
    def start(cls, model: WyckoffModel, wanted: Context, open_: Context | None, n: int, room: int) -> _Walk:
        zeros = torch.zeros(n, dtype=torch.int64, device=wanted.vector.device)
        contexts = (wanted,) if open_ is None else (wanted, open_)
        caches = tuple(model.backbone.cache(n, room) for _ in contexts)
        return cls(model, contexts, caches, zeros, zeros, zeros, np.ones(n, dtype=np.bool_))

    def enter_groups(self, groups: IntArray) -> None:
        """Tell the space groups, once they are known."""
        self.groups = torch.from_numpy(groups).to(self.token.device)
        if self.sites is None or len(self.sites) != len(groups):
            self.sites = self.model.site_vectors(self.groups)

    def step(self, following: Slot, guidance: float, atoms: IntArray) -> Tensor:
        """Read the last token and give the logits of the next, shape `n x vocabulary`."""
        inputs = self._last(following, atoms)
        out = [
            self.model(inputs, context, cache, self.sites)[:, -1]
            for context, cache in zip(self.contexts, self.caches, strict=True)
        ]
        return _guided(out, guidance)

    def number(
        self, following: IntArray, guidance: float, atoms: IntArray, site: IntArray, element: IntArray, axis: IntArray
    ) -> Tensor:
        """As `step`, where a number follows: the vocabulary from the volume on."""
        assert self.sites is not None  # the groups are known by now
        inputs = self._last(following, atoms, site, element, axis)
        out = [
            self.model.number_logits(inputs, context, cache, self.sites)
            for context, cache in zip(self.contexts, self.caches, strict=True)
        ]
        return _guided(out, guidance)

    def _last(self, following: Any, atoms: Any, site: Any = 0, element: Any = 0, axis: Any = 0) -> Inputs:
        """The last token of each row, and what follows it."""

        def put(values: Any) -> Tensor:
            row = np.broadcast_to(np.asarray(values, dtype=np.int64), (len(self.token),))
            return torch.from_numpy(np.array(row)).to(self.token.device)[:, None]

        return Inputs(
            tokens=self.token[:, None],
            slots=self.slot[:, None],
            groups=self.groups[:, None],
            atoms=put(atoms),
            following=put(following),
            site=put(site),
            element=put(element),
            axis=put(axis),
        )

    def read(self, prefix: Inputs, groups: IntArray) -> None:
        """Read whole prefixes but for their last token, which the next step reads."""
        self.enter_groups(groups)
        head = Inputs(**{name: getattr(prefix, name)[:, :-1] for name in Inputs.__dataclass_fields__})
        for context, cache in zip(self.contexts, self.caches, strict=True):
            self.model(head, context, cache, self.sites)
        self.token, self.slot = prefix.tokens[:, -1], prefix.slots[:, -1]

    def take(self, token: Tensor, slot: Any) -> None:
        """The token that was chosen."""
        slots = np.broadcast_to(np.asarray(slot, dtype=np.int64), (len(token),)).copy()
        self.token, self.slot = token, torch.from_numpy(slots).to(token.device)

    def retire(self, which: Any) -> None:
        """Rows that need no more tokens."""
        self.alive = self.alive & ~which

    def rows(self, index: IntArray) -> _Walk:
        """Some rows, which may repeat."""
        at = torch.from_numpy(index).to(self.token.device)
        return _Walk(
            self.model,
            tuple(c.rows(at) for c in self.contexts),
            tuple([c.rows(at) for c in caches] for caches in self.caches),
            self.token[at],
            self.slot[at],
            self.groups[at],
            self.alive[index],
            None if self.sites is None else self.sites[at],
        )


def _guided(out: list[Tensor], guidance: float) -> Tensor:
    """Logits with classifier-free guidance (Ho and Salimans, arXiv 2207.12598), on log-probabilities."""
    if len(out) == 1:
        return out[0]
    wanted, open_ = (torch.log_softmax(logits, dim=-1) for logits in out)
    return ((1 + guidance) * wanted - guidance * open_).masked_fill(out[0] <= -1e8, -1e9)


def _drawn(logits: Tensor, random: torch.Generator) -> Tensor:
    """A draw from each row's distribution, shape `n`: the first of independent events to happen at rates p."""
    waiting = torch.empty_like(logits).exponential_(generator=random)
    return (torch.softmax(logits, dim=-1) / waiting).argmax(-1)


def _alike(templates: Sequence[Template]) -> Iterator[list[int]]:
    """The places of templates with equally many orbits and nearly equally many numbers, some dozens together."""
    steps = [(len(t.sites), _coordinates(t) + len(tk.group_table().cell[t.group])) for t in templates]
    order = sorted(range(len(templates)), key=steps.__getitem__)
    for _, group in itertools.groupby(order, key=lambda place: len(templates[place].sites)):
        places = list(group)
        yield from (places[i : i + _TOGETHER] for i in range(0, len(places), _TOGETHER))


def _coordinates(template: Template) -> int:
    """How many free coordinates a template has."""
    return int(tk.group_table().free[template.group, list(template.sites)].sum())


def _prefix(templates: Sequence[Template]) -> Inputs:
    """The tokens START, group, (site, element)*, END of templates with equally many orbits."""
    n, orbits = len(templates), len(templates[0].sites)
    groups = np.array([t.group for t in templates], dtype=np.int64)
    sites = np.array([t.sites for t in templates], dtype=np.int64).reshape(n, orbits)
    numbers = np.array([t.numbers for t in templates], dtype=np.int64).reshape(n, orbits)
    length = 3 + 2 * orbits
    tokens, slots, atoms = (np.zeros((n, length), dtype=np.int64) for _ in range(3))
    tokens[:, 1], slots[:, 1] = groups + tk.GROUP_AT - 1, Slot.GROUP
    tokens[:, 2:-1:2], slots[:, 2::2] = sites + tk.SITE_AT, Slot.SITE
    tokens[:, 3::2], slots[:, 3::2] = numbers + tk.ELEMENT_AT - 1, Slot.ELEMENT
    tokens[:, -1], slots[:, -1] = tk.SITE_AT + tk.END, Slot.SITE
    total = np.cumsum(tk.group_table().in_primitive[groups[:, None], sites], axis=1)
    atoms[:, 3::2] = total
    atoms[:, 4::2] = total  # before the next orbit's element, and at the end
    following = np.zeros_like(slots)
    following[:, :-1], following[:, -1] = slots[:, 1:], Slot.VOLUME
    known = np.arange(length) >= 1
    nothing = torch.zeros((n, length), dtype=torch.int64)
    return Inputs(
        tokens=torch.from_numpy(tokens),
        slots=torch.from_numpy(slots),
        groups=torch.from_numpy(groups[:, None] * known),
        atoms=torch.from_numpy(atoms),
        following=torch.from_numpy(following),
        site=nothing,
        element=nothing,
        axis=nothing,
    )
