"""The variance of the loss: sampling schemes, statistics, what cannot be measured, the tables.

Statistical tests allow 4 standard errors (a correct estimator fails one comparison with
probability under 1e-4) and fix their seeds.
"""

import math

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from torch.distributions import (
    Distribution,
    Independent,
    Laplace,
    TransformedDistribution,
)
from torch.distributions.transforms import TanhTransform
from torch.quasirandom import SobolEngine

from bench.config import PRESETS, BenchError, Run, generator
from bench.data import load
from bench.elbo_estimators import SAMPLINGS, antithetic, elbo_estimate, integrands, sobol
from bench.measure import Subject
from bench.measure.mc_variance import (
    STAGES,
    jackknife,
    log_log_slope,
    measure,
    requests,
    variance_over_noise,
)
from bench.report import mc_variance as report
from bench.report.common import Results
from bench.report.mc_variance import sections
from bench.train import Trained
from vaes import VAE, discover
from vaes.base import diagonal_gaussian

ERRORS = 4
LATENT = 3


def images(count):
    return torch.bernoulli(torch.full((count, 64), 0.4), generator=generator("cpu", "images"))


def built(variant=None):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = (variant or discover().variants["input_dependent"])(64, LATENT, 8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.eval()


class Squashed(VAE):
    """Has samples and a density, but no closed-form KL."""

    def posterior(self, x):
        loc = self.encode(x)
        base = diagonal_gaussian(loc, torch.full_like(loc, 0.5))
        return TransformedDistribution(base, [TanhTransform(cache_size=1)])


class LaplacePosterior(VAE):
    """Is no map of standard normal noise."""

    def posterior(self, x):
        loc = self.encode(x)
        return Independent(Laplace(loc, torch.ones_like(loc)), 1)


class Sampler(Distribution):
    """A posterior that can only be sampled."""

    def __init__(self, loc):
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)
        self.loc = loc

    def sample(self, sample_shape=()):
        return self.loc + torch.rand(*sample_shape, *self.loc.shape)


class Implicit(VAE):
    """Has no density."""

    def posterior(self, x):
        return Sampler(self.encode(x))


class Broken(discover().variants["input_dependent"]):
    """A likelihood that is the given number for the first image."""

    number = math.nan

    def log_likelihood(self, x, z):
        value = super().log_likelihood(x, z).double().clone()
        value[:, 0] = z[:, 0, 0].double() * self.number
        return value


def subject(variant):
    run = Run("variant", "digits", 0, 1, LATENT, 8)
    weights = built(variant).state_dict()
    return Subject(Trained(run, dict.fromkeys(STAGES, weights)), variant, load("digits"))


def measured(variant, stage="epoch_1", samples=(1, 4, 16), replicates=4):
    return measure(subject(variant), stage, 6, samples, replicates).rows


def find(rows, metric, *parts):
    found = [r for r in rows if r.metric == metric and set(parts) <= set(r.setting.split(";"))]
    assert found, (metric, parts)
    return found


# --- sampling schemes ----------------------------------------------------------------------


def test_antithetic_noise_is_adjacent_opposite_pairs():
    noise = antithetic(5, LATENT, generator("cpu"))(8)
    assert noise.shape == (8, 5, LATENT)
    assert (noise[::2] == -noise[1::2]).all()
    assert noise[::2].unique().numel() == 4 * 5 * LATENT


def test_sobol_points_put_one_sample_in_each_of_s_equally_probable_cells():
    noise = sobol(5, 20, generator("cpu"))(64)
    assert noise.shape == (64, 5, 20)
    cell, _ = (torch.special.ndtr(noise) * 64).long().sort(0)
    assert (cell == torch.arange(64).view(64, 1, 1)).all()
    assert not torch.equal(noise[:, 0], noise[:, 1])


