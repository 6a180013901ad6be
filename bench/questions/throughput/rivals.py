"""The same training step by others, each as a careful user of that library would write it.

All start from the weights of one of our models with tanh networks and a diagonal Gaussian
posterior, and do the same mathematics: shuffled batches of binary images, one reparameterized
sample, the analytic KL, a Bernoulli likelihood, Adam at `RATE`, float32. An *epoch* is an action:
one pass over the images in whole batches, after which it returns the last batch's loss, or their
mean, in nats an image. Building one compiles it.

The libraries are an optional extra, imported where they are used: `make throughput PEERS=1`
installs what `requirements-peers.lock` pins.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.data.binarization import as_float, binarize
from bench.questions.throughput.actions import Action
from vaes import VAE

RATE = 1e-3
"""The learning rate, constant."""


def one_hidden_layer(variant: type[VAE]) -> type[VAE]:
    """The variant with networks D-H-L and L-H-D instead of the suite's D-H-H-L and L-H-H-D."""

    class OneHiddenLayer(variant):
        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            tanh = type(self.encoder[1])
            self.encoder = nn.Sequential(nn.Linear(self.data_dim, self.hidden_dim), tanh())
            self.decoder = nn.Sequential(
                nn.Linear(self.latent_dim, self.hidden_dim),
                tanh(),
                nn.Linear(self.hidden_dim, self.data_dim),
            )

    return OneHiddenLayer


# --- JAX -------------------------------------------------------------------------------------


def jax_parameters(model: VAE) -> dict[str, list[tuple]]:
    """The model's weights `(in, out)` and biases `(out,)`, layer by layer, for `jax_loss`."""
    from jax import numpy as jnp

    return {
        name: [
            (jnp.array(layer.weight.detach().T.numpy()), jnp.array(layer.bias.detach().numpy()))
            for layer in getattr(model, name).modules()
            if isinstance(layer, nn.Linear)
        ]
        for name in ("encoder", "location", "log_scale", "decoder")
    }


def jax_loss(parameters: Mapping[str, list[tuple]], x: Any, noise: Any) -> Any:
    """−ELBO of binary x `(B, D)` with noise `(B, L)`, nats an image."""
    import jax
    from jax import numpy as jnp

    features = x
    for weight, bias in parameters["encoder"]:
        features = jnp.tanh(features @ weight + bias)
    loc, log_scale = (
        features @ weight + bias
        for name in ("location", "log_scale")
        for weight, bias in parameters[name]
    )
    hidden = loc + jnp.exp(log_scale) * noise
    *inner, (weight, bias) = parameters["decoder"]
    for w, b in inner:
        hidden = jnp.tanh(hidden @ w + b)
    logits = hidden @ weight + bias
    distortion = (jax.nn.softplus(logits) - x * logits).sum()
    rate = 0.5 * (loc**2 + jnp.exp(2 * log_scale) - 1 - 2 * log_scale).sum()
    return (distortion + rate) / len(x)


def jax_step(optimizer: Any, carry: tuple, x: Any, noise: Any) -> tuple[tuple, Any]:
    """`(parameters, state of the optax optimizer)` → the same after one step, and the loss."""
    import jax
    import optax

    parameters, state = carry
    loss, gradient = jax.value_and_grad(jax_loss)(parameters, x, noise)
    updates, state = optimizer.update(gradient, state)
    return (optax.apply_updates(parameters, updates), state), loss


def jax_epoch(model: VAE, images: Tensor, batch_size: int) -> Action:
    """One jitted `lax.scan` over the steps of an epoch, its buffers donated, with optax's Adam.

    The host draws the order; bits of pixels (16 each, as ours) and noise are drawn inside, by
    JAX's default generator: `rbg` was slower. images uint8 `(N, D)`.
    """
    # read when JAX starts: one thread, as everybody here, where the system cannot pin a core
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import numpy as np
    import optax
    from jax import numpy as jnp

    optimizer, key = optax.adam(RATE), jax.random.key(0)

    def epoch(carry: tuple, pixels: Any, order: Any, number: Any) -> tuple[tuple, Any]:
        def step(carry: tuple, given: tuple) -> tuple[tuple, Any]:
            index, key = given
            for_pixels, for_noise = jax.random.split(key)
            bits = jax.random.bits(for_pixels, (batch_size, model.data_dim), "uint16")
            x = (bits < 257 * pixels[index].astype("uint16")).astype("float32")
            noise = jax.random.normal(for_noise, (batch_size, model.latent_dim))
            return jax_step(optimizer, carry, x, noise)

        keys = jax.random.split(jax.random.fold_in(key, number), len(order))
        return jax.lax.scan(step, carry, (order, keys))

    compiled, pixels = jax.jit(epoch, donate_argnums=0), jnp.array(images.numpy())
    parameters = jax_parameters(model)
    carry, shuffle, done = (parameters, optimizer.init(parameters)), np.random.default_rng(0), 0

    def action() -> float:
        nonlocal carry, done
        done += 1
        order = shuffle.permutation(len(images)).reshape(-1, batch_size)
        carry, losses = compiled(carry, pixels, order, done)
        return float(losses[-1])

    action()
    return action


