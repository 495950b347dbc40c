"""Keeping freed memory in the process, which more than doubles the speed of training on a CPU."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt(3), from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_NEVER = 2**31 - 1
_GROW_BY_BYTES = 256 * 2**20


def keep_freed_memory() -> bool:
    """Ask glibc to keep large freed blocks in place of handing them back to the kernel.

    By default every block of more than 32 MB is a fresh mapping whose pages the kernel fills with
    zeros at first touch: 268 MB take 160 ms to fill so, 20 ms when they are kept. One arena,
    because other threads' arenas cannot grow to such blocks. It binds threads made after this
    call; a process that has threads already needs MALLOC_ARENA_MAX=1 in its environment.
    False where there is no glibc (macOS, musl).
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(
        mallopt(option, value) == 1
        for option, value in (
            (_ARENA_MAX, 1),
            (_MMAP_MAX, 0),
            (_TRIM_THRESHOLD, _NEVER),
            (_TOP_PAD, _GROW_BY_BYTES),
        )
    )
