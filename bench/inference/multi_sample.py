"""Estimators of the gradient of L_K = E log (1/K) Σ_k w_k, of which S is the K.

w_k = p(x, z_k)/q(z_k|x) for independent z_k of q (Burda et al. 2016); L_1 is the ELBO. Notation:
w̃_k = w_k / Σ_j w_j. With a KL weight β, w is p(x|z) (p(z)/q(z|x))^β throughout.

All three give the decoder the gradient of `iwae`; they differ in the posterior's.
"""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution

from bench.inference.gradients import registered
from bench.inference.importance import iw_bound
from bench.inference.reparameterize import Noise, rsample
from bench.inference.target import Target
from bench.inference.tensors import detached
from vaes._shapes import Float


@registered(
    label="IWAE",
    colour="#EE7733",
    line="solid",
    citation="Burda et al. 2016, eq. 13",
    bound="iw_bound",
)
def iwae(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Float[Tensor, "*B"]:
    """Reparameterized: Σ w̃_k ∇ log w_k (Burda et al. 2016, eq. 13)."""
    z = rsample(posterior, noise, samples)
    return iw_bound(target.log_weight(posterior, z))


@registered(
    label="DReG",
    colour="#0077BB",
    line="solid",
    citation="Tucker et al. 2018, eq. 8",
    bound="iw_bound",
)
def dreg(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Float[Tensor, "*B"]:
    """Doubly reparameterized: Σ w̃_k² ∂log w_k/∂z_k ∇z_k (Tucker et al. 2018, eq. 8).

    The score's part of the gradient of L_K, −β Σ w̃_k ∇ log q, has the mean of
    −β Σ (w̃_k − w̃_k²) ∂log w_k/∂z_k ∇z_k, so that with the path's Σ w̃_k ∂log w_k/∂z_k ∇z_k each
    path counts w̃_k (1 − β + β w̃_k). Its mean is that of `iwae`.
    """
    z = rsample(posterior, noise, samples)
    # the decoder's gradient does not pass through z, hence keeps w̃_k alone
    to_paths = []
    if z.requires_grad:
        z.register_hook(lambda gradient: gradient * to_paths[0])
    log_weights = target.log_weight(detached(posterior), z)
    normalised = log_weights.detach().softmax(0)
    to_paths.append((1 - target.kl_weight + target.kl_weight * normalised).unsqueeze(-1))
    return iw_bound(log_weights)


@registered(
    label="IWAE, sticking the landing",
    colour="#009988",
    line="dashed",
    citation="Roeder et al. 2017, sec. 4; its bias: Tucker et al. 2018",
    bound="iw_bound",
    biased=True,
)
def iwae_sticking_the_landing(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Float[Tensor, "*B"]:
    """Σ w̃_k ∂log w_k/∂z_k ∇z_k: the score's part is dropped (Roeder et al. 2017).

    Of mean 0 for K = 1 alone: beyond, the estimate is biased (Tucker et al. 2018, sec. 3.1).
    """
    z = rsample(posterior, noise, samples)
    return iw_bound(target.log_weight(detached(posterior), z))
