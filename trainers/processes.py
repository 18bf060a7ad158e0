"""This process as one of several, which train one model together."""

import os
import re
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from trainers.construct import UserError

# In errors of collectives and of the coordination service.
_LOST = 'Gloo|NCCL|[Cc]oordination|closed by peer|heartbeat|UNAVAILABLE|DEADLINE_EXCEEDED'

# A process that is not heard of for so long is dead, and the others end with an error.
HEARTBEAT_TIMEOUT_S = 30

# Of a process that ended because another one did: to be started again with the others.
LOST_PROCESS = 75


def hush_libtpu() -> None:
    """Keeps libtpu, where it is installed to plan with, from complaining that there is no TPU."""
    if not _on_tpu():
        os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
        os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-1')


def join_processes(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Connects to the other processes, if this one was launched as one of several.

    That is so where the three arguments are given; as a step of SLURM with several tasks; and on
    TPU machines, which know of each other. Call it before anything else asks jax for devices.

    Args:
        coordinator_address: HOST:PORT of the process 0.
        num_processes: how many there are.
        process_id: number of this one, from 0.

    Raises:
        UserError: if some of the arguments are given and others not, or the others do not answer.
    """
    given = (coordinator_address, num_processes, process_id)
    if None in given and given != (None, None, None):
        raise UserError(
            'of --coordinator_address, --num_processes and --process_id some are missing; '
            'give all three, or none on a TPU pod or under SLURM'
        )
    if coordinator_address is None and not (_in_slurm_step() or _on_tpu()):
        return
    if coordinator_address is not None and process_id:
        wait_for_coordinator(coordinator_address)
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            cluster_detection_method='deactivate' if coordinator_address else None,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
            shutdown_timeout_seconds=60,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f'the processes do not come together: {error}') from error


def wait_for_coordinator(address: str, timeout_s: float = 240) -> None:
    """Returns when process 0 can be reached; jax itself would abort this process without a word.

    Raises:
        UserError: if it cannot.
    """
    host, _, port = address.rpartition(':')
    end = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except ValueError:
            raise UserError(
                f'--coordinator_address={address} is no HOST:PORT; name that of process 0'
            ) from None
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f'--coordinator_address={address} does not answer ({error}); start process 0 '
                    'there, and let its port through'
                ) from error
            time.sleep(0.2)


def _in_slurm_step() -> bool:
    """Whether srun started this process as one of several."""
    tasks = os.environ.get('SLURM_STEP_NUM_TASKS', '1')
    return int(tasks) > 1


def _on_tpu() -> bool:
    """Whether jax found itself on a TPU machine, or was told to use its TPU."""
    config: Any = jax.config
    return 'tpu' in (config.jax_platforms or '')


def is_first() -> bool:
    """Whether this process writes what all have in common."""
    return not is_multiprocess() or jax.process_index() == 0  # of one no device is asked for it


def is_multiprocess() -> bool:
    """Whether there is more than one process."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def all_true(value: bool) -> bool:
    """Whether a value is true on every process; all must ask."""
    if not is_multiprocess():
        return value
    return bool(np.all(multihost_utils.process_allgather(np.asarray(value))))


def from_first(values: list[int]) -> list[int]:
    """The numbers of the first process; all must ask."""
    if not is_multiprocess():
        return values
    length = int(multihost_utils.broadcast_one_to_all(np.asarray(len(values))))
    mine = np.zeros(length, np.int32)
    if is_first():
        mine[:] = values
    return [int(x) for x in multihost_utils.broadcast_one_to_all(mine)]


def gather_texts(texts: Sequence[str]) -> list[str]:
    """At each place the text of a process that has one there, '' where none has; all must ask."""
    if not is_multiprocess():
        return list(texts)
    encoded = [text.encode() for text in texts]
    longest = np.asarray(max(map(len, encoded), default=0))
    size = max(1, int(np.max(multihost_utils.process_allgather(longest))))
    mine = np.array(encoded, f'S{size}').view(np.uint8).reshape(len(texts), size)
    of_all = np.asarray(multihost_utils.process_allgather(mine)).max(axis=0)
    return [row.tobytes().rstrip(b'\0').decode() for row in of_all]


def wait_for_all(where: str) -> None:
    """Returns when every process has come here."""
    if is_multiprocess():
        multihost_utils.sync_global_devices(where)


def lost_process(error: Exception) -> str | None:
    """What to say of an error that comes from another process having ended; None of others."""
    if not is_multiprocess() or not re.search(_LOST, str(error)):
        return None
    return (
        f'another process has ended or cannot be reached ({str(error).splitlines()[0]}); see what '
        'it printed, then run the same commands again: they go on from the newest checkpoint'
    )


def leave(status: int) -> None:
    """Ends this process at once, if it is one of several.

    The others may wait for it in a computation, so that an orderly end, which waits for them,
    would never come. They see the connection close and fail in turn.
    """
    if is_multiprocess():
        sys.stdout.flush()
        os._exit(status)
