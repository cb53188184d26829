"""How the processes of a run meet: the first one listens, the others wait for it, but not for ever."""

from __future__ import annotations

import os
import socket
import time

from advgen.errors import LostContact, UserError

# A name may become known a little after a job has begun, but not much later.
_NAME_SECONDS = 30.0
_PAUSE_SECONDS = 0.2


def wait_for_first(limit_seconds: float) -> None:
    """Wait until rank 0 listens at MASTER_ADDR:MASTER_PORT.

    torch's own client tries more than once, each time for the whole limit; an end after 2.4 times the limit was
    measured, with a stack trace a try.

    Raises:
        LostContact: it has not listened within the limit.
        UserError: the address is no host's name.
    """
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if alone or os.environ.get("RANK") == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return
    host, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if not host or not port.isdecimal():
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but MASTER_ADDR and MASTER_PORT ({host!r}, {port!r}) do not "
            "say where rank 0 is. Launch by torchrun, accelerate launch or srun, or set them on every rank."
        )
    began = time.monotonic()
    while True:
        try:
            with socket.create_connection((host, int(port)), timeout=5.0):
                return
        except socket.gaierror as error:
            if time.monotonic() - began > min(limit_seconds, _NAME_SECONDS):
                raise UserError(
                    f"MASTER_ADDR={host}: no such host ({error.strerror}). Set MASTER_ADDR to an address of rank 0's "
                    "host that the others reach."
                ) from None
        except OSError as error:
            if time.monotonic() - began > limit_seconds:
                raise LostContact(
                    f"rank 0 did not listen at {host}:{port} (MASTER_ADDR:MASTER_PORT) within {limit_seconds:g} s "
                    f"(training.collective_timeout_seconds): {error}. See its log; start all ranks again."
                ) from None
        time.sleep(_PAUSE_SECONDS)
