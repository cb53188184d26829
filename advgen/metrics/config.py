"""Settings of the evaluation stage."""

from __future__ import annotations

from typing import Literal

from advgen.strict_config import configuration


@configuration
class EvaluationConfig:
    """What is measured, and by which protocol."""

    metrics: tuple[str, ...] = ("fd_lite0",)
    """Names of metrics: fd_lite0, kd_lite0, fd_lite0_infinity, precision, recall, density, coverage, c2st, ratio_kl,
    swd, ms_ssim; with inception_weights fid, kid, fid_infinity, inception_score, precision_inception, recall_inception,
    density_inception, coverage_inception; with dinov2 fd_dinov2; with lpips lpips_diversity; for data with label maps
    miou and pixel_accuracy, with classes recognised, with either style_diversity; for games that draw latents ppl_lite0
    and, with lpips, ppl; for those that encode images reconstruction_recognised and probe_error, for those that
    classify them classification_error; for points with modes modes and high_quality. Names of protocols, such as
    fid50k_full, are taken, too (advgen/metrics/protocols.py). Empty: nothing is measured."""
    checkpoints: Literal["ends", "latest", "every"] = "ends"
    """Which are looked at: those at phase ends and the newest; the newest; all that the run has kept."""
    samples: int = 10_000
    """Generated images that a figure is computed from."""
    reference_samples: int | None = None
    """Training images on the other side; null for all."""
    probe_labels: int = 1000
    """probe_error: training images, as many of each class, that a linear probe learns from."""
    held_out_samples: int | None = None
    """Held-out images for the real-versus-real floor, and to be encoded or classified; null for as many as samples, or
    all there are."""
    every_kimg: float | None = None
    """While a run is trained: at every so many kimg it writes a checkpoint, and all its processes evaluate that before
    they go on. Null: only afterwards, or beside it by `advgen evaluate --watch`."""
    weights: Literal["average", "raw"] = "average"
    """Whether moving averages stand in for the networks they follow."""
    seed: int = 0
    """Of the generated images and of the choice of real ones; the same for every run that is to be compared."""
    batch_size: int = 100
    """Images at a time."""
    threads: int | None = None
    """CPU threads; null for one a core."""
    inception_weights: str | None = None
    """File with the weights of FID's Inception network, for fid, kid and the other metrics on its features."""
    reference_statistics: str | None = None
    """.npz file with mu and sigma of Inception features, as pytorch-fid, ADM and EDM publish them: fid and fid_infinity
    are taken against it instead of the training images. Or a .safetensors file that `advgen evaluate reference` wrote,
    for fid and other Frechet distances: one of other images, features or another resolution is refused. Null:
    statistics are looked for in the cache, and computed where there are none."""
    dinov2: str | None = None
    """TorchScript file of the network of fd_dinov2: float32 [n, 3, 224, 224], normalised by ImageNet's mean and
    deviation, to [n, d]."""
    kernel_subsets: int = 100
    """kid, kd_lite0: pairs of subsets of either side."""
    kernel_subset_size: int = 1000
    """kid, kd_lite0: images of either kind in a pair."""
    segmenter: str | None = None
    """TorchScript file of the segmenter for miou and pixel_accuracy: float32 [n, 3, h, w] in [0, 1] to logits
    [n, classes, h', w']. Null: one is trained on the training images, in minutes."""
    classifier: str | None = None
    """The same of the classifier for recognised, to logits [n, classes]."""
    lpips: str | None = None
    """TorchScript file of LPIPS for lpips_diversity and ppl: two float32 [n, 3, h, w] in [-1, 1] to distances [n]."""
    judge_images: int | None = None
    """Images that a judge (segmenter or classifier) learns from, counted each time they are shown; null for 6,000 and
    48,000."""
    cache: str = ".cache/metrics"
    """Folder where statistics of real images, and judges that were trained on them, are kept."""

    @property
    def kept_statistics(self) -> str | None:
        """``reference_statistics``, if it is a file that ``advgen evaluate reference`` wrote."""
        named = self.reference_statistics
        return named if named is not None and named.endswith(".safetensors") else None

    @property
    def published_statistics(self) -> str | None:
        """``reference_statistics``, if it is a file of somebody else's."""
        return None if self.kept_statistics is not None else self.reference_statistics

    def __post_init__(self) -> None:
        if self.samples < 2 or self.batch_size < 1 or (self.threads is not None and self.threads < 1):
            raise ValueError("samples must be at least 2, batch_size and threads at least 1")
        if self.every_kimg is not None and self.every_kimg <= 0:
            raise ValueError("every_kimg must be positive")
        if self.judge_images is not None and self.judge_images < 1:
            raise ValueError("judge_images must be at least 1")
        if self.kernel_subsets < 1 or self.kernel_subset_size < 2:
            raise ValueError("kernel_subsets must be at least 1, kernel_subset_size at least 2")
        if self.probe_labels < 1:
            raise ValueError(f"probe_labels must be at least 1, not {self.probe_labels}")
        for name in ("reference_samples", "held_out_samples"):
            count = getattr(self, name)
            if count is not None and count < 2:
                raise ValueError(f"{name} must be at least 2")
