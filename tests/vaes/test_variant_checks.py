"""Every breach of the contract is found, and said in its words; what fulfils it passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from bench.commands import new_variant
from bench.errors import BenchError
from bench.variant_checks import CHECKS, problems
from vaes import VAE, Autoencoder, discover, variant_in
from vaes.base import diagonal_gaussian

FOUND = discover()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", FOUND.variants)
def test_every_variant_fulfils_the_contract(name, check):
    torch.manual_seed(0)
    check(FOUND.variants[name])


class Sound(VAE):
    """The scaffold of what is broken below."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.log_scale = nn.Linear(self.hidden_dim, self.latent_dim)

    def scale(self, x):
        return self.log_scale(self.encoder(x)).exp()

    def posterior(self, x):
        return diagonal_gaussian(self.encode(x), self.scale(x))


class OtherArguments(Sound):
    def __init__(self):
        super().__init__(16)


class Ranked(Sound):
    rank = "last"


class Worded(Sound):
    choices = {"scale": ("narrow", "wide")}


class NoDistribution(Sound):
    def posterior(self, x):
        return self.encode(x), self.scale(x)


class NotIndependent(Sound):
    def posterior(self, x):
        return Normal(self.encode(x), self.scale(x))


class Transposed(Sound):
    def decode(self, z):
        return super().decode(z).mT


class Negative(Sound):
    def posterior(self, x):
        return diagonal_gaussian(self.encode(x), -self.scale(x))


class OfTheBatch(Sound):
    def encode(self, x):
        return super().encode(x - x.mean(0))


class NoisyAlways(Sound):
    def encode(self, x):
        return super().encode(nn.functional.dropout(x, 0.5))


class Detached(Sound):
    def scale(self, x):
        return super().scale(x).detach()


class Unused(Sound):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.extra = nn.Parameter(torch.zeros(()))


class Forgetful(Sound):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.offset = torch.randn(())

    def encode(self, x):
        return super().encode(x) + self.offset


class _Unnormalized(MultivariateNormal):
    def log_prob(self, value):
        return super().log_prob(value) + 1


class WrongDensity(Sound):
    def posterior(self, x):
        return _Unnormalized(self.encode(x), scale_tril=torch.diag_embed(self.scale(x)))


class OwnDecoder(Sound):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.decoder = nn.Sequential(*self.decoder, nn.Identity())


class NoisyByNumpy(Sound):
    def encode(self, x):
        noise = np.random.default_rng().standard_normal() if self.training else 0.0
        return super().encode(x) + noise


class Regularized(Sound):
    """Fulfils the contract: what differs in training alone may."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.encoder = nn.Sequential(*self.encoder, nn.BatchNorm1d(self.hidden_dim), nn.Dropout())


class Own(Autoencoder):
    """Fulfils the contract with networks of its own."""

    def __init__(self, data_dim, latent_dim=20, hidden_dim=200):
        nn.Module.__init__(self)
        self.data_dim, self.latent_dim, self.hidden_dim = data_dim, latent_dim, hidden_dim
        self.there, self.back = nn.Linear(data_dim, latent_dim), nn.Linear(latent_dim, data_dim)

    def encode(self, x):
        return self.there(x)

    def decode(self, z):
        return self.back(z)

    def initialise_output(self, mean):
        pass


class Misspelt(VAE):
    def posteriro(self, x):
        return self.prior


@pytest.mark.parametrize(
    ("variant", "check", "words"),
    [
        (Misspelt, "builds", "it has no posterior: define it in the class"),
        (OtherArguments, "builds", "must accept data_dim, latent_dim, hidden_dim"),
        (Ranked, "builds", "rank is 'last': give a number"),
        (Worded, "builds", "give numbers to choose from"),
        (NoDistribution, "has_the_shapes", "returned tuple: return a torch.distributions object"),
        (NotIndependent, "has_the_shapes", "wrap it in Independent"),
        (Transposed, "has_the_shapes", "decode(z) has shape (4, 16, 5)"),
        (Negative, "has_finite_densities", "is a scale negative or zero?"),
        (OfTheBatch, "treats_images_one_by_one", "changes with the other images"),
        (NoisyAlways, "evaluates_the_same_twice", "encode differs from call to call"),
        (Detached, "learns_with_every_parameter", "parameter 'log_scale.weight' gets no gradient"),
        (Unused, "learns_with_every_parameter", "parameter 'extra' gets no gradient"),
        (OwnDecoder, "starts_from_the_mean_image", "with a decoder of your own write your own"),
        (NoisyByNumpy, "is_repeated_from_its_seeds", "not by numpy's"),
        (Forgetful, "is_restored_from_its_weights", "in parameters or buffers"),
        (WrongDensity, "has_one_elbo", "does log_prob belong to what rsample draws"),
    ],
)
def test_a_breach_is_said_in_words_of_the_contract(variant, check, words):
    assert words in problems(variant)[check]


EXAMPLES = sorted((Path(new_variant.FOLDER) / "_examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_fulfil_the_contract(path):
    assert problems(variant_in(path)) == {}


@pytest.mark.parametrize("variant", [Sound, Regularized, Own])
def test_what_fulfils_the_contract_passes(variant):
    assert problems(variant) == {}


def test_a_new_variant_is_a_file_that_works(tmp_path):
    path = new_variant.new_variant("low_rank", tmp_path)
    variant = variant_in(path)
    assert variant.__name__ == "LowRank"
    assert problems(variant) == {}
    assert len(path.read_text().splitlines()) < 30
    with pytest.raises(BenchError, match="exists already"):
        new_variant.new_variant("low_rank", tmp_path)


@pytest.mark.parametrize("name", ["", "Mine", "my-own", "class", "_mine", "../mine", "1st"])
def test_a_name_that_no_module_can_have_is_refused(name, tmp_path):
    with pytest.raises(BenchError, match="is no name of a variant"):
        new_variant.new_variant(name, tmp_path)
    assert not list(tmp_path.iterdir())
