"""q(z|x) = N(encode(x), diag(s(x)²)): say here what the variant is, and where it comes from."""

from torch import nn

from vaes.base import INITIAL_LOG_SCALE, VAE, diagonal_gaussian


class Template(VAE):
    # choices = {"width": (0.1, 0.3)}: hyperparameters chosen on validation, arguments of __init__

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)  # makes encoder, location and decoder
        self.log_scale = nn.Linear(self.hidden_dim, self.latent_dim)
        nn.init.constant_(self.log_scale.bias, INITIAL_LOG_SCALE)  # where every variant starts

    def posterior(self, x):
        """Any torch.distributions object of batch shape (B,) and event shape (L,); x is (B, D)."""
        features = self.encoder(x)  # (B, H)
        return diagonal_gaussian(self.location(features), self.log_scale(features).exp())
