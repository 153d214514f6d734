"""The Wyckoff transformer: what may come next in the token sequence of a crystal, and how likely it is.

Tokens are embedded by what they mean: a site by its letter, site symmetry and multiplicity, shared between groups; an
element by its place in the periodic table beside a learned vector; and the same vectors score them at the output. So
what is learned of one d-block metal, or of one mirror plane, helps with the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from paragenesis.engine.generators.learned.backbone import Backbone, Cache
from paragenesis.engine.generators.learned.context import Adapter, Context, ContextEncoder, PropertyScale
from paragenesis.engine.generators.wyckoff import tokens as tk
from paragenesis.engine.generators.wyckoff.tokens import BLOCKS, Slot, group_table
from paragenesis.settings import Settings

_ATOMS = 64  # atoms of the primitive cell that are told apart
_SMOOTHING = {  # standard deviation, in bins, over which a neighbouring bin is nearly as right
    Slot.VOLUME: 1.0,
    Slot.RATIO_B: 0.7,
    Slot.RATIO_C: 0.7,
    Slot.ALPHA: 0.7,
    Slot.BETA: 0.7,
    Slot.GAMMA: 0.7,
    Slot.COORDINATE: 0.7,
}


class WyckoffModelSettings(Settings):
    """Size of the network.

    Attributes:
        width: Width of the tokens.
        layers: Blocks.
        heads: Attention heads.
        context: Width of the context.
        dropout: Share of activations dropped in training.
    """

    width: int = 96
    layers: int = 5
    heads: int = 4
    context: int = 96
    dropout: float = 0.1


@dataclass(frozen=True)
class Inputs:
    """Tokens as the network reads them: T tokens of B crystals, and what is known of the token after each.

    Attributes:
        tokens: Numbers in the flat vocabulary, shape `B x T`.
        slots: Their slots, shape `B x T`.
        groups: Space groups, shape `B x T`; 0 before the group is known.
        atoms: Atoms in the primitive cell so far, shape `B x T`.
        following: The slot of the next token, shape `B x T`.
        site: If that is a coordinate: the site of its orbit, shape `B x T`.
        element: The orbit's atomic number, shape `B x T`.
        axis: Which of x, y, z, shape `B x T`.
    """

    tokens: Tensor
    slots: Tensor
    groups: Tensor
    atoms: Tensor
    following: Tensor
    site: Tensor
    element: Tensor
    axis: Tensor

    def rows(self, index: Tensor) -> Inputs:
        """The tokens of some crystals."""
        return Inputs(**{name: getattr(self, name)[index] for name in self.__dataclass_fields__})


class WyckoffModel(nn.Module):
    """Next-token model of crystals in Wyckoff form."""

    _features: Tensor
    _symmetry_of: Tensor
    _count_of: Tensor
    _free_of: Tensor
    _exists: Tensor
    _blocks: Tensor
    _smoothing: Tensor

    def __init__(self, settings: WyckoffModelSettings, scales: Sequence[PropertyScale]) -> None:
        """Make an untrained network that knows the properties of `scales`."""
        super().__init__()
        table, width = group_table(), settings.width
        self.settings = settings
        self.encoder = ContextEncoder(scales, settings.context)
        self.synthetic = nn.Parameter(torch.zeros(settings.context))  # says that a training crystal is made up
        self.backbone = Backbone(
            width, settings.layers, settings.heads, settings.dropout, causal=True, context=settings.context
        )
        plain = tk.VOCABULARY - tk.SITES - tk.ELEMENTS
        self.plain = nn.Embedding(plain, width)
        self.letter = nn.Embedding(tk.SITES, width)
        self.symmetry = nn.Embedding(table.symmetries, width)
        self.multiplicity = nn.Embedding(_ATOMS, width)
        self.freedom = nn.Embedding(4, width)
        self.element = nn.Embedding(tk.ELEMENTS + 1, width)
        self.periodic = nn.Linear(_periodic_table().shape[1], width)
        self.group = nn.Embedding(tk.GROUPS + 1, width)
        self.atoms = nn.Embedding(_ATOMS, width)
        self.following = nn.Embedding(len(Slot), width)
        self.axis = nn.Embedding(3, width)
        self.orbit_site = nn.Linear(width, width, bias=False)
        self.orbit_element = nn.Linear(width, width, bias=False)
        self.head = nn.Linear(width, plain)
        self.head_site = nn.Linear(width, width)
        self.head_element = nn.Linear(width, width)
        self.bias_element = nn.Parameter(torch.zeros(tk.ELEMENTS))
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.05)
        self.register_buffer("_features", torch.from_numpy(_periodic_table()).float(), persistent=False)
        self.register_buffer("_symmetry_of", torch.from_numpy(table.symmetry), persistent=False)
        self.register_buffer("_count_of", torch.from_numpy(table.in_primitive.clip(max=_ATOMS - 1)), persistent=False)
        self.register_buffer("_free_of", torch.from_numpy(table.free), persistent=False)
        self.register_buffer("_exists", torch.from_numpy(table.exists), persistent=False)
        self.register_buffer("_blocks", torch.from_numpy(_blocks()), persistent=False)
        self.register_buffer("_smoothing", torch.from_numpy(_smoothing()).float(), persistent=False)

    # --- embeddings --------------------------------------------------------------------------------------------------

    def site_vectors(self, groups: Tensor) -> Tensor:
        """What the 28 sites of each group mean, shape `... x 28 x width`."""
        letters = self.letter.weight.expand(*groups.shape, -1, -1)
        vectors: Tensor = (
            letters
            + self.symmetry(self._symmetry_of[groups])
            + self.multiplicity(self._count_of[groups])
            + self.freedom(self._free_of[groups])
        )
        return vectors

    def element_vectors(self) -> Tensor:
        """What the elements mean by atomic number, shape `104 x width`; row 0 means none."""
        vectors: Tensor = self.element.weight + self.periodic(self._features)
        return vectors

    def embed(self, inputs: Inputs, sites: Tensor, elements: Tensor) -> Tensor:
        """The tokens as vectors, shape `B x T x width`.

        Args:
            inputs: The tokens.
            sites: From `site_vectors`, shape `B x 28 x width`.
            elements: From `element_vectors`.
        """
        tokens, slots = inputs.tokens, inputs.slots
        rows = torch.arange(len(tokens), device=tokens.device)[:, None]
        is_site, is_element = slots == Slot.SITE, slots == Slot.ELEMENT
        plain = torch.where(tokens < tk.SITE_AT, tokens, tokens - tk.SITES - tk.ELEMENTS)
        x = self.plain(torch.where(is_site | is_element, 0, plain))
        site = sites[rows, torch.where(is_site, tokens - tk.SITE_AT, 0)]
        element = elements[torch.where(is_element, tokens - tk.ELEMENT_AT + 1, 0)]
        x = torch.where(is_site[..., None], site, torch.where(is_element[..., None], element, x))
        x = x + self.group(inputs.groups) + self.atoms(inputs.atoms.clamp(max=_ATOMS - 1))
        x = x + self.following(inputs.following)
        orbit = (inputs.following == Slot.COORDINATE)[..., None]
        about = self.orbit_site(sites[rows, inputs.site]) + self.orbit_element(elements[inputs.element])
        embedded: Tensor = x + orbit * (about + self.axis(inputs.axis))
        return embedded

    # --- the network -------------------------------------------------------------------------------------------------

    def context(self, wishes: Any, synthetic: Tensor | None = None) -> Context:
        """The context of B wishes; `synthetic` is 1 for training crystals that were made up, shape `B`."""
        context: Context = self.encoder(wishes)
        if synthetic is None:
            return context
        return Context(context.vector + synthetic[:, None] * self.synthetic, context.steering)

    def forward(
        self, inputs: Inputs, context: Context, cache: list[Cache] | None = None, sites: Tensor | None = None
    ) -> Tensor:
        """Logits over the flat vocabulary for the token after each, shape `B x T x vocabulary`.

        Only the block of the next token's slot is open, and of its sites only those that the group has. With a cache,
        `inputs` are only the new tokens; `sites` are the groups' site vectors, where they are at hand already.
        """
        groups = inputs.groups.amax(1)
        sites = self.site_vectors(groups) if sites is None else sites
        elements = self.element_vectors()
        h = self.read(inputs, context, cache, sites, elements)
        plain = self.head(h)
        site = torch.einsum("btw,bsw->bts", self.head_site(h), sites)
        element = self.head_element(h) @ elements[1:].T + self.bias_element
        site = site.masked_fill(~self._exists[groups][:, None], -1e9)
        logits = torch.cat([plain[..., : tk.SITE_AT], site, element, plain[..., tk.SITE_AT :]], dim=-1)
        return logits.masked_fill(~self._blocks[inputs.following], -1e9)

    def number_logits(
        self, inputs: Inputs, context: Context, cache: list[Cache], sites: Tensor, mask: Tensor | None
    ) -> Tensor:
        """As `forward`, where only numbers can follow: the vocabulary from the volume on, and the last token alone.

        `mask` is True where a token of the cache or of `inputs` is real, shape `B x tokens`.
        """
        h = self.read(inputs, context, cache, sites, self.element_vectors(), mask)[:, -1]
        logits = functional.linear(h, self.head.weight[tk.SITE_AT :], self.head.bias[tk.SITE_AT :])
        return logits.masked_fill(~self._blocks[inputs.following[:, -1], tk.VOLUME_AT :], -1e9)

    def read(
        self,
        inputs: Inputs,
        context: Context,
        cache: list[Cache] | None,
        sites: Tensor,
        elements: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The tokens through the backbone, shape `B x T x width`."""
        x = self.embed(inputs, sites, elements)
        return self.backbone(  # type: ignore[no-any-return]
            x, context.vector, cache=cache, steering=context.steering, mask=mask
        )

    def loss(self, inputs: Inputs, lowest: Tensor, targets: Tensor, context: Context, smooth: bool = True) -> Tensor:
        """Negative log-likelihood of each next token, nats, shape `B x T`; 0 where there is none.

        Args:
            inputs: The tokens.
            lowest: The first site still allowed as the next token, shape `B x T`.
            targets: The next tokens, shape `B x T`.
            context: What is wanted.
            smooth: Whether a neighbouring bin counts as nearly right.
        """
        logits = self(inputs, context)
        place = torch.arange(tk.SITES, device=logits.device)
        past = (place < lowest[..., None]) & (inputs.following == Slot.SITE)[..., None]
        logits[..., tk.SITE_AT : tk.ELEMENT_AT] = logits[..., tk.SITE_AT : tk.ELEMENT_AT].masked_fill(past, -1e9)
        log_p = functional.log_softmax(logits, dim=-1)
        real = inputs.following != Slot.START
        exact = -log_p.gather(-1, targets[..., None]).squeeze(-1)
        if not smooth:
            return exact * real
        binned = inputs.following >= Slot.VOLUME
        rows = self._smoothing[targets[binned]]
        soft = torch.zeros_like(exact)
        soft[binned] = -(rows * log_p[binned][:, tk.VOLUME_AT :]).sum(-1)
        return torch.where(binned, soft, exact) * real

    def add_adapter(self, scale: PropertyScale) -> Adapter:
        """Make room for a further property; everything else is to be frozen by who trains it."""
        settings = self.settings
        adapter = Adapter(scale, settings.context, settings.layers, settings.width)
        self.encoder.adapters[scale.name] = adapter
        return adapter


