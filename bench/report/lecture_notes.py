"""What the lecture notes state: each with its equation, the functions that are it, the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.report.results import Results
from bench.report.table import spoken
from bench.statistics import interval


@dataclass(frozen=True)
class Statement:
    """One statement of the lecture notes.

    Attributes:
        said: what they say, in a few words.
        meaning: what is meant, one sentence.
        equation: in HTML.
        functions: paths of what computes it.
        question: the one whose section measures it.
        measured: the answer in Markdown, where it is not the question's own; "" where unknown.
    """

    said: str
    meaning: str
    equation: str
    functions: tuple[str, ...]
    question: str
    measured: Callable[[Results], str] | None = None


def cross_entropy(results: Results) -> str:
    """What maximum likelihood reaches without a posterior."""
    reached = interval(results.of("headline", "distortion", variant="autoencoder").value)
    return f"`autoencoder` reaches {spoken(reached)} nats on test images" if reached else ""


STATEMENTS = (
    Statement(
        "Cross-entropy is maximum likelihood",
        "Pixels are Bernoulli given the code, so the usual loss is a negative log-likelihood.",
        "−log <i>p</i>(<i>x</i>|<i>z</i>) = −∑<sub><i>d</i></sub> [<i>x<sub>d</sub></i> "
        "log <i>π<sub>d</sub></i> + (1 − <i>x<sub>d</sub></i>) log(1 − <i>π<sub>d</sub></i>)], "
        "<i>π</i> = sigmoid(decode(<i>z</i>))",
        ("vaes.base.Autoencoder.log_likelihood",),
        "headline",
        cross_entropy,
    ),
    Statement(
        "Σ is fixed, or a function of x",
        "The encoder gives the code a spread: one constant, one a latent, or one an image.",
        "<i>q</i>(<i>z</i>|<i>x</i>) = N(encode(<i>x</i>), Σ), Σ = <i>s</i>² I, "
        "diag(<i>σ</i>²) or diag(<i>σ</i>(<i>x</i>)²)",
        (
            "vaes.fixed_variance.FixedVariance.posterior",
            "vaes.learned_diagonal.LearnedDiagonal.posterior",
            "vaes.input_dependent.InputDependent.posterior",
        ),
        "headline",
    ),
    Statement(
        "ELBO = reconstruction + KL",
        "A lower bound of log <i>p</i>(<i>x</i>), tight where <i>q</i> is the true posterior.",
        "log <i>p</i>(<i>x</i>) ≥ E<sub><i>q</i></sub> log <i>p</i>(<i>x</i>|<i>z</i>) − "
        "KL(<i>q</i>(<i>z</i>|<i>x</i>) ‖ <i>p</i>(<i>z</i>))",
        ("bench.inference.elbo.elbo_terms",),
        "exact_likelihood",
    ),
    Statement(
        "The loss by Monte Carlo",
        "The expectation over <i>q</i> is estimated from a few samples, and is noisy.",
        "E<sub><i>q</i></sub> <i>f</i>(<i>z</i>) ≈ 1/<i>S</i> ∑<sub><i>s</i></sub> "
        "<i>f</i>(<i>z<sub>s</sub></i>), <i>z<sub>s</sub></i> ∼ <i>q</i>(<i>z</i>|<i>x</i>)",
        ("bench.inference.elbo.elbo_estimate",),
        "loss_noise",
    ),
    Statement(
        "The reparameterization trick",
        "Samples as a function of the parameters let the gradient through, with little noise.",
        "<i>z</i> = <i>μ</i>(<i>x</i>) + <i>σ</i>(<i>x</i>) ⊙ <i>ε</i>, <i>ε</i> ∼ N(0, I)",
        (
            "bench.inference.reparameterize.reparameterize",
            "bench.inference.gradients.pathwise",
            "bench.inference.gradients.score_function",
        ),
        "gradient_noise",
    ),
    Statement(
        "“Not a way to understand uncertainty”",
        "The posterior's entropy need not rise where the image says less.",
        "H[<i>q</i>(<i>z</i>|<i>x</i>)] = ∑<sub><i>l</i></sub> log <i>σ<sub>l</sub></i>"
        "(<i>x</i>) + <i>L</i>/2 log 2π<i>e</i>",
        ("vaes.base.VAE.posterior", "bench.questions.uncertainty.measure.entropy"),
        "uncertainty",
    ),
    Statement(
        "The autoencoder is not regularized and may overfit",
        "Its loss has no KL: nothing holds the codes back.",
        "min ∑<sub><i>n</i></sub> −log <i>p</i>(<i>x<sub>n</sub></i>|encode"
        "(<i>x<sub>n</sub></i>)), against … + KL",
        ("vaes.autoencoder.PlainAutoencoder", "bench.training.step.objective"),
        "generalization",
    ),
    Statement(
        "From simple to flexible",
        "A richer family of <i>q</i> closes part of the gap; the encoder's error stays.",
        "log <i>p</i>(<i>x</i>) − ELBO = KL(<i>q</i>(<i>z</i>|<i>x</i>) ‖ "
        "<i>p</i>(<i>z</i>|<i>x</i>))",
        (
            "vaes.full_covariance.FullCovariance.posterior",
            "vaes.flow.Flow.posterior",
            "bench.inference.refit.fit_posterior",
        ),
        "flexibility",
    ),
)
