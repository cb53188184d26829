"""Likelihoods of models with latents: what decoders say of data, and how the evidence is estimated."""
