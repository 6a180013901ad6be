"""Measuring the gradient's noise: any posterior, flags and reasons, requests, tables.

Statistical comparisons allow 4 standard errors: a correct program fails one with probability
under 1e-4. Seeds are fixed.
"""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from torch import nn
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    Transform,
    TransformedDistribution,
    constraints,
)

from bench.config import PRESETS, BenchError, Run
from bench.data import load
from bench.gradient_noise import Cut, total_variance
from bench.gradients import estimators
from bench.measure import (
    Row,
    Subject,
    gradient_scaling,
    gradient_variance,
    setting,
    training_by_estimator,
)
from bench.posterior import tensors
from bench.report import gradient_scaling as scaling_report
from bench.report import gradient_variance as gradient_variance_report
from bench.report import training_by_estimator as training_report
from bench.report.common import Results
from bench.train import STAGES, Trained, train
from vaes import VAE, discover
from vaes.base import diagonal_gaussian

LATENTS = 3
ERRORS = 4


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Correlated(VAE):
    """Full covariance; the Cholesky factor of a covariance it computes."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.root = nn.Linear(self.hidden_dim, self.latent_dim**2)

    def posterior(self, x):
        features = self.encoder(x)
        root = self.root(features).unflatten(-1, (self.latent_dim, self.latent_dim))
        eye = torch.eye(self.latent_dim, dtype=x.dtype)
        return MultivariateNormal(
            self.location(features), root @ root.mT + eye, validate_args=False
        )


class Shift(Transform):
    """z + net(x-free constant direction): a transform that is made of a module."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, net, along):
        super().__init__()
        self.net, self.along = net, along

    def _call(self, z):
        return z + self.net(self.along)

    def _inverse(self, z):
        return z - self.net(self.along)

    def log_abs_det_jacobian(self, z, _):
        return z.new_zeros(z.shape[:-1])


class ModuleFlow(VAE):
    """A flow whose transform holds a module with weights of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.net = nn.Sequential(
            nn.Linear(self.latent_dim, 4), nn.Tanh(), nn.Linear(4, self.latent_dim)
        )

    def posterior(self, x):
        loc = self.encode(x)
        base = diagonal_gaussian(loc, torch.full_like(loc, 0.5))
        return TransformedDistribution(base, [Shift(self.net, loc.detach())], validate_args=False)


class Reused(VAE):
    """A posterior whose scale uses the location's weights once more, outside of their layer."""

    def posterior(self, x):
        loc = self.encode(x)
        norm = self.location.weight.square().sum(1).add(0.1).sqrt()
        return diagonal_gaussian(loc, norm.expand_as(loc))


class Mixture(VAE):
    """Two Gaussians: no `rsample`, no closed-form KL."""

    def posterior(self, x):
        loc = self.encode(x)
        both = torch.stack([loc, loc + 1], -2)
        weights = Categorical(torch.full((len(x), 2), 0.5, dtype=x.dtype), validate_args=False)
        parts = Independent(Normal(both, torch.full_like(both, 0.5), validate_args=False), 1)
        return MixtureSameFamily(weights, parts, validate_args=False)


class Overflowing(discover().variants["input_dependent"]):
    """A likelihood whose gradient is infinite."""

    def log_likelihood(self, x, z):
        return super().log_likelihood(x, z) / (0 * z.sum(-1))


def model_of(variant, data_dim=12, scale=0.2):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = variant(data_dim, LATENTS, 6)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += scale * torch.randn_like(parameter)
    return model.eval()


def images(count=3, data_dim=12, dtype=torch.float64):
    return torch.bernoulli(torch.full((count, data_dim), 0.4, dtype=dtype), generator=seeded(1))


@pytest.mark.parametrize("variant", [Correlated, ModuleFlow, Reused, Mixture])
def test_any_posterior_is_cut_exactly(variant):
    """gᵀ G g is the squared norm of the whole backward, whatever the posterior is made of."""
    model, x = model_of(variant).double(), images()
    cut = Cut.of(model, x)
    parameters = list(model.parameters())
    for image in range(len(x)):
        held = tensors(model.posterior(x[image : image + 1]))
        direction = {
            p: torch.randn(held[p].shape, generator=seeded(2)).double() for p in cut.parameters
        }
        along = sum((held[path] * direction[path]).sum() for path in cut.parameters)
        found = torch.autograd.grad(along, parameters, allow_unused=True)
        expected = sum(g.square().sum() for g in found if g is not None)
        flat = {p: v.reshape(1, 1, -1).expand(1, len(x), -1) for p, v in direction.items()}
        norms = cut.squared_norms(flat)[0, 0]
        torch.testing.assert_close(norms[image], expected, rtol=1e-9, atol=0)


