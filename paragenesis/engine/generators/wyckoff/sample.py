"""Sampling from the Wyckoff transformer: templates first, then several geometries for each.

A template (space group, sites and their elements) is drawn token by token under hard rules, all templates of a batch
in step. Its cell and free coordinates are then drawn several times from where the template ended, and the best is
kept (`search`): a template is what a sample is worth, a geometry costs little.
"""

from __future__ import annotations

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
_TOGETHER = 256  # templates whose geometries are drawn together
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
        self,
        wanted: Context,
        open_: Context | None,
        rules: Rules | SeedRules,
        n: int,
        *,
        site_temperature: float = 1.0,
        element_temperature: float = 1.0,
    ) -> Drawn:
        """At most n templates that obey the rules; the others ran into a dead end or were not finite.

        Args:
            wanted: The context, of n rows or of one for all.
            open_: The context without wished properties, for guidance; None for none.
            rules: What is allowed.
            n: How many to draw.
            site_temperature: Of space groups and sites; below 1 the likely is drawn more often.
            element_temperature: Of the elements.
        """
        self.tally.templates += n
        walk = _Walk.start(self.model, wanted, open_, n, 2 + 2 * (tk.MAX_ORBITS + 1))
        partial = Partial.start(n)
        done: dict[int, Template] = {}
        ends: list[tuple[_Walk, IntArray]] = []

        def choose(slot: Slot, allowed: Any) -> tuple[IntArray, Any]:
            temperature = element_temperature if slot == Slot.ELEMENT else site_temperature
            return self._choose(walk, slot, allowed, partial.atoms, temperature)

        group, ok = choose(Slot.GROUP, rules.groups(n))
        partial.group = group + 1
        while True:
            walk, partial = self._drop(walk, partial, ok)
            if not len(partial):
                return Drawn.of(done, ends)
            walk.enter_groups(partial.group)
            site, ok = choose(Slot.SITE, rules.sites(partial))
            ended = ok & (site == tk.END)
            finished = np.flatnonzero(ended & walk.alive)
            if len(finished):
                done |= {int(partial.row[i]): partial.template(i) for i in finished.tolist()}
                ends.append((walk.rows(finished, room=0), partial.row[finished]))
            partial.site = np.where(ok & ~ended, site, 0)  # a row that has ended idles on
            walk.retire(ended)
            walk, partial = self._drop(walk, partial, ok)
            if not len(partial):
                return Drawn.of(done, ends)
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
        self, drawn: Drawn, which: Sequence[int], tries: int, temperature: float
    ) -> Iterator[tuple[int, list[WyckoffForm]]]:
        """For some of the templates their place and `tries` forms of each, one where only the cell is free.

        Args:
            drawn: Templates, as they were drawn.
            which: Places of those that are wanted.
            tries: Geometries to draw for each.
            temperature: Of the distributions of cell and coordinates.
        """
        order = sorted(which, key=lambda place: _numbers(drawn.templates[place]))
        for first in range(0, len(order), _TOGETHER):
            places = order[first : first + _TOGETHER]
            part = [drawn.templates[p] for p in places]
            copies = np.repeat(np.arange(len(part)), [tries if _coordinates(t) else 1 for t in part])
            forms = self._place(part, drawn.walk(places, room=_numbers(part[-1]) + 1), copies, temperature)
            for i, place in enumerate(places):
                own = np.flatnonzero(copies == i).tolist()
                yield place, [form for form in (forms[k] for k in own) if form is not None]

    def _place(
        self, templates: Sequence[Template], walk: _Walk, copies: IntArray, temperature: float
    ) -> list[WyckoffForm | None]:
        """A form of each copy of the templates that a walk ended in; None where the numbers make no cell."""
        plan = _Plan.of(templates)
        volume = walk.number(plan.slots[:, 0], self.guidance, plan.atoms, *plan.orbit(np.arange(len(templates)), 0))
        walk, plan, logits = walk.rows(copies), plan.rows(copies), volume[torch.from_numpy(copies).to(volume.device)]
        values = np.zeros((len(copies), plan.steps))
        finite = np.ones(len(copies), dtype=np.bool_)
        order = np.arange(len(copies))
        for step in range(plan.steps):
            going = plan.slots[order, step] != Slot.START
            if going.mean() < _SPARSE:
                still = np.flatnonzero(going)
                if not len(still):
                    break
                walk, order, going = walk.rows(still), order[still], going[still]
            # a row that has finished goes on idly until ranks close; its draws are not looked at
            slots = np.where(going, plan.slots[order, step], Slot.VOLUME)
            if step:
                logits = walk.number(slots, self.guidance, plan.atoms[order], *plan.orbit(order, step))
            good = torch.isfinite(logits).all(1)
            finite[order] &= good.cpu().numpy() | ~going
            token = _drawn(logits.nan_to_num(0.0) / temperature, self.random) + tk.VOLUME_AT
            walk.take(token, slots)
            values[order, step] = token.cpu().numpy() - _BLOCK_START[slots]
        self.tally.not_finite += int((~finite).sum())
        jitter = torch.rand(values.shape, generator=self.random, dtype=torch.float64, device=self.random.device)
        return plan.forms([templates[c] for c in copies], values + jitter.cpu().numpy() - 0.5, finite)


