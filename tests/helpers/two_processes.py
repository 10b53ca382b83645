"""Two processes that train together, forked from the test, and what comes of them."""

import os
import pickle
import socket
import time
import traceback
from multiprocessing import get_context

import torch

#: so that a test fails, instead of waiting for ever, when one process waits for another one
LONGEST_S = 240
#: s that the others have when one has failed
AFTER_FAILURE_S = 5


def two_processes(folder, function, *args, number=2):
    """Results of a function in two processes, which PyTorch Lightning takes for those of one training (``strategy="ddp"``).

    Args:
        folder: for the results.
        function: called with the rank and `args` in each process.
        args: for it.
        number: of processes.

    Raises:
        AssertionError: with the traceback if a process fails; if they do not end in time.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = [folder / f"result_{rank}_{port}" for rank in range(number)]
    context = get_context("fork")
    started = [
        context.Process(target=_work, args=(rank, number, port, files[rank], function, args)) for rank in range(number)
    ]
    for one in started:
        one.start()
    until = time.monotonic() + LONGEST_S
    while any(one.is_alive() for one in started) and time.monotonic() < until:
        failed = [rank for rank, file in enumerate(files) if file.exists() and pickle.loads(file.read_bytes())[0]]
        until = min(until, time.monotonic() + AFTER_FAILURE_S) if failed else until
        time.sleep(0.05)
    hung = [rank for rank, one in enumerate(started) if one.is_alive()]
    for one in started:
        one.kill()
    results = {rank: pickle.loads(file.read_bytes()) for rank, file in enumerate(files) if file.exists()}
    for rank, (error, _) in results.items():
        assert error is None, f"in process {rank}:\n{error}"
    assert not hung, f"processes {hung} wait for ever"
    return [results[rank][1] for rank in range(number)]


def _work(rank, number, port, file, function, args):
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(number), "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": str(number), "TORCHELASTIC_RUN_ID": "test",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }  # fmt: skip
    torch.set_num_threads(1)
    found = None, None
    try:
        found = None, function(rank, *args)
    except BaseException:
        found = traceback.format_exc(), None
    file.with_suffix(".part").write_bytes(pickle.dumps(found))
    file.with_suffix(".part").rename(file)
    os._exit(0)  # what the test has loaded shall not be cleared up twice
