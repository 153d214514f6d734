"""From noise to crystals: the integration of the flow, free or inside the symmetry of Wyckoff templates.

What is known at the start decides the task. Types that are not masked stay (structure prediction, or fixed sites); a
geometry that is told to rest stays (decoration). Each masked atom, or orbit, is given a random moment at which its type
is drawn from the logits, under rules that always leave a way to an allowed crystal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from paragenesis.crystals import BoolArray, FloatArray, IntArray
from paragenesis.engine.generators.flow.guidance import Guide, steered
from paragenesis.engine.generators.flow.model import FlowNetwork, Prediction
from paragenesis.engine.generators.flow.paths import Clocks, mean_free
from paragenesis.engine.generators.flow.projection import Projection
from paragenesis.engine.generators.flow.rules import TypeRules
from paragenesis.engine.generators.flow.state import MASKED, State
from paragenesis.engine.generators.learned.context import Context, Wishes


@dataclass(frozen=True)
class Course:
    """How a flow is integrated.

    Attributes:
        steps: Euler steps.
        slope: Anti-annealing: velocities of the coordinates are multiplied by `1 + slope t`.
        guidance: Weight of classifier-free guidance; counts where properties are wished for.
        guides: Property models that bend the flow.
        guides_weight: Weight of the guides.
        begin: Clock of the geometry at the start; above 0 for a crystal that is only refined.
        moving: Whether the geometry flows.
        temperature: Divides the logits of the types.
    """

    steps: int = 50
    slope: float = 5.0
    guidance: float = 0.0
    guides: Sequence[Guide] = field(default=())
    guides_weight: float = 1.0
    begin: float = 0.0
    moving: bool = True
    temperature: float = 1.0


@dataclass(frozen=True)
class Ends:
    """Where B paths ended.

    Attributes:
        state: The states; those of paths that broke off mean nothing.
        finite: True where every output of the network was finite, shape `B`.
        finished: True where each site found a type, shape `B`.
    """

    state: State
    finite: BoolArray
    finished: BoolArray


@torch.no_grad()
def integrate(
    network: FlowNetwork,
    start: State,
    wishes: Wishes,
    course: Course,
    rules: TypeRules,
    generator: torch.Generator,
    symmetry: Projection | None = None,
    sites: Tensor | None = None,
) -> Ends:
    """Run B paths to their ends.

    Args:
        network: The trained network.
        start: Where they begin.
        wishes: What is wanted of each.
        course: How to integrate.
        rules: What types are allowed.
        generator: Source of all randomness, on the CPU.
        symmetry: The subspace to stay in; None for all crystals.
        sites: Site of each atom, shape `B x N`, where atoms share one without such a subspace.
    """
    if sites is None:
        sites = torch.arange(start.types.shape[1]).expand(start.types.shape) if symmetry is None else symmetry.sites
    moments = torch.rand(start.types.shape, generator=generator)
    contexts, std = _contexts(network, wishes, course), network.std.cpu()
    state, finite = start, torch.ones(len(start), dtype=torch.bool)
    for k in range(course.steps):
        clocks = _clocks(state, course, k / course.steps)
        said = _predict(network, state, clocks, contexts, course.guidance)
        finite = finite & said.finite()
        said = steered(_made_finite(said), state, clocks, course.guides, course.guides_weight, std)
        moved = _moved(state, said, clocks, course, symmetry) if course.moving else state
        due = moments < (k + 1) / course.steps
        state = replace(moved, types=_revealed(state, said, due, sites, rules, course.temperature, generator))
    finished = ((state.types != MASKED) | ~state.atoms).all(1)
    return Ends(state, finite.numpy(), finished.numpy())


def _clocks(state: State, course: Course, share: float) -> Clocks:
    """The clocks when a share of the steps is done; types that are all known are at 1."""
    known = ((state.types != MASKED) | ~state.atoms).all(1)
    types = torch.where(known, 1.0, torch.full((len(state),), share))
    geometry = course.begin + (1 - course.begin) * share if course.moving else 1.0
    return Clocks(types, torch.full((len(state),), geometry))


def _contexts(network: FlowNetwork, wishes: Wishes, course: Course) -> Context:
    """The context of each crystal; with guidance, those without the properties follow."""
    wishes = wishes.to(network.mean.device)
    both = wishes if course.guidance == 0 else Wishes.joined(wishes, wishes.without_properties())
    context: Context = network.encoder(both)
    return context


def _predict(network: FlowNetwork, state: State, clocks: Clocks, contexts: Context, weight: float) -> Prediction:
    """What the network says; with guidance, both sides of it in one call. The answer is on the CPU."""
    device, n = network.mean.device, len(state)
    if weight == 0:
        one: Prediction = network(state.to(device), clocks.to(device), contexts)
        return one.to("cpu")
    twice = State(*(torch.cat([x, x]) for x in (state.types, state.frac, state.cell, state.atoms)))
    clocks = Clocks(clocks.types.repeat(2), clocks.geometry.repeat(2))
    both = network(twice.to(device), clocks.to(device), contexts).to("cpu")

    def mixed(x: Tensor) -> Tensor:
        return (1 + weight) * x[:n] - weight * x[n:]

    logits = torch.cat([both.logits[:n, :, : MASKED + 1], mixed(both.logits[..., MASKED + 1 :])], dim=-1)
    return Prediction(mixed(both.velocity), mixed(both.cell), logits)


def _made_finite(said: Prediction) -> Prediction:
    """The same with zeros for what is not finite, so that a broken path does not stop the others."""
    logits = said.logits.nan_to_num(nan=0.0, posinf=0.0, neginf=-torch.inf)
    return Prediction(said.velocity.nan_to_num(0.0, 0.0, 0.0), said.cell.nan_to_num(0.0, 0.0, 0.0), logits)


def _moved(state: State, said: Prediction, clocks: Clocks, course: Course, symmetry: Projection | None) -> State:
    """The geometry one Euler step on."""
    step = (1 - course.begin) / course.steps
    time = clocks.geometry[:, None]
    left = (1 - time).clamp(min=1e-6)
    faster = (step * (1 + course.slope * time) / left).clamp(max=1.0)  # share of the way left; never beyond its end
    change = said.velocity * (left * faster)[..., None]
    cell = state.cell + (said.cell - state.cell) * (step / left).clamp(max=1.0)
    if symmetry is None:
        return replace(state, frac=(state.frac + mean_free(change, state.atoms)) % 1.0, cell=cell)
    return replace(state, frac=symmetry.project(state, change) % 1.0, cell=symmetry.project_cell(cell, state.n_atoms))


def _revealed(
    state: State,
    said: Prediction,
    due: Tensor,
    sites: Tensor,
    rules: TypeRules,
    temperature: float,
    generator: torch.Generator,
) -> Tensor:
    """The types after those whose moment has come are drawn, one site after the other, shape `B x N`.

    A site's moment is that of its first atom. Where no type would do, the site stays masked.
    """
    types = state.types.clone()
    waiting = (types == MASKED) & state.atoms
    for i in torch.nonzero((waiting & due).any(1)).flatten().tolist():
        n = int(state.n_atoms[i])
        members = _members(sites[i, :n].numpy(), waiting[i, :n].numpy())
        ready = [atoms for atoms in members if bool(due[i, atoms[0]])]
        rest = [len(atoms) for atoms in members if not bool(due[i, atoms[0]])]
        logits = said.logits[i, :n].double().numpy()
        known = types[i, :n][types[i, :n] != MASKED].tolist()
        for k, atoms in enumerate(ready):
            after = [*(len(other) for other in ready[k + 1 :]), *rest]
            drawn = _draw(logits[atoms].mean(0) / temperature, rules, known, len(atoms), after, generator)
            known += [drawn] * len(atoms) if drawn != MASKED else []
            types[i, torch.as_tensor(atoms)] = drawn
    return types


def _members(sites: IntArray, waiting: BoolArray) -> list[IntArray]:
    """The atoms of each site that waits for a type."""
    return [np.flatnonzero(sites == site) for site in np.unique(sites[waiting])]


def _draw(
    logits: FloatArray, rules: TypeRules, known: list[int], size: int, after: list[int], generator: torch.Generator
) -> int:
    """A type for a site of `size` atoms from its logits, under the rules; `MASKED` if none will do.

    What is drawn and turns out to lead nowhere is taken out and drawn again, which is a draw from the rest.
    """
    allowed = rules.mask(known, len(after) + 1) & np.isfinite(logits)
    while allowed.any():
        open_ = np.flatnonzero(allowed)
        total = np.cumsum(np.exp(logits[open_] - logits[open_].max()))
        uniform = float(torch.rand((), generator=generator))
        chosen = int(open_[min(int(np.searchsorted(total, uniform * total[-1], side="right")), len(open_) - 1)])
        if rules.finishes([*known, *[chosen] * size], after):
            return chosen
        allowed[chosen] = False
    return MASKED
