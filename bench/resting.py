"""`python -m bench.resting MODULE …` runs a module as `python -m MODULE …` does, and has it collect its garbage on
SIGUSR2: what a server holds at rest can only be told when it holds nothing else."""

from __future__ import annotations

import ctypes
import gc
import runpy
import signal
import sys


def rest_on_signal() -> None:
    """From now on SIGUSR2 collects the garbage, and gives what is free back to the system."""
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it

    def rest(*_: object) -> None:
        gc.collect()
        if give_back is not None:
            give_back(0)

    signal.signal(signal.SIGUSR2, rest)


if __name__ == "__main__":
    rest_on_signal()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