@dataclass(frozen=True)
class Drawn:
    """Templates, and the walks that ended in them, from which geometries are drawn.

    Attributes:
        templates: In the order of their rows, of which the short ones end first.
    """

    templates: list[Template]
    _ends: list[tuple[_Walk, IntArray]]  # walks of one length each, and the place of each row's template

    @classmethod
    def of(cls, done: dict[int, Template], ends: list[tuple[_Walk, IntArray]]) -> Drawn:
        """Templates by their rows, and walks that ended together with the rows that they were."""
        rows = np.array(sorted(done), dtype=np.int64)
        return cls([done[row] for row in rows.tolist()], [(walk, np.searchsorted(rows, own)) for walk, own in ends])

    def walk(self, places: Sequence[int], room: int) -> _Walk:
        """The walks that ended in the templates at some places, in their order, with room for more tokens."""
        parts, found = [], []
        for walk, own in self._ends:
            rows = np.flatnonzero(np.isin(own, places))
            if len(rows):
                parts.append((walk, rows))
                found += own[rows].tolist()
        order = np.argsort(found)[np.argsort(np.argsort(places))]  # from the order of the parts to that of the places
        return _Walk.joined(parts, room).rows(order)


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
    mask: Tensor | None = None  # which places of the caches hold a token, room included; None if all do

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
        mask = None if self.mask is None else self.mask[:, : self.length + 1]
        out = [
            self.model.number_logits(inputs, context, cache, self.sites, mask)
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

    def take(self, token: Tensor, slot: Any) -> None:
        """The token that was chosen."""
        slots = np.broadcast_to(np.asarray(slot, dtype=np.int64), (len(token),)).copy()
        self.token, self.slot = token, torch.from_numpy(slots).to(token.device)

    def retire(self, which: Any) -> None:
        """Rows that need no more tokens."""
        self.alive = self.alive & ~which

    @property
    def length(self) -> int:
        """Tokens read so far; the last one chosen is not among them."""
        return self.caches[0][0].length

    def rows(self, index: IntArray, room: int | None = None) -> _Walk:
        """Some rows, which may repeat, with room for so many tokens more; as much as before if not given."""
        at = torch.from_numpy(index).to(self.token.device)
        return _Walk(
            self.model,
            tuple(c.rows(at) for c in self.contexts),
            tuple([c.rows(at, room) for c in caches] for caches in self.caches),
            self.token[at],
            self.slot[at],
            self.groups[at],
            self.alive[index],
            None if self.sites is None else self.sites[at],
            None if self.mask is None else self.mask[at],
        )

    @classmethod
    def joined(cls, parts: Sequence[tuple[_Walk, IntArray]], room: int) -> _Walk:
        """Some rows of several walks, whose groups are known, with room for so many tokens more."""
        walks = [walk.rows(rows, room=0) for walk, rows in parts]
        length = max(walk.length for walk in walks)
        caches = []
        for twin in range(len(walks[0].caches)):
            layers = zip(*(walk.caches[twin] for walk in walks), strict=True)
            caches.append([Cache.joined(layer, room) for layer in layers])
        begin = torch.tensor([length - walk.length for walk in walks]).repeat_interleave(
            torch.tensor([len(walk.token) for walk in walks])
        )
        token = torch.cat([walk.token for walk in walks])
        return cls(
            walks[0].model,
            tuple(Context.joined(same) for same in zip(*(walk.contexts for walk in walks), strict=True)),
            tuple(caches),
            token,
            torch.cat([walk.slot for walk in walks]),
            torch.cat([walk.groups for walk in walks]),
            np.concatenate([walk.alive for walk in walks]),
            torch.cat([walk.sites for walk in walks if walk.sites is not None]),
            (torch.arange(length + room) >= begin[:, None]).to(token.device),
        )


def _guided(out: list[Tensor], guidance: float) -> Tensor:
    """Logits with classifier-free guidance (Ho and Salimans, arXiv 2207.12598), on log-probabilities."""
    if len(out) == 1:
        return out[0]
    wanted, open_ = (torch.log_softmax(logits, dim=-1) for logits in out)
    return ((1 + guidance) * wanted - guidance * open_).masked_fill(out[0] <= -1e8, -1e9)


def _drawn(logits: Tensor, random: torch.Generator) -> Tensor:
    """A draw from each row's distribution, shape `n`: the first token whose cumulative probability reaches u > 0."""
    reached = torch.softmax(logits, dim=-1).cumsum(-1)
    u = 1.0 - torch.rand(len(logits), 1, generator=random, device=logits.device)
    return torch.searchsorted(reached, u * reached[:, -1:]).squeeze(-1)


def _coordinates(template: Template) -> int:
    """How many free coordinates a template has."""
    return int(tk.group_table().free[template.group, list(template.sites)].sum())


def _numbers(template: Template) -> int:
    """How many numbers a template needs beside its volume."""
    return _coordinates(template) + len(tk.group_table().cell[template.group])