def test_sobol_noise_is_standard_normal_and_finite():
    """A coordinate of one image is exactly N(0, 1): moments over 40,000 images."""
    z = sobol(40_000, 2, generator("cpu"))(1)[0]
    assert z.isfinite().all()
    error = 1 / math.sqrt(len(z))
    assert (z.mean(0).abs() < ERRORS * error).all()
    assert ((z.square().mean(0) - 1).abs() < ERRORS * math.sqrt(2) * error).all()


@pytest.mark.parametrize("end", [0.0, 1 - 2**-30, 1.0])  # 1.0 is what the engine may round to
def test_the_cells_at_the_ends_map_to_finite_numbers(monkeypatch, end):
    monkeypatch.setattr(
        SobolEngine, "draw", lambda self, n, dtype: torch.full((n, 2), end, dtype=dtype)
    )
    monkeypatch.setattr(torch, "randint", lambda high, size, **_: torch.zeros(size).long())
    assert sobol(3, 2, generator("cpu"))(4).isfinite().all()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_scheme_follows_its_generator(sampling):
    draws = [SAMPLINGS[sampling](3, 2, generator("cpu", seed))(4) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


# --- statistics ----------------------------------------------------------------------------


def test_the_variance_of_independent_samples_falls_as_one_over_s():
    """The slope is exactly −1 for every integrand."""
    samples = (1, 4, 16, 64)
    for kl, pool in integrands(
        built(), images(60), "independent", 64, 16, generator("cpu", "slope")
    ).items():
        variances = torch.stack([variance_over_noise(pool, s) for s in samples])
        slope, error = jackknife(lambda v: log_log_slope(v, samples), variances)
        assert error < 0.03, kl
        assert abs(slope + 1) < ERRORS * error, kl


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_variance_from_blocks_is_that_of_the_estimator_itself(kl, sampling):
    """Blocks of 8 out of 32 samples against the variance of separate calls with S = 8.

    Two replicates a pool: there, taking blocks of one replicate for independent would show.
    """
    model, x = built(), images(1).expand(300, -1)
    rng = generator("cpu", "blocks", sampling)
    pool = torch.cat([integrands(model, x, sampling, 32, 2, rng)[kl] for _ in range(12)], -1)
    value, error = jackknife(lambda v: v[0], variance_over_noise(pool, 8)[None])
    rng = generator("cpu", "calls", sampling)
    calls = torch.stack([elbo_estimate(model, x, kl, sampling, 8, rng) for _ in range(40)])
    direct, direct_error = jackknife(lambda v: v[0], calls.double().var(0)[None])
    assert error < 0.08 * value
    assert abs(value - direct) < ERRORS * math.hypot(error, direct_error)


def test_an_even_integrand_makes_pairs_twice_as_noisy_and_an_odd_one_cancels():
    noise = antithetic(500, 1, generator("cpu", "parity"))
    z = torch.stack([noise(16) for _ in range(20)])[..., 0].double()
    assert variance_over_noise(z, 4).max() < 1e-20
    value, error = jackknife(lambda v: v[0], variance_over_noise(z.square(), 4)[None])
    assert abs(value - 2 * 2 / 4) < ERRORS * error  # Var z² = 2, two pairs


def test_the_jackknife_of_a_mean_is_the_standard_error():
    values = torch.randn(30, generator=generator("cpu")).double()
    found = jackknife(lambda v: v[0], values[None])
    assert found == pytest.approx((values.mean().item(), values.std().item() / math.sqrt(30)))


def test_the_jackknife_of_a_ratio_knows_what_its_parts_share():
    values = torch.rand(30, generator=generator("cpu")).double()
    value, error = jackknife(lambda v: v[0] / v[1], torch.stack([3 * values, values]))
    assert value == pytest.approx(3)
    assert error < 1e-12


def test_the_slope_of_a_power_law_is_its_exponent():
    samples = (1, 4, 16)
    assert log_log_slope(
        torch.tensor([5.0 * s**-1.7 for s in samples]).double(), samples
    ) == pytest.approx(-1.7)


# --- errors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "kl", "sampling", "samples", "words"),
    [
        (None, "analytic", "antithetic", 5, ("antithetic", "S=5", "even")),
        (Squashed, "analytic", "independent", 4, ("analytic KL", "TransformedDistribution")),
        (Implicit, "sampled", "independent", 4, ("sampled KL", "Sampler", "log_prob")),
        (LaplacePosterior, "sampled", "antithetic", 4, ("antithetic", "Independent")),
        (LaplacePosterior, "sampled", "sobol", 4, ("sobol", "Independent")),
    ],
)
def test_what_an_estimator_does_not_admit_is_one_line(variant, kl, sampling, samples, words):
    with pytest.raises(BenchError) as raised:
        elbo_estimate(built(variant), images(2), kl, sampling, samples, generator("cpu"))
    text = str(raised.value)
    assert "\n" not in text
    assert all(word in text for word in words), text