def test_a_flow_s_own_weights_take_no_part_in_the_gram_matrix():
    cut = Cut.of(model_of(ModuleFlow).double(), images())
    assert {path.rpartition(".")[2] for path in cut.own} == {"weight", "bias"}
    assert cut.gram.shape == (3, LATENTS, LATENTS)


@pytest.mark.parametrize("variant", [Correlated, ModuleFlow, Mixture])
def test_estimators_agree_on_the_mean_gradient(variant):
    """All that the posterior admits have one mean in encoder space, seen through J: G g and own."""
    model, x = model_of(variant).double(), images(2)
    cut = Cut.of(model, x)
    bound = [path for path in cut.parameters if path not in cut.own]
    means, errors = [], []
    for name in estimators():
        try:
            cut.passes(name, 2)
        except BenchError:
            continue
        g = cut.gradients(estimators()[name], 2, 4000, seeded(5))
        seen = torch.einsum("bpq,rbq->rbp", cut.gram, torch.cat([g[path] for path in bound], -1))
        flat = torch.cat([seen, *(g[path] for path in cut.parameters if path in cut.own)], -1)
        means.append(flat.mean(0))
        errors.append(flat.std(0) / math.sqrt(len(flat)))
    assert len(means) > 2
    for mean, error in zip(means[1:], errors[1:]):
        assert ((mean - means[0]).abs() <= ERRORS * torch.hypot(error, errors[0]) + 1e-9).all()


def test_the_same_generator_gives_the_same_numbers():
    for variant in (Correlated, Mixture):
        cut = Cut.of(model_of(variant).double(), images())
        first, second = (
            total_variance(cut, "score_function", 2, seeded(3), 0.2, 500) for _ in range(2)
        )
        assert torch.equal(first.value, second.value)


def test_the_cap_is_flagged_and_more_passes_narrow_the_error():
    cut = Cut.of(model_of(discover().variants["input_dependent"]), images(dtype=torch.float32))
    short = total_variance(cut, "score_function", 1, seeded(), 1e-9, 3000)
    long = total_variance(cut, "score_function", 1, seeded(), 1e-9, 30_000)
    assert short.capped and long.capped  # noqa: PT018
    assert long.replicates > 5 * short.replicates
    assert long.standard_error[0] < short.standard_error[0]
    loose = total_variance(cut, "score_function", 1, seeded(), 0.5, 30_000)
    assert not loose.capped
    assert loose.standard_error[0] <= 0.5 * loose.value[0]


def test_the_standard_error_is_that_of_repetition():
    """Over 60 repetitions the spread of the estimate is the standard error it states, ± 40 %.

    The spread itself has a relative error of 9 %, so this fails by chance under 1e-4.
    """
    cut = Cut.of(model_of(discover().variants["learned_diagonal"]), images(dtype=torch.float32))
    found = [total_variance(cut, "pathwise", 1, seeded(s), 1e-9, 500) for s in range(60)]
    values = torch.stack([v.value[0] for v in found])
    stated = torch.stack([v.standard_error[0] for v in found]).square().mean().sqrt()
    assert 0.6 < values.std() / stated < 1.4


def subject(variant, name="variant"):
    run = Run(name, "digits", 0, 1, LATENTS, 6)
    weights = model_of(variant, 64).state_dict()
    return Subject(Trained(run, dict.fromkeys(STAGES, weights)), variant, load("digits"))


@pytest.fixture
def few_rounds(monkeypatch):
    monkeypatch.setattr(gradient_variance, "ROUNDS", 1)
    monkeypatch.setattr(gradient_variance, "DECODER_DRAWS", 4)


def find(rows, metric, **settings):
    wanted = {f"{key}={value}" for key, value in settings.items()}
    found = [r for r in rows if r.metric == metric and wanted <= set(r.setting.split(";"))]
    assert found, (metric, settings)
    return found