# --- torch.compile ---------------------------------------------------------------------------


def plain(layers: nn.Sequential) -> nn.Sequential:
    """A copy with torch's own tanh."""
    return nn.Sequential(
        *(nn.Tanh() if isinstance(layer, nn.Tanh) else deepcopy(layer) for layer in layers)
    )


class Plain(nn.Module):
    """A VAE as a textbook has it: of binary x `(B, D)` it returns −ELBO, nats an image."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.encoder, self.decoder = plain(model.encoder), plain(model.decoder)
        self.location, self.log_scale = deepcopy(model.location), deepcopy(model.log_scale)

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x)
        loc, log_scale = self.location(features), self.log_scale(features)
        logits = self.decoder(loc + log_scale.exp() * torch.randn_like(loc))
        distortion = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        rate = 0.5 * (loc**2 + (2 * log_scale).exp() - 1 - 2 * log_scale).sum()
        return (distortion + rate) / len(x)


def torch_compile_epoch(model: VAE, images: Tensor, batch_size: int) -> Action:
    """`torch.compile` of binarization and loss, then `backward` and a fused Adam.

    In its favour images are indexed, without a `DataLoader`; a compiled `optimizer.step` was slower
    than the fused one. images uint8 `(N, D)`.
    """
    theirs, probabilities = Plain(model), as_float(images)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=RATE, fused=True)
    loss_of = torch.compile(lambda batch: theirs(torch.bernoulli(batch)), dynamic=False)

    def action() -> float:
        for index in torch.randperm(len(images)).split(batch_size):
            optimizer.zero_grad()
            loss = loss_of(probabilities[index])
            loss.backward()
            optimizer.step()
        return loss.item()

    action()
    return action


# --- pythae ----------------------------------------------------------------------------------


def pythae_model(model: VAE) -> nn.Module:
    """pythae's VAE with the model's networks and weights, given as its users give their own.

    pythae asks the encoder for log s² rather than log s, and the decoder for probabilities.
    """
    from pythae.models import VAE as PythaeVAE
    from pythae.models import VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = plain(model.encoder)
            self.location, self.log_variance = deepcopy(model.location), deepcopy(model.log_scale)
            with torch.no_grad():
                for weight in self.log_variance.parameters():
                    weight.mul_(2)

        def forward(self, x: Tensor) -> ModelOutput:
            features = self.trunk(x)
            return ModelOutput(
                embedding=self.location(features), log_covariance=self.log_variance(features)
            )

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*plain(model.decoder), nn.Sigmoid())

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.layers(z))

    shape = {"input_dim": (model.data_dim,), "latent_dim": model.latent_dim}
    return PythaeVAE(VAEConfig(reconstruction_loss="bce", **shape), Encoder(), Decoder())


def pythae_epoch(model: VAE, images: Tensor, batch_size: int) -> Action:
    """`train_step` of pythae's `BaseTrainer`, which is its loop over one epoch.

    With its own `DataLoader` and Adam, in this process. In pythae's favour: images are binarized
    once and stay so, since the trainer has no place for fresh draws; no validation; its progress
    bar and printer are taken off; and what `train` adds to an epoch (a copy of the best model, the
    saving at the end) is left out. images uint8 `(N, D)`.
    """
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import CallbackHandler

    logging.getLogger(BaseTrainer.__module__).setLevel(logging.WARNING)
    x = binarize(images, torch.Generator().manual_seed(0))
    with TemporaryDirectory() as folder:  # it makes one, and `train_step` writes nothing there
        config = BaseTrainerConfig(
            output_dir=folder,
            per_device_train_batch_size=batch_size,
            learning_rate=RATE,
            no_cuda=True,
        )
        data = BaseDataset(x, torch.zeros(len(x)))
        trainer = BaseTrainer(pythae_model(model), data, training_config=config)
        with torch.random.fork_rng(devices=[]):  # it sets the seed of all torch
            trainer.prepare_training()
    trainer.callback_handler = CallbackHandler([], trainer.model)

    def action() -> float:
        return trainer.train_step(1)

    action()
    return action


def pythae_log_likelihood(model: VAE, x: Tensor, samples: int, at_once: int = 100) -> Action:
    """pythae's `get_nll`: the mean over x `(B, D)` of log p(x), nats, with K = `samples`.

    Despite its name the number is no negative one. `at_once`, of which `samples` is a multiple, is
    its `batch_size`; 100 is its default. In its favour: no gradient is kept, as it would by itself.
    """
    theirs = pythae_model(model).eval()
    return torch.no_grad()(lambda: float(theirs.get_nll(x, samples, at_once)))


RIVALS: Mapping[str, Callable[[VAE, Tensor, int], Action]] = {
    "jax": jax_epoch,
    "torch_compile": torch_compile_epoch,
    "pythae": pythae_epoch,
}
"""Name in the stored timings → what builds its epoch."""