def test_a_dimension_over_the_sobol_limit_is_one_line():
    with pytest.raises(BenchError, match=r"'sobol'.*L=21202.*limit is L=21201"):
        sobol(1, SobolEngine.MAXDIM + 1, generator("cpu"))(4)


# --- rows ----------------------------------------------------------------------------------


def test_requests_cover_the_stages_of_the_first_seed():
    run = Run("input_dependent", "mnist5k", 0, 1)
    asked = list(requests(run, PRESETS["default"]))
    assert [dict(r.settings)["stage"] for r in asked] == list(STAGES)
    assert all(hash(r) and r.run == run for r in asked)
    assert list(requests(run.with_(seed=1), PRESETS["default"])) == []


def test_rows_are_complete_finite_and_reproducible():
    variant = discover().variants["learned_diagonal"]
    rows, again = measured(variant), measured(variant)
    assert [str(r) for r in rows] == [str(r) for r in again]
    for row in rows:
        odd = "sampling=antithetic;S=1;" in row.setting
        assert ("reason=" in row.setting) == odd == math.isnan(row.value)
    for kl in ("analytic", "sampled"):
        for sampling in SAMPLINGS:
            pair = (f"kl={kl}", f"sampling={sampling}")
            assert len(find(rows, "elbo_variance", *pair)) == 3
            assert len(find(rows, "elbo_variance_slope", *pair)) == 1
    ratio = find(rows, "sampled_to_analytic_variance", "sampling=independent", "S=4")[0].value
    parts = [
        find(rows, "elbo_variance", f"kl={kl}", "sampling=independent", "S=4")[0].value
        for kl in ("sampled", "analytic")
    ]
    assert ratio == pytest.approx(parts[0] / parts[1])
    assert [r.value for r in find(rows, "iw_effective_sample_size", "K=1")] == pytest.approx([1])
    bias = [r.value for r in find(rows, "iw_bias")]
    assert bias == sorted(bias)
    assert bias[-1] <= 0


def test_times_are_measured_at_the_best_weights_alone():
    variant = discover().variants["fixed_variance"]
    times = find(measured(variant, "best", (1, 4)), "elbo_estimate_time")
    assert len(times) == 2 * len(SAMPLINGS) * 2
    assert all(r.value > 0 or "S=1;" in r.setting for r in times)
    assert not any(r.metric == "elbo_estimate_time" for r in measured(variant))


def test_a_plain_autoencoder_has_no_rows():
    assert measured(discover().variants["autoencoder"]) == []


def test_a_posterior_without_closed_form_kl_has_rows_that_say_so():
    rows = measured(Squashed)
    for row in find(rows, "elbo_variance", "kl=analytic"):
        assert math.isnan(row.value)
        assert "TransformedDistribution" in row.setting
    assert all(r.value > 0 for r in find(rows, "elbo_variance", "kl=sampled", "sampling=sobol"))
    assert find(rows, "iw_bias", "K=4")[0].value < 0


