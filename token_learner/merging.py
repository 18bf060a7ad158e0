"""Token merging: the most similar tokens become one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from token_learner.checks import check_positive


def match(tokens: Float[Array, '*b n c'], removed: int) -> Float[Array, '*b m n']:
    """Bipartite soft matching: which tokens become one.

    Every other token looks for its most similar one among the rest, by the cosine; the
    `removed` pairs that are most similar merge.

    Args:
        tokens: [..., n, c].
        removed: how many tokens go, at most n // 2.

    Returns:
        [..., n - removed, n]: 1 where an old token goes into a new one, and 0.
    """
    n = tokens.shape[-2]
    x = tokens.astype(jnp.float32)
    x = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6)
    scores = jnp.einsum('...ac,...bc->...ab', x[..., ::2, :], x[..., 1::2, :])
    rank = jnp.argsort(jnp.argsort(-scores.max(axis=-1), axis=-1), axis=-1)
    into = jnp.where(rank < removed, scores.argmax(axis=-1), n // 2 + rank - removed)
    stay = jnp.broadcast_to(jnp.arange(n // 2), (*into.shape[:-1], n // 2))
    target = jnp.zeros((*into.shape[:-1], n), into.dtype)
    target = target.at[..., ::2].set(into).at[..., 1::2].set(stay)
    return jax.nn.one_hot(target, n - removed, axis=-2)


class TokenMerging(nn.Module):
    """Merges tokens by similarity until S a frame are left; it has no parameters.

    Bipartite soft matching with means weighted by how many positions a token stands for
    (ToMe: Bolya et al., ICLR 2023, arXiv:2210.09461, Sec. 3). `Encoder` carries these sizes
    on, into the attention of later blocks ("proportional attention") and the mean before
    the head, so that merging equal tokens changes nothing. Where the authors differ:

    - they merge inside each block and compare keys; here the block's input is compared,
      since a reduction stands between blocks;
    - a matching removes half of the tokens at most, so that one place may take several;
    - means are products with a 0/1 matrix, where they gather and scatter: 0.6 % of L/16 at 512
      with 16 tokens at 12.

    Over several places the same number goes at each, the authors' constant schedule.

    Attributes:
        num_tokens: S, tokens a frame after the last place.
        places: mergings that lead there, this one included.
    """

    num_tokens: int
    places: int = 1

    def __post_init__(self) -> None:
        check_positive('num_tokens', self.num_tokens)
        check_positive('places', self.places)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        grid: Float[Array, '*b h w c'],
        sizes: Float[Array, '*b h w'] | None = None,
        *,
        train: bool = False,
    ) -> tuple[Float[Array, '*b s c'], Float[Array, '*b s']]:
        """Merges positions, or tokens as a grid of one column.

        Args:
            grid: [..., h, w, c].
            sizes: [..., h, w], the positions that each one stands for; None is 1.
            train: not used.

        Returns:
            Tokens [..., s, c] and their sizes [..., s]. Where sizes is None, the groups
            are sown as `maps` [..., s, h, w], 1 inside a token's group and 0 outside.

        Raises:
            ValueError: if there are fewer than S positions.
        """
        del train
        *batch, h, w, c = grid.shape
        tokens = grid.reshape(*batch, h * w, c)
        counts = jnp.ones((*batch, h * w)) if sizes is None else sizes.reshape(*batch, h * w)
        if h * w < self.num_tokens:
            raise ValueError(f'{h * w} tokens do not merge into {self.num_tokens}; ask for fewer')
        left = h * w - -(-(h * w - self.num_tokens) // self.places)
        groups = None
        while (n := tokens.shape[-2]) > left:
            matching = match(tokens, min(n // 2, n - left))
            merged = jnp.einsum('...mn,...n->...m', matching, counts, precision='highest')
            shares = matching * counts[..., None, :] / merged[..., None]
            tokens = jnp.einsum('...mn,...nc->...mc', shares.astype(tokens.dtype), tokens)
            counts = merged
            if groups is not None:
                matching = jnp.einsum('...mk,...kn->...mn', matching, groups)
            groups = matching
        if groups is not None and sizes is None:
            self.sow('intermediates', 'maps', groups.reshape(*batch, left, h, w))
        return tokens, counts
