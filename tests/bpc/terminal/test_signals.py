"""SIGTERM in a command, in a worker of it, and in a thread."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from bpc.terminal.signals import Terminated, terminable


def test_sigterm_is_an_exception_like_that_of_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as caught, terminable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert isinstance(caught.value, Terminated)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_forked_worker_dies_of_it_quietly() -> None:
    with terminable():
        worker = os.fork()
        if worker == 0:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os._exit(1)
        _, status = os.waitpid(worker, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGTERM


def test_other_threads_are_left_alone() -> None:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            with terminable():
                pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert failed == []
