"""Memory that is taken once: keeping what is freed more than doubles the speed of training on a
CPU, and a copy of the state needs no fresh pages."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
from collections.abc import Mapping

import torch
from torch import Tensor

# Parameters of glibc's mallopt(3), from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_NEVER = 2**31 - 1
_GROW_BY_BYTES = 256 * 2**20

_ALIGNED_BYTES = 64  # where each tensor of a copy begins: a line of the cache
_PAGE_BYTES = 4096


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


class StagingBuffer:
    """Host memory for a copy of some tensors, taken and touched once.

    First touch of 0.73 GB of fresh pages took 0.4 to 0.8 s on a busy machine of 2 cores, of large
    ones 0.03 to 0.10 s (n=6, but 2.8 s the first time); a copy into pages that are there 0.04 to
    0.09 s. Raises OSError or MemoryError where there is no such memory.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        offsets, end = {}, 0
        for name, tensor in tensors.items():
            offsets[name] = end
            end += -(-tensor.nbytes // _ALIGNED_BYTES) * _ALIGNED_BYTES
        memory = _fresh_memory(end)
        content = torch.frombuffer(memory, dtype=torch.uint8)
        content.numpy()[::_PAGE_BYTES] = 0  # NumPy lets other threads run meanwhile
        self._copies = {
            name: content[start : start + tensors[name].nbytes]
            .view(tensors[name].dtype)
            .view(tensors[name].shape)
            for name, start in offsets.items()
        }

    def copy(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Copy tensors of the names and shapes that it was made for. The next copy overwrites
        this one."""
        for name, copy in self._copies.items():
            copy.copy_(tensors[name])
        return self._copies


def _fresh_memory(size: int) -> mmap.mmap:
    """In large pages where the system has them: not for memory that processes share, which is what
    mmap takes unless it is told."""
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        return mmap.mmap(-1, size)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel that was built without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
