"""Modules written in forms that are read without this project: TorchScript and ONNX, each run and compared."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from torch import Tensor, nn

from advgen.errors import UserError

# Of the largest value: kernels of another runtime sum in another order.
TOLERANCE = 1e-4

Images = Callable[[Mapping[str, Tensor]], Tensor]


def write_torchscript(module: nn.Module, inputs: Mapping[str, Tensor], path: Path) -> float:
    """Trace a module, write it, read it back, and compare it on a batch of another size.

    Args:
        module: takes ``inputs`` by the names of its arguments, and returns one tensor.
        inputs: examples, two rows each.
        path: of the file.

    Returns:
        The largest difference, relative to the largest value.

    Raises:
        UserError: it differs by more than :data:`TOLERANCE`.
    """
    with _quiet():
        traced = torch.jit.trace(module, tuple(inputs.values()), check_trace=False)
        torch.jit.save(traced, str(path))
        again = torch.jit.load(str(path), map_location="cpu")
        return _compare(module, lambda given: again(*given.values()), inputs, path)


def write_onnx(module: nn.Module, inputs: Mapping[str, Tensor], path: Path) -> float:
    """Write a module as ONNX with a free batch size; run by ONNX Runtime and compared like the other.

    Raises:
        UserError: it differs by more than :data:`TOLERANCE`, or the packages are missing.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it, and says so less clearly
    except ImportError as error:
        raise UserError(
            f"ONNX needs the package {error.name}. Install advgen[export], or leave onnx out of --formats."
        ) from None
    shapes = {name: {0: "n"} for name in inputs}
    with _quiet():
        program = torch.onnx.export(
            module,
            kwargs=dict(inputs),
            dynamo=True,
            input_names=list(inputs),
            output_names=["images"],
            dynamic_shapes=shapes,
            verbose=False,
        )
        assert program is not None
        program.save(str(path), external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def images(given: Mapping[str, Tensor]) -> Tensor:
        return torch.from_numpy(session.run(None, {name: value.numpy() for name, value in given.items()})[0])

    return _compare(module, images, inputs, path)


def _compare(module: nn.Module, other: Images, inputs: Mapping[str, Tensor], path: Path) -> float:
    """Compare on one row and on five, of other values than the example's."""
    worst = 0.0
    for rows in (1, 5):
        given = {name: _fresh(value, rows) for name, value in inputs.items()}
        with torch.no_grad():
            expected, found = module(**given), other(given)
        if expected.shape != found.shape:
            raise UserError(f"{path.name}: gives {tuple(found.shape)} instead of {tuple(expected.shape)}; not written.")
        difference = ((expected - found).abs().max() / expected.abs().max().clamp_min(1e-12)).item()
        if not difference <= TOLERANCE:
            text = f"differs from the network by {difference:.1e} of its largest value; not written."
            raise UserError(f"{path.name}: {text}")
        worst = max(worst, difference)
    return worst


def _fresh(example: Tensor, rows: int) -> Tensor:
    """Scattered values for latent vectors; for numbers of classes those of the example, which are valid."""
    if not example.is_floating_point():
        return example[torch.arange(rows) % len(example)]
    count = rows * example[0].numel()
    return (
        torch.sin(torch.arange(count, dtype=torch.float64).square()).to(example.dtype).reshape(rows, *example.shape[1:])
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters tell of themselves: that tracing will be replaced one day, and their progress."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)
            # What tracing fears, the comparison finds.
            warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # pyright: ignore[reportPrivateImportUsage]
            warnings.filterwarnings("ignore", "# The axis name", UserWarning)  # two inputs share it: that is meant
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)
