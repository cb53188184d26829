"""Where compiled code must not run."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext


def eager() -> AbstractContextManager[object]:
    """Modules that torch.compile has compiled run as they are written, with the same parameters, as long as it is open.

    Compiled code has no double backward. Nothing is imported for it: torch's compiler takes seconds to load, and where
    it is not loaded nothing was compiled.
    """
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    import torch

    return torch.compiler.set_stance("force_eager")
