"""The allocator of the host."""

import ctypes
import platform

import jax

# Parameters of mallopt in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Lets the host's allocator keep what a step on the CPU frees for the next one.

    XLA allocates the buffers of a CPU step anew each time. By default glibc maps large ones
    from the system and gives them back, and the next step pays a page fault for every 4 KiB:
    with this, the digits' train step took 0.55 of the time (21 against 38 ms). Only the main
    thread's arena holds buffers over 64 MiB, so that steps are also run on the thread that
    starts them: S/16 at 224 with batch 8 then had none of 257,000 faults a step and took 757
    against 1,015 ms.

    Call it before the first computation. Elsewhere than on the CPU dispatch stays asynchronous,
    and elsewhere than on glibc the allocator stays as it is.
    """
    jax.config.update('jax_cpu_enable_async_dispatch', False)
    if platform.libc_ver()[0] == 'glibc':
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
