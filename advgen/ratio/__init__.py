"""log p/q of two sets of samples: ``from advgen.ratio import fit_ratio``."""

from advgen.ratio.fit import DISJOINT, FittedRatio, fit_ratio

__all__ = ["DISJOINT", "FittedRatio", "fit_ratio"]
