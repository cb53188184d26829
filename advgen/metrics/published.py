"""Statistics of a reference set as others publish them: ``.npz`` files with ``mu`` and ``sigma``.

pytorch-fid, ADM's evaluator and EDM write them, the first two keys being those of Heusel et al.'s own code; ADM adds
``mu_s`` and ``sigma_s``, of spatial features, which are not read. A figure against such a file compares with published
ones, if the features are the same and the images were prepared alike. EDM2's and StyleGAN's files are pickles, which
run code when they are read: they are refused.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advgen import files
from advgen.errors import UserError

_WAY_OUT = "Name an .npz file with mu [d] and sigma [d, d], as pytorch-fid, ADM and EDM publish them."
_ASYMMETRY = 1e-4  # of the largest variance; some were summed in float32


@dataclass(frozen=True)
class PublishedStatistics:
    """A mean and a covariance from a file.

    Attributes:
        mean: float64 [d].
        covariance: float64 [d, d], symmetric.
        sha256: of the file.
    """

    mean: Tensor
    covariance: Tensor
    sha256: str

    @property
    def dimensions(self) -> int:
        """Length of a feature vector."""
        return len(self.mean)


def read_statistics(path: Path) -> PublishedStatistics:
    """Read ``mu`` and ``sigma`` from an ``.npz`` file; no pickle in it is opened.

    Raises:
        UserError: there is no such file, it is damaged or a pickle, or it holds no mean and covariance.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file. {_WAY_OUT}")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: is no .npz file, or is cut short; pickles are not read. {_WAY_OUT}")
    try:
        with np.load(path, allow_pickle=False) as content:
            missing = [name for name in ("mu", "sigma") if name not in content]
            if missing:
                raise UserError(f"{path}: has no array {' and '.join(missing)}, but {sorted(content)}. {_WAY_OUT}")
            mean, covariance = (_numbers(path, name, content[name]) for name in ("mu", "sigma"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}). {_WAY_OUT}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise UserError(f"{path}: is damaged, or holds a pickle, which is not read ({error}). {_WAY_OUT}") from None
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or not len(mean):
        shapes = f"mu {list(mean.shape)} and sigma {list(covariance.shape)}"
        raise UserError(f"{path}: holds {shapes}, which are no mean and covariance. {_WAY_OUT}")
    scale = covariance.diagonal().max()
    if (covariance - covariance.T).abs().max() > _ASYMMETRY * scale or covariance.diagonal().min() < 0:
        raise UserError(f"{path}: its sigma is no covariance: not symmetric, or with negative variances. {_WAY_OUT}")
    return PublishedStatistics(mean, (covariance + covariance.T) / 2, files.sha256(path))


def _numbers(path: Path, name: str, array: NDArray[np.generic]) -> Tensor:
    """float64 of any shape."""
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        raise UserError(f"{path}: its {name} ({array.dtype}) is not made of finite floating-point numbers. {_WAY_OUT}")
    return torch.from_numpy(array.astype(np.float64))