def test_every_cell_is_a_number_or_has_its_reason(few_rounds):
    variant = discover().variants["input_dependent"]
    rows = gradient_variance.measure(subject(variant), 2, 300).rows
    for stage in gradient_variance.STAGES:
        for samples in gradient_variance.SAMPLES:
            for name in estimators():
                (row,) = find(rows, "total_variance", stage=stage, S=samples, estimator=name)
                missing = samples == 1 and name in ("rloo", "pathwise_antithetic")
                assert ("reason=" in row.setting) == missing == math.isnan(row.value)
        assert find(rows, "decoder_variance", stage=stage)[0].value > 0
    cell = dict(stage="best", S=4, estimator="rloo")
    (ratio,) = find(rows, "variance_ratio", **cell, reference="pathwise")
    (own,), (other,) = (
        find(rows, "total_variance", **cell | {"estimator": e}) for e in ("rloo", "pathwise")
    )
    assert ratio.value == pytest.approx(own.value / other.value)
    (time,), (other_time,) = (
        find(rows, "step_microseconds", **cell | {"estimator": e}) for e in ("rloo", "pathwise")
    )
    (efficiency,) = find(rows, "efficiency", **cell)
    assert efficiency.value == pytest.approx(other_time.value / (time.value * ratio.value))
    assert find(rows, "signal_to_noise", **cell)[0].value > 0


def test_a_mixture_is_measured_where_it_can_be_and_says_why_elsewhere(few_rounds):
    rows = gradient_variance.measure(subject(Mixture), 2, 300).rows
    (row,) = find(rows, "total_variance", stage="best", S=4, estimator="pathwise")
    assert math.isnan(row.value)
    assert "MixtureSameFamily is not a map of standard normal noise" in row.setting
    (row,) = find(rows, "total_variance", stage="best", S=4, estimator="rloo")
    assert row.value > 0
    find(rows, "variance_ratio", stage="best", S=4, estimator="rloo", reference="score_function")


def test_an_overflow_is_shown_with_its_cause(few_rounds):
    rows = gradient_variance.measure(subject(Overflowing), 2, 300).rows
    (row,) = find(rows, "total_variance", stage="best", S=1, estimator="pathwise")
    assert not math.isfinite(row.value)
    assert "gradient estimates are not finite" in row.setting


def test_a_plain_autoencoder_has_no_rows():
    run = Run("autoencoder", "digits", 0, 1)
    plain = Subject(Trained(run), discover().variants["autoencoder"], load("digits"))
    assert gradient_variance.measure(plain, 2, 300).rows == []


def test_requests():
    run, preset = Run("input_dependent", "mnist5k", 0, 100), PRESETS["default"]
    (request,) = gradient_variance.requests(run, preset)
    assert request.run == run
    assert list(gradient_variance.requests(run.with_(seed=1), preset)) == []
    dims = [r.run.latent_dim for r in gradient_scaling.requests(run, preset)]
    assert dims == [2, 5, 10, 20, 50]
    assert list(gradient_scaling.requests(run.with_(variant="flow"), preset)) == []
    asked = list(training_by_estimator.requests(run, preset))
    assert len({hash(r) for r in asked}) == len(asked)
    by_budget = {
        (dict(r.settings)["budget"], r.run.estimator): r.run
        for r in asked
        if "left_out" not in dict(r.settings)
    }
    assert {name for _, name in by_budget} == set(estimators())
    steps = {
        budget: by_budget[budget, "pathwise"].steps for budget in ("equal_steps", "equal_time")
    }
    assert len(set(steps.values())) == 1
    baseline = by_budget["equal_time", "score_function_baseline"]
    assert steps["equal_time"] / baseline.steps == pytest.approx(10.5 / 2.5, rel=0.02)
    assert by_budget["equal_steps", "rloo"].samples == 2
    (left_out,) = [dict(r.settings) for r in asked if "left_out" in dict(r.settings)]
    assert left_out["left_out"] == "measure_valued"
    assert "pathwise steps" in left_out["reason"]
    assert list(training_by_estimator.requests(run.with_(seed=3), preset)) == []


def test_scaling_states_its_latent_dimension():
    rows = gradient_scaling.measure(subject(discover().variants["input_dependent"]), 2, 300).rows
    assert {r.metric for r in rows} == {"total_variance", "variance_ratio"}
    for stage in ("initialisation", "trained"):
        (row,) = find(rows, "total_variance", L=LATENTS, stage=stage, S=2, estimator="rloo")
        assert row.value > 0


def test_a_training_is_reported_with_its_curve():
    variant, data = discover().variants["input_dependent"], load("digits")
    run = Run("input_dependent", "digits", 0, 1, LATENTS, 6, estimator="rloo", samples=2, steps=20)
    trained = train(run, variant, data)
    rows = training_by_estimator.measure(Subject(trained, variant, data), "equal_steps").rows
    (elbo,) = find(rows, "elbo", budget="equal_steps", estimator="rloo", S=2, steps=20)
    assert elbo.value < 0 < elbo.standard_error
    assert [r.value for r in find(rows, "valid_elbo")] == [e["valid_elbo"] for e in trained.history]
    assert find(rows, "valid_elbo")[-1].setting.endswith("step=20")
    (row,) = training_by_estimator.measure(
        Subject(trained, variant, data), "equal_steps", "measure_valued", "too dear"
    ).rows
    assert math.isnan(row.value)
    assert "estimator=measure_valued;reason=too dear" in row.setting


