"""Starts a private Ray instance, joins a cluster, or uses the Ray that the host program has; and leaves no trace.

A private instance speaks only to clients that hold its token, since Ray's ports listen on all interfaces; it lives in
a folder of its own that only its user can read, and prints nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import OnlookerError, UsageError

__all__ = ["check_reachable", "ray_instance", "worker_environment"]

_STORE_BYTES = 256_000_000
"""Shared memory for packets between actors. Batches in flight and those kept for replay have to fit, else Ray spills
them to disk; 96 batches of 8 frames of 224 x 224 take 116 MB."""

_CONNECT_SECONDS = 5.0
"""How long a cluster's port may take to answer; Ray itself would try for minutes."""

_GONE_SECONDS = 10.0
"""How long processes may take to leave after the instance was stopped, before they are killed."""


def worker_environment(threads: int) -> dict[str, str]:
    """Environment of the actors: ``threads`` for every numeric library, and an allocator that keeps big blocks.

    Activations of a model are large blocks; by default glibc returns each to the kernel at once and faults it in again
    for the next batch, which costs more time than some layers.
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    }


@contextlib.contextmanager
def ray_instance(address: str | None, *, cpus: int, threads: int) -> Iterator[bool]:
    """Have Ray for the time of a ``with`` block.

    Where the host program has initialised Ray, that instance is used and left running. Else ``address`` says which
    cluster to join; None starts a private instance, whatever RAY_ADDRESS says.

    Args:
        address: ``host:port`` of a cluster, ``auto`` for the one on this machine, or None.
        cpus: logical CPUs of a private instance; at least what its actors reserve.
        threads: threads of the numeric libraries in the workers of a private instance.

    Yields:
        Whether the instance is private: its workers then inherit ``worker_environment``.

    Raises:
        UsageError: the cluster cannot be joined.
    """
    if address is not None and address.startswith("ray://"):
        raise UsageError(f"--address {address}: Ray Client is not supported; give HOST:PORT, on a node of the cluster.")
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        yield False
    elif address is None or address == "local":
        with _private_environment(), _quiet(), _private_instance(cpus, threads):
            yield True
    else:
        check_reachable(address)
        with _quiet(), _joined(address):
            yield False


@contextlib.contextmanager
def _private_instance(cpus: int, threads: int) -> Iterator[None]:
    import ray

    # Not below tempfile.gettempdir(): a socket's path may have 107 characters, and some systems spend half on that.
    folder = tempfile.mkdtemp(prefix="onlooker-", dir="/tmp" if os.access("/tmp", os.W_OK) else None)
    try:
        with _keep_signal_handlers(), _environment(worker_environment(threads)):
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                object_store_memory=_STORE_BYTES,
                _temp_dir=folder,
            )
        yield
    finally:
        _shut_down(folder)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _joined(address: str) -> Iterator[None]:
    import ray

    try:
        with _keep_signal_handlers():
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (OSError, RuntimeError, ray.exceptions.RayError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(f"cannot join the Ray cluster at {address!r}: {line}") from None
    try:
        yield
    finally:
        ray.shutdown()


def check_reachable(address: str) -> None:
    """Find out in seconds what Ray would find out in minutes, with pages of warnings.

    Raises:
        UsageError: nothing answers at ``address``.
    """
    host, colon, port = address.rpartition(":")
    if not colon:
        return  # "auto" and the like: Ray finds the address itself
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot join the Ray cluster at {address!r}: {error}; give HOST:PORT of its head node."
        ) from None


@contextlib.contextmanager
def _private_environment() -> Iterator[None]:
    """What this process and all processes of a private instance need while it runs."""
    values = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_AUTH_TOKEN_PATH": None,
        # Started by `uv run`, Ray would upload the working directory to its workers; they share our environment.
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        # Ray lets its workers give way to everything else (niceness 15): beside a busy program a camera's decoder then
        # starves (benchmarks/results/live_soak_long.md). Whoever wants that starts onlooker with `nice`.
        "RAY_worker_niceness": "0",
        # An actor without reserved GPUs may still use one: `device: cuda` on a laptop needs no more than that.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    try:
        with _environment(values):
            _reread_token()
            yield
    finally:
        _reread_token()


def _reread_token() -> None:
    """Make Ray take mode and token from the environment as it is now.

    It reads them once per process; without this a second run in one process would show the token of the first.

    Raises:
        OnlookerError: this Ray knows no tokens.
    """
    try:
        raylet: Any = importlib.import_module("ray._raylet")
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
    except AttributeError:
        raise OnlookerError("this version of Ray has no token authentication; install ray>=2.52.") from None


@contextlib.contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    _set_environment(values)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's own messages off the user's terminal; what matters reaches the user as our errors."""
    import ray._private.worker as worker

    logger = logging.getLogger("ray")
    level = logger.level
    printing = getattr(worker, "_worker_logs_enabled", None)
    if printing is not None:
        worker._worker_logs_enabled = False  # the death of an actor would be told on standard output
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
            yield
    finally:
        logger.setLevel(level)
        if printing is not None:
            worker._worker_logs_enabled = printing


@contextlib.contextmanager
def _keep_signal_handlers() -> Iterator[None]:
    """Put back the handlers that ``ray.init`` replaces; the host program decides what a signal means."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _shut_down(folder: str) -> None:
    """Stop the instance that lives in ``folder`` and make sure that none of its processes stays."""
    import psutil  # Ray brings its own copy along
    import ray

    ours = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if any(folder in argument for argument in child.cmdline()):  # the host may have children of its own
                ours += [child, *child.children(recursive=True)]
    ray.shutdown()
    deadline = time.monotonic() + _GONE_SECONDS
    while (left := [p for p in ours if _alive(p)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _alive(process: Any) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