def test_a_posterior_that_is_no_map_of_normal_noise_has_rows_that_say_so():
    rows = measured(LaplacePosterior)
    for sampling in ("antithetic", "sobol"):
        for row in find(rows, "elbo_variance", f"sampling={sampling}"):
            assert math.isnan(row.value)
            assert "Independent" in row.setting
    assert find(rows, "elbo_variance", "kl=sampled", "sampling=independent", "S=4")[0].value > 0


def test_a_posterior_without_density_still_has_its_iw_rows():
    rows = measured(Implicit)
    assert all(math.isnan(r.value) and "log_prob" in r.setting for r in find(rows, "iw_bias"))


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (math.nan, "64 of 384 integrands are NaN (1 images)"),
        (math.inf, "64 of 384 integrands are infinite (1 images)"),
        (1e200, "overflows"),
    ],
)
def test_a_variance_that_is_no_number_is_shown_with_its_cause(monkeypatch, number, cause):
    monkeypatch.setattr(Broken, "number", number)
    row = find(measured(Broken), "elbo_variance", "kl=sampled", "sampling=independent", "S=1")[0]
    assert not math.isfinite(row.value)
    assert cause in row.setting


def test_no_variance_at_all_has_no_slope_and_says_why(monkeypatch):
    class Constant(discover().variants["input_dependent"]):
        def log_likelihood(self, x, z):
            return torch.zeros(z.shape[:-1])

    row = find(measured(Constant), "elbo_variance_slope", "kl=analytic", "sampling=sobol")[0]
    assert math.isnan(row.value)
    assert "a variance is exactly zero" in row.setting


# --- report --------------------------------------------------------------------------------


def results(tmp_path, variants, stages=STAGES):
    rows = [
        {"dataset": "digits", "device": "cpu", "variant": name, "seed": 0,
         "measurement": "mc_variance", **vars(row)}
        for name, variant in variants.items() for stage in stages
        for row in measured(variant, stage)
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["measurement", "variant", "setting"] if not rows else None)
    return Results(frame, pd.DataFrame(), {}, tmp_path)


def test_no_rows_no_section(tmp_path):
    assert sections(results(tmp_path, {})) == []
    assert not list(tmp_path.iterdir())


def test_the_section_writes_its_table_and_figures(tmp_path):
    names = ("fixed_variance", "input_dependent")
    variants = {name: discover().variants[name] for name in names} | {"squashed": Squashed}
    (section,) = sections(results(tmp_path, variants))
    assert (tmp_path / "mc_variance.csv").exists()
    text = (tmp_path / "mc_variance.md").read_text()
    assert text.startswith(section.takeaway)
    assert len(section.takeaway) > 50
    assert "n/a" in text
    assert "use an even S" in text
    for file, how in section.figures:
        assert (tmp_path / file).stat().st_size > 10_000
        assert how


def test_the_table_shows_where_the_order_flips(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "save", lambda results, figure, name: plt.close(figure))
    variant = discover().variants["input_dependent"]
    last = {"flips": 0.8, "undecided": 1.02, "stays": 1.5}
    made = results(tmp_path, dict.fromkeys(last, variant))
    rows = made.rows
    for name, best in last.items():
        for stage, ratio in (("initialisation", 2.0), ("epoch_1", 1.5), ("best", best)):
            where = rows.setting == f"stage={stage};sampling=independent;S=1"
            rows.loc[where & (rows.variant == name), ["value", "standard_error"]] = ratio, 0.03
    (section,) = sections(made)
    verdicts = {"flips": "sampled KL (flipped)", "undecided": "undecided", "stays": "analytic KL"}
    for name, verdict in verdicts.items():
        line = next(row for row in section.table.splitlines() if f"| {name}, best" in row)
        assert line.endswith(f"| {verdict} |")
    assert "At initialisation the analytic KL" in section.takeaway
    assert "the sampled KL gives the quieter ELBO estimate for flips (" in section.takeaway
    assert "by a factor of 1.2)" in section.takeaway
