"""Decodes in processes of their own, so that a crash or a hang costs one video.

The pools of `concurrent.futures` and pebble can give up sound work when a worker crashes, as their
workers share a pipe. Here each has its own.
"""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

_SPAWN = multiprocessing.get_context('spawn')


def count_cpus() -> int:
    """CPUs that this process may use, where the system says it; else all."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Failure:
    """Stands where there is no result.

    Attributes:
        reason: why, one line.
    """

    reason: str


def run_isolated(
    decode: Callable[[Any], Any], inputs: Sequence[Any], *, processes: int, timeout: float
) -> Iterator[Any]:
    """Calls a function of one input in worker processes, side by side.

    Args:
        decode: the function, which a new process can import. It returns anything but None.
        inputs: a `Failure` among them is its own result.
        processes: how many workers. Twice as many results are held at most.
        timeout: of one call, seconds.

    Yields:
        The results in the order of the inputs: a `Failure` where the function raised an error, or
        where it twice took too long or its process ended, which may be for want of memory or time.

    Raises:
        ChildProcessError: if the function raised OSError or MemoryError, which are no fault of the
            input's, or a worker ends before its work.
    """
    done = {i: value for i, value in enumerate(inputs) if isinstance(value, Failure)}
    todo = deque(i for i in range(len(inputs)) if i not in done)
    workers = [_Worker(decode, timeout) for _ in range(min(processes, len(todo)))]
    try:
        for number in range(len(inputs)):
            while number not in done:
                for worker in workers:
                    if worker.number is None and todo and todo[0] < number + 2 * processes:
                        worker.start(todo[0], inputs[todo.popleft()])
                done.update(_finished(workers))
            yield done.pop(number)
    finally:
        for worker in workers:
            worker.end()


def _finished(workers: Sequence['_Worker']) -> Iterator[tuple[int, Any]]:
    """Waits until a worker has finished; numbers and results of all that have."""
    busy = [worker for worker in workers if worker.number is not None]
    first = min(worker.deadline for worker in busy)
    wait([worker.pipe for worker in busy], max(0.0, first - time.monotonic()))
    for worker in busy:
        number, result = worker.number, worker.result()
        if result is not None:
            yield number, result


class _Worker:
    """A process, and the number of the input that it is at."""

    def __init__(self, decode: Callable[[Any], Any], timeout: float) -> None:
        self._decode, self._timeout = decode, timeout
        self._begin()

    def _begin(self) -> None:
        self.number: int | None = None
        self._retried = False
        self._ready = False
        self.pipe, end = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_work, args=(self._decode, end), daemon=True)
        self._process.start()
        end.close()  # so that the pipe breaks when the process ends

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()

    def start(self, number: int, value: Any) -> None:
        if not self._process.is_alive():
            self.end()
            self._begin()
        try:
            if not self._ready:
                self._ready = self.pipe.recv()
            self.pipe.send(value)
        except (EOFError, OSError) as error:
            self._process.join()
            raise ChildProcessError(
                f'a worker process ended before its work: exit code {self._process.exitcode}; '
                'run the same command again, with fewer --processes if memory is short'
            ) from error
        self.number, self._value = number, value
        self.deadline = time.monotonic() + self._timeout

    def result(self) -> Any:
        """The result, or None while there is none. What crashes is tried a second time."""
        late = time.monotonic() > self.deadline
        if self.pipe.poll():
            try:
                received = self.pipe.recv()
            except (EOFError, OSError):
                self._process.join()
                reason = f'the decoder crashed: exit code {self._process.exitcode}'
            else:
                return self._received(received)
        elif late:
            reason = f'the decoder took more than {self._timeout:g} s'
        else:
            return None
        number, retried = self.number, self._retried
        self.end()
        self._begin()
        if retried:
            return Failure(reason)
        self.start(number, self._value)
        self._retried = True
        return None

    def _received(self, result: Any) -> Any:
        if isinstance(result, ChildProcessError):
            raise result
        self.number, self._retried = None, False
        return result


def _work(decode: Callable[[Any], Any], pipe: Connection) -> None:
    """Answers each input with its result, in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pipe.send(True)
    while True:
        try:
            value = pipe.recv()
        except EOFError:
            return
        pipe.send(_outcome(decode, value))


def _outcome(decode: Callable[[Any], Any], value: Any) -> Any:
    try:
        return decode(value)
    except ValueError as error:
        return Failure(_line(str(error)))
    except Exception as error:  # of any library below
        reason = _line(*traceback.format_exception_only(error))
        if not isinstance(error, OSError | MemoryError):  # a file that nobody has thought of
            return Failure(reason)
        return ChildProcessError(
            f'{value} could not be decoded: {reason}; put that right, or take the file away, and '
            'run the same command again'
        )


def _line(*texts: str) -> str:
    return ' '.join(word for text in texts for word in text.split())


def _end_with_parent() -> None:
    """A decoder that hangs would outlive a parent that is killed."""
    multiprocessing.parent_process().join()
    os._exit(1)
