"""The mathematics of the comparison, on torch alone: no files, no figures, no data sets.

- `reparameterize`: samples of q(z|x) as maps of standard normal noise; `observations`: x drawn from
  p(x|z).
- `divergence`: KL(q ‖ p) in closed form; `target`: what an estimator is the gradient of.
- `elbo`: distortion and rate, and Monte Carlo estimators of the ELBO.
- `importance`: importance weights, the IW bound, the effective sample size.
- `marginal_likelihood`, `annealed_importance`: log p(x), by a mixture of proposals and by chains.
- `gradients`: estimators of the ELBO's gradient, one function each; `weak_derivatives`: another;
  `multi_sample`: of the gradient of L_K.
- `sobol`: Sobol points under digital shifts.
- `gradient_variance`: their variance, Monte Carlo and data, in the encoder, `decoder_variance` in
  the decoder; `gram_matrix`: the G = J Jᵀ both need; `pool`: gradients for many K at once.
- `refit`: the posterior optimised for one image, decoder fixed.
- `codes`: posterior means and covariances, active units.
- `probabilistic_pca`: the model whose every quantity is known.
- `tensors`, `structure`: exchange the tensors of an object; what it is but for their values.
- `native`: compile a function of tensors.
- `compiled`, `decoded`: a function of a model, and log p(x|z) with its gradient, compiled.
"""

from bench.inference import (  # noqa: F401 (their estimators register themselves)
    gradients,
    multi_sample,
    weak_derivatives,
)
