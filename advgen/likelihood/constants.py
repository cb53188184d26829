"""Numbers of the written-down models; without torch, as configurations read them, too."""

LINEAR_WEIGHTS = ((1.0, 0.5), (-0.5, 1.0), (0.8, -0.6))
"""W of ``linear_gaussian``: a row for each dimension of x, a column for each of z."""
LINEAR_BIAS = (0.5, -1.0, 0.25)
LINEAR_SIGMA = 0.3

SPRINKLER_VARIANCE = 2.0
"""Of each of the sprinkler's two latents."""
SPRINKLER_BASE = 3.0
"""Mean of x where neither latent is positive."""
