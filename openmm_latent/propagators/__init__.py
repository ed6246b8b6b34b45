"""Propagators: one lag-time step of a standardised latent, (b, n_latent), (b, n_noise) -> (b, n_latent)."""
