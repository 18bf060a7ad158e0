"""Programs in processes of their own, forked from one that has imported what is slow to import."""

import atexit
import multiprocessing
import os
import runpy
import sys
import tempfile
import threading
import warnings
from importlib.metadata import version
from multiprocessing.reduction import DupFd
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Of XLA. The tests' programs are small and run a few times: most of their time is compilation.
QUICK = '--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1'
if version('jaxlib') < '0.11':  # which has the newer emitters alone
    QUICK += ' --xla_cpu_use_fusion_emitters=false'

SERVER = multiprocessing.get_context('forkserver')
SERVER.set_forkserver_preload(['trainers.launch', 'trainers.train', 'trainers.visualize'])


class Program:
    """A program as `subprocess.Popen` has it: `python ARGV`, or of a list that begins with -m.

    Signals, exit status, output and what happens at exit are those of a program that is started;
    only TensorFlow and jax are imported already, which takes most of the start.
    """

    def __init__(self, *argv, env=None, cwd=ROOT):
        read, write = os.pipe()
        self.stdout = os.fdopen(read)
        self._errors = tempfile.TemporaryFile('w+')  # noqa: SIM115
        fds = [DupFd(fd) for fd in (write, self._errors.fileno())]
        args = ([str(arg) for arg in argv], *fds, dict(env or os.environ), str(cwd))
        self._process = SERVER.Process(target=_run, args=args)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            self._process.start()
        os.close(write)

    @property
    def pid(self):
        return self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    def send_signal(self, signum):
        os.kill(self.pid, signum)

    def kill(self):
        self._process.kill()

    def communicate(self, timeout=600):
        """What is left of the output, and the errors."""
        late = threading.Timer(timeout, self.kill)
        late.start()
        with self.stdout, self._errors:
            out = self.stdout.read()
            self._process.join()
            late.cancel()
            self._errors.seek(0)
            return out, self._errors.read()


def one_device():
    """The environment, but for the eight devices of the tests."""
    return os.environ | {'XLA_FLAGS': QUICK}


def as_users():
    """The environment without the flags of XLA, for what computes longer than it compiles."""
    return {key: value for key, value in os.environ.items() if key != 'XLA_FLAGS'}


def run(*argv, **options):
    """Exit status, output and errors of a program."""
    program = Program(*argv, **options)
    out, err = program.communicate()
    return program.returncode, out, err


def _run(argv, out, err, env, cwd):
    """The program, in the new process."""
    for fd, number in ((out, 1), (err, 2)):
        os.dup2(fd.detach(), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    module, *_ = argv = argv[1:] if argv[0] == '-m' else argv
    sys.argv[:] = argv
    try:
        if module.endswith('.py'):
            sys.path.insert(0, os.path.dirname(os.path.abspath(module)))
            runpy.run_path(module, run_name='__main__')
        else:
            runpy.run_module(module, run_name='__main__', alter_sys=True)
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
