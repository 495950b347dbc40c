"""A function in N fresh processes that form one gloo group on this machine."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 60.0
# Forked from a process that has imported torch and nothing else has happened in: as fresh as a
# spawned one and 3 seconds sooner. On macOS what torch links to does not survive a fork.
METHOD = "forkserver" if sys.platform == "linux" else "spawn"


def run_ranks(
    world_size: int,
    function: Callable[..., Any],
    *arguments: Any,
    limit_seconds: float = LIMIT_SECONDS,
) -> list[Any]:
    """`function(rank, world_size, *arguments)` in every rank; the results in rank order.

    The first error of a rank is raised here, with a note of the rank and its traceback. All
    processes are gone when this returns; after `limit_seconds` it raises TimeoutError.
    """
    context = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        context.set_forkserver_preload(["torch.distributed"])
    with tempfile.TemporaryDirectory() as folder:
        ours, processes = {}, []
        for rank in range(world_size):
            parent, child = context.Pipe()
            process = context.Process(
                target=_rank,
                args=(child, rank, world_size, Path(folder, "store"), function, arguments),
                daemon=True,
            )
            process.start()
            child.close()
            ours[parent] = rank
            processes.append(process)
        try:
            results = _collect(dict(ours), time.monotonic() + limit_seconds)
        finally:
            for process in processes:
                process.kill()
                process.join()
    return [results[rank] for rank in range(world_size)]


def _collect(waiting: dict[Connection, int], deadline: float) -> dict[int, Any]:
    results = {}
    while waiting:
        ready = wait(list(waiting), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(f"no answer from ranks {sorted(waiting.values())}")
        for connection in ready:
            assert isinstance(connection, Connection)
            rank = waiting.pop(connection)
            try:
                # Arrays and exceptions of a process that this test has started, over its own
                # pipe, as multiprocessing sends everything: nobody else can write there.
                value, error, trace = pickle.loads(connection.recv_bytes())
            except EOFError:
                raise RuntimeError(f"rank {rank} died without an answer") from None
            if error is not None:
                error.add_note(f"in rank {rank}:\n{trace}")
                raise error
            results[rank] = value
    return results


def _rank(
    connection: Connection,
    rank: int,
    world_size: int,
    store: Path,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    try:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
        import torch
        import torch.distributed as dist

        torch.set_num_threads(1)
        dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=world_size)
        answer = pickle.dumps((function(rank, world_size, *arguments), None, None))
    except BaseException as error:
        answer = _failure(error)
    connection.send_bytes(answer)
    connection.poll(None)  # until it is killed: none leaves while another may need it


def _failure(error: BaseException) -> bytes:
    trace = traceback.format_exc()
    try:
        answer = pickle.dumps((None, error, trace))
        # Our own bytes of the line above: not every exception class survives both ways, and one
        # that does not would take the message of the failure with it.
        pickle.loads(answer)
    except Exception:
        answer = pickle.dumps((None, RuntimeError(repr(error)), trace))
    return answer