def inputs_of(sequences: tk.Sequences, device: torch.device | str = "cpu") -> tuple[Inputs, Tensor, Tensor]:
    """Whole sequences as inputs, the lowest sites allowed and the targets, all shifted by one; shapes `B x (T-1)`."""
    known = np.arange(sequences.tokens.shape[1]) >= 1

    def put(array: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    inputs = Inputs(
        tokens=put(sequences.tokens[:, :-1]),
        slots=put(sequences.slots[:, :-1]),
        groups=put(sequences.groups[:, None] * known[:-1]),
        atoms=put(sequences.atoms[:, :-1]),
        following=put(sequences.slots[:, 1:]),
        site=put(sequences.site[:, 1:]),
        element=put(sequences.element[:, 1:]),
        axis=put(sequences.axis[:, 1:]),
    )
    return inputs, put(sequences.lowest[:, 1:]), put(sequences.tokens[:, 1:])


def _blocks() -> Any:
    """Which tokens each slot opens, shape `slots x vocabulary`."""
    out = np.zeros((len(Slot), tk.VOCABULARY), dtype=np.bool_)
    for slot, (start, count) in BLOCKS.items():
        out[slot, start : start + count] = True
    return out


def _smoothing() -> Any:
    """What share of the truth each bin gets, shape `vocabulary x (vocabulary from the volume on)`."""
    out = np.zeros((tk.VOCABULARY, tk.VOCABULARY - tk.VOLUME_AT))
    for slot, sigma in _SMOOTHING.items():
        start, count = BLOCKS[slot]
        gap = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
        if slot == Slot.COORDINATE:
            gap = np.minimum(gap, count - gap)
        weight = np.exp(-0.5 * (gap / sigma) ** 2)
        at = start - tk.VOLUME_AT
        out[start : start + count, at : at + count] = weight / weight.sum(1, keepdims=True)
    return out


def _periodic_table() -> Any:
    """Period, group, block, radius, electronegativity and mass of each element, scaled; shape `104 x features`."""
    from ase.data import chemical_symbols, covalent_radii
    from pymatgen.core import Element

    rows = [np.zeros(8 + 19 + 4 + 3)]
    for z in range(1, tk.ELEMENTS + 1):
        element = Element(chemical_symbols[z])
        row = np.zeros(8 + 19 + 4 + 3)
        row[int(element.row)] = 1.0
        row[8 + int(element.group)] = 1.0
        row[27 + "spdf".index(element.block)] = 1.0
        row[31:] = tk.electronegativity(z) - 1.8, covalent_radii[z] - 1.4, z / 50 - 1
        rows.append(row)
    return np.array(rows)
