"""The two-layer perceptron of encoder blocks, tokenizers and fusers."""

import flax.linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from token_learner.checks import check_choice

GELUS = ('tanh', 'erf')


class Mlp(nn.Module):
    """Dense, GELU, dense.

    The public ViT and TokenLearner code computes GELU in the tanh form, Hugging Face's ViT with
    the error function.

    Attributes:
        hidden: width between the two layers.
        features: width of the output; None keeps that of the input.
        dropout: rate after each layer.
        dtype: type of the computation; parameters are float32.
        gelu: 'tanh' or 'erf'.
        use_bias: whether the layers have biases.
    """

    hidden: int
    features: int | None = None
    dropout: float = 0.0
    dtype: Dtype | None = None
    gelu: str = 'tanh'
    use_bias: bool = True

    def __post_init__(self) -> None:
        check_choice('gelu', self.gelu, GELUS)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, '*b c'], *, train: bool = False) -> Float[Array, '*b d']:
        """Maps [..., c] to [..., features]."""

        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(
                features,
                self.use_bias,
                self.dtype,
                kernel_init=nn.initializers.xavier_uniform(),
                bias_init=nn.initializers.normal(stddev=1e-6),
                name=name,
            )

        features = x.shape[-1] if self.features is None else self.features
        x = nn.gelu(dense(self.hidden, 'hidden')(x), approximate=self.gelu == 'tanh')
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = dense(features, 'out')(x)
        return nn.Dropout(self.dropout, deterministic=not train)(x)