def results(folder, found):
    """Stored results from (measurement, variant, seed, rows)."""
    lines = [
        ["digits", "cpu", variant, seed, measurement, *vars(row).values()]
        for measurement, variant, seed, rows in found
        for row in rows
    ]
    names = ["dataset", "device", "variant", "seed", "measurement", *Row.__dataclass_fields__]
    return Results(pd.DataFrame(lines, columns=names), pd.DataFrame(), {}, folder)


def written(folder, sections, name):
    assert len(sections) == 1
    (section,) = sections
    text = (folder / f"{name}.md").read_text()
    assert text.startswith(section.takeaway)
    assert section.takeaway.endswith(".")
    assert section.table in text
    assert len(pd.read_csv(folder / f"{name}.csv"))
    assert section.figures
    for file, caption in section.figures:
        assert (folder / file).stat().st_size > 5000
        assert caption
    return section


def test_the_tables_of_gradient_variance(few_rounds, tmp_path):
    usual = gradient_variance.measure(subject(discover().variants["input_dependent"]), 2, 300).rows
    mixture = gradient_variance.measure(subject(Mixture), 2, 300).rows
    overflow = gradient_variance.measure(subject(Overflowing), 2, 300).rows
    stored = results(tmp_path, [
        ("gradient_variance", "input_dependent", 0, usual),
        ("gradient_variance", "mixture", 0, mixture),
        ("gradient_variance", "overflowing", 0, overflow),
    ])  # fmt: skip
    section = written(tmp_path, gradient_variance_report.sections(stored), "gradient_variance")
    first = section.table.splitlines()[2]
    assert first.startswith("| initialisation: pathwise | ")
    assert first.count("n/a") == 1
    assert "leave-one-out (S = 4)" in section.table
    assert "not finite" in (tmp_path / "gradient_variance.md").read_text()
    assert "input-dependent" in section.takeaway


def test_the_tables_of_gradient_scaling(tmp_path):
    """Variances of 2 L² and 3 L³ have the exponents 2 and 3."""
    rows = [
        Row("total_variance", factor * L**power, "nats²",
            setting(L=L, stage=stage, S=2, estimator=name), 0.01, 10)
        for stage in ("initialisation", "trained")
        for name, factor, power in (("pathwise", 2, 2), ("score_function", 3, 3))
        for L in gradient_scaling.LATENT_DIMS
    ]  # fmt: skip
    stored = results(tmp_path, [("gradient_scaling", "input_dependent", 0, rows)])
    section = written(tmp_path, scaling_report.sections(stored), "gradient_scaling")
    assert "to the power 2 (pathwise) to 3 (score function)" in section.takeaway
    assert "3.00 times noisier than pathwise at L = 2 and 75.0 times at L = 50" in section.takeaway


def test_the_tables_of_training_by_estimator(tmp_path):
    """Differences are paired by seed: 2 ± 0 here, although seeds differ by 10 nats."""
    found = []
    for seed in range(3):
        rows = []
        for budget in ("equal_steps", "equal_time"):
            for name, gain in (("pathwise", 0), ("sticking_the_landing", 2)):
                where = dict(budget=budget, estimator=name, S=1)
                rows += [
                    Row("elbo", 10 * seed + gain - 100, "nats/image", setting(**where, steps=9)),
                    Row("training_seconds", 3.0, "s", setting(**where, steps=9)),
                    Row("valid_elbo", gain - 120, "nats/image", setting(**where, step=5)),
                    Row("elapsed", 1.0, "s", setting(**where, step=5)),
                    Row("valid_elbo", gain - 100, "nats/image", setting(**where, step=9)),
                    Row("elapsed", 3.0, "s", setting(**where, step=9)),
                ]
        where = setting(budget="equal_steps", estimator="measure_valued", reason="too dear")
        rows.append(Row("elbo", math.nan, "nats/image", where))
        found.append(("training_by_estimator", "input_dependent", seed, rows))
    stored = results(tmp_path, found)
    section = written(tmp_path, training_report.sections(stored), "training_by_estimator")
    assert "2.00 ± 0.00 above pathwise" in section.takeaway
    assert "| equal steps: measure-valued | – |" in section.table
    assert "measure-valued, equal steps: too dear" in section.notes


def test_reports_without_rows_are_silent(tmp_path):
    stored = results(tmp_path, [])
    for report in (gradient_variance_report, scaling_report, training_report):
        assert report.sections(stored) == []
