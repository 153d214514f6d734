"""The one network of all learned generators: a pre-norm transformer whose blocks a context modulates.

The Wyckoff model runs it causally over tokens, with a cache of keys and values while it samples; the flow runs it
over the atoms of a crystal, with the geometry as a bias on the attention. What is wanted of the crystal, and the
time of a flow, enter every block as scale, shift and gate (adaLN: Peebles and Xie, ICCV 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

PARTS = 6  # scale, shift and gate of the attention, then of the feed-forward layer


@dataclass
class Cache:
    """Keys and values of the tokens so far, for one block.

    Attributes:
        keys: Shape `B x heads x room x head width`; the first `length` places are filled.
        values: Same shape.
        length: Tokens so far.
    """

    keys: Tensor
    values: Tensor
    length: int = 0

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add T tokens and return the keys and values of all."""
        end = self.length + keys.shape[2]
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def rows(self, index: Tensor, room: int | None = None) -> Cache:
        """The cache of some rows of the batch, which may repeat; at most `room` tokens more will come."""
        end = None if room is None else self.length + room
        return Cache(self.keys[:, :, :end][index], self.values[:, :, :end][index], self.length)

    @classmethod
    def joined(cls, caches: Sequence[Cache], room: int) -> Cache:
        """Caches one after the other, with room for more tokens; shorter ones begin with places that hold nothing."""
        length = max(cache.length for cache in caches)

        def padded(held: Tensor, own: int) -> Tensor:
            return functional.pad(held[:, :, :own], (0, 0, length - own, room))

        return cls(
            torch.cat([padded(cache.keys, cache.length) for cache in caches]),
            torch.cat([padded(cache.values, cache.length) for cache in caches]),
            length,
        )


class Block(nn.Module):
    """Attention and a feed-forward layer, each modulated by the context."""

    def __init__(self, width: int, heads: int, dropout: float, causal: bool, context: int | None) -> None:
        """Make a block of `width` with `heads`; `context` is the width of what modulates it, if anything does."""
        super().__init__()
        self.heads, self.causal, self.dropout = heads, causal, dropout
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=context is None) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.modulation = nn.Linear(context, PARTS * width) if context is not None else None
        if self.modulation is not None:  # begins as a plain transformer
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None,
        bias: Tensor | None,
        mask: Tensor | None,
        cache: Cache | None,
        steering: Tensor | None,
    ) -> Tensor:
        """See `Backbone.forward`."""
        if self.modulation is None:
            x = x + self._attend(self.norms[0](x), bias, mask, cache)
            plain: Tensor = x + self._think(self.norms[1](x))
            return plain
        assert context is not None
        modulation = self.modulation(functional.silu(context))
        if steering is not None:
            modulation = modulation + steering
        scale, shift, gate, scale2, shift2, gate2 = modulation.unsqueeze(1).chunk(PARTS, dim=-1)
        x = x + (1 + gate) * self._attend(self.norms[0](x) * (1 + scale) + shift, bias, mask, cache)
        out: Tensor = x + (1 + gate2) * self._think(self.norms[1](x) * (1 + scale2) + shift2)
        return out

    def _attend(self, x: Tensor, bias: Tensor | None, mask: Tensor | None, cache: Cache | None) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        causal = self.causal
        if cache is not None:
            causal = causal and cache.length == 0 and length > 1
            k, v = cache.extend(k, v)
        if mask is not None:  # a key that is no token gets no attention
            closed = torch.zeros(mask.shape, dtype=x.dtype, device=x.device).masked_fill(~mask, -1e9)[:, None, None, :]
            bias = closed if bias is None else bias + closed
        dropout = self.dropout if self.training else 0.0
        if bias is not None and causal:
            future = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
            bias, causal = bias.masked_fill(future, -1e9), False
        if length == 1 and not dropout:  # twice as fast as the fused kernel, which is made for many
            logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
            mixed = torch.softmax(logits if bias is None else logits + bias, dim=-1) @ v
        else:
            mixed = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=bias, dropout_p=dropout, is_causal=causal
            )
        return self._drop(self.out(mixed.transpose(1, 2).reshape(batch, length, width)))

    def _think(self, x: Tensor) -> Tensor:
        return self._drop(self.down(functional.gelu(self.up(x))))

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training)


class Backbone(nn.Module):
    """A stack of blocks and a final norm."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        dropout: float = 0.0,
        causal: bool = False,
        context: int | None = None,
    ) -> None:
        """Make the stack.

        Args:
            width: Width of the tokens.
            layers: How many blocks.
            heads: Attention heads of each; must divide the width.
            dropout: Share of activations dropped while training.
            causal: Whether a token sees only those before it.
            context: Width of the context that modulates the blocks; None for none.
        """
        super().__init__()
        self.width, self.heads = width, heads
        self.blocks = nn.ModuleList(Block(width, heads, dropout, causal, context) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        bias: Tensor | None = None,
        mask: Tensor | None = None,
        cache: list[Cache] | None = None,
        steering: Tensor | None = None,
    ) -> Tensor:
        """Transform T tokens of B crystals.

        Args:
            x: The tokens, shape `B x T x width`.
            context: What is wanted, shape `B x context`.
            bias: Added to the attention logits, shape `B x heads x T x T` (or broadcasting to it).
            mask: True where a token is real, shape `B x T`; with a cache, of all tokens so far.
            cache: One a block, from `cache`; holds the tokens before these and is extended by them.
            steering: Added to the modulation of each block, shape `B x layers x 6 width`; an adapter makes it.

        Returns:
            Shape `B x T x width`.
        """
        for i, block in enumerate(self.blocks):
            x = block(
                x,
                context,
                bias,
                mask,
                None if cache is None else cache[i],
                None if steering is None else steering[:, i],
            )
        normed: Tensor = self.norm(x)
        return normed

    def cache(self, batch: int, room: int) -> list[Cache]:
        """Empty caches for `batch` crystals of at most `room` tokens."""
        weight = self.norm.weight
        shape = (batch, self.heads, room, self.width // self.heads)
        return [Cache(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in self.blocks]
