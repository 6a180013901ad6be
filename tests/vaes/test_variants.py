"""The contract, applied to every variant found in `vaes/`, and how variants are found."""

from __future__ import annotations

import textwrap

import pytest
import torch

from bench.config import Run
from bench.randomness import generator
from bench.training.loop import build
from vaes import ACTIVATIONS, VAE, Autoencoder, discover, with_options
from vaes._ops import Tanh

FOUND = discover()
D, L, H, B = 12, 3, 8, 5


def make(name: str) -> Autoencoder:
    run = Run(name, "toy", seed=0, epochs=1, latent_dim=L, hidden_dim=H)
    return build(run, FOUND.variants[name], torch.full((D,), 0.3))


@pytest.fixture
def x() -> torch.Tensor:
    return (torch.rand(B, D, generator=generator("cpu", "x")) < 0.3).float()


def test_nothing_in_the_folder_is_broken():
    assert not FOUND.broken
    assert list(FOUND.variants)[:4] == [
        "autoencoder",
        "fixed_variance",
        "learned_diagonal",
        "input_dependent",
    ]


def test_tanh_is_the_same_with_and_without_a_gradient():
    x = torch.linspace(-30, 30, 2001)
    with torch.no_grad():
        evaluated = Tanh()(x)
    torch.testing.assert_close(evaluated, torch.tanh(x), rtol=0, atol=3e-7)
    assert torch.equal(Tanh()(x.clone().requires_grad_()), torch.tanh(x))


@pytest.mark.parametrize("name", FOUND.variants)
def test_hidden_layers_are_as_many_and_as_wide_as_asked(name, x):
    model = FOUND.variants[name](D, L, (7, 6, 4))
    widths = [layer.out_features for layer in model.encoder if isinstance(layer, torch.nn.Linear)]
    assert widths == [7, 6, 4]
    widths = [layer.out_features for layer in model.decoder if isinstance(layer, torch.nn.Linear)]
    assert widths == [4, 6, 7, D]
    assert model.decode(model.encode(x)).shape == (B, D)
    if isinstance(model, VAE):
        assert model.posterior(x).batch_shape == (B,)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_follows_every_hidden_layer(activation):
    model = with_options(FOUND.variants["flow"], activation=activation)(D, L, H)
    kinds = {type(layer) for layer in (*model.encoder, *model.decoder)} - {torch.nn.Linear}
    (kind,) = kinds
    assert kind.__name__.lower() == activation.replace("_", "")


@pytest.mark.parametrize("name", FOUND.variants)
def test_output_bias_is_the_logit_of_the_training_mean(name):
    assert torch.allclose(make(name).decoder[-1].bias.sigmoid(), torch.full((D,), 0.3))


@pytest.mark.parametrize("name", FOUND.variants)
def test_shared_weights_start_equal(name):
    ours, reference = make(name).state_dict(), make("autoencoder").state_dict()
    for key in reference:
        assert torch.equal(ours[key], reference[key]), key


def write(folder, name, text):
    (folder / f"{name}.py").write_text(textwrap.dedent(text))


def test_a_dropped_file_appears_and_a_broken_one_is_named(tmp_path):
    write(
        tmp_path,
        "good",
        """
        from vaes.base import Autoencoder
        class Good(Autoencoder):
            pass
    """,
    )
    write(tmp_path, "syntax", "def broken(:")
    write(tmp_path, "none", "x = 1")
    write(
        tmp_path,
        "two",
        """
        from vaes.base import Autoencoder
        class A(Autoencoder): pass
        class B(Autoencoder): pass
    """,
    )
    write(tmp_path, "_private", "raise RuntimeError")
    found = discover(tmp_path)
    assert list(found.variants) == ["good"]
    assert "syntax.py: SyntaxError" in found.broken["syntax"]
    assert "found none" in found.broken["none"]
    assert "found A, B" in found.broken["two"]
    assert set(found.broken) == {"syntax", "none", "two"}


def test_gated_layers_are_a_linear_map_times_a_sigmoid_of_another(x):
    model = with_options(FOUND.variants["input_dependent"], gated=True)(D, L, H)
    first, _, second, _ = model.encoder
    hidden = x
    for layer in (first, second):
        value, gate = layer(hidden).chunk(2, dim=-1)
        hidden = value * gate.sigmoid()
    torch.testing.assert_close(model.encode(x), model.location(hidden))
    assert sum(isinstance(layer, torch.nn.GLU) for layer in model.decoder) == 2


def test_files_elsewhere_join_those_of_the_folder(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from vaes.base import Autoencoder\nclass Mine(Autoencoder): ...\n")
    found = discover(files=[file])
    assert set(found.variants) == {*FOUND.variants, "mine"}
    file.write_text("import nothing_like_it")
    assert "mine.py: ModuleNotFoundError" in discover(files=[file]).broken["mine"]
