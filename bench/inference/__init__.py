"""The mathematics of the comparison, on torch alone: no files, no figures, no data sets.

- `reparameterize`: samples of q(z|x) as maps of standard normal noise.
- `elbo`: distortion and rate, and Monte Carlo estimators of the ELBO.
- `importance`: importance weights, the IW bound, the effective sample size.
- `gradients`: estimators of the ELBO's gradient, one function each; `weak_derivatives`: another;
  `multi_sample`: of the gradient of L_K.
- `sobol`: Sobol points under digital shifts.
- `gradient_variance`: their variance, Monte Carlo and data, in the encoder, `decoder_variance` in
  the decoder; `gram_matrix`: the G = J Jᵀ both need.
- `refit`: the posterior optimised for one image, decoder fixed.
- `codes`: posterior means and covariances, active units.
- `probabilistic_pca`: the model whose every quantity is known.
- `tensors`, `native`: exchange the tensors of an object; compile a function of tensors.
"""

from bench.inference import (  # noqa: F401 (their estimators register themselves)
    gradients,
    multi_sample,
    weak_derivatives,
)
