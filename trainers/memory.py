"""The allocator of the host."""

import ctypes
import platform

import jax

# Parameters of mallopt in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Where steps run on the CPU, lets the allocator keep what a step frees for the next one.

    XLA allocates the buffers of a CPU step anew each time. By default glibc maps large ones
    from the system and gives them back, and most of a small model's step went into that: with
    this, the digits' train step took 0.55 of the time (21 against 38 ms, alternating runs).
    Elsewhere than on glibc nothing is done.
    """
    if jax.default_backend() == 'cpu' and platform.libc_ver()[0] == 'glibc':
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
