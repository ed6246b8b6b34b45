"""A lock on a folder, so that no two processes write one walker at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from openmm_latent.errors import LatentError


class FolderLock:
    """While entered, this process alone runs in the folder; whoever comes second waits.

    A worker that the scheduler has given up for lost may still be writing. The kernel releases the lock of a process
    that ends, however it ends.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    is_stopped : callable
        Asked while waiting; true gives up.
    pause : float
        [s] between two tries.

    Raises
    ------
    LatentError
        The file system has no locks.
    KeyboardInterrupt
        `is_stopped` said so.
    """

    def __init__(self, folder: Path, is_stopped: Callable[[], bool] = lambda: False, pause: float = 0.5) -> None:
        self._folder, self._is_stopped, self._pause = folder, is_stopped, pause
        self._handle = -1

    def __enter__(self) -> FolderLock:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            while not self._try():
                if self._is_stopped():
                    raise KeyboardInterrupt(f"another process is still running in {self._folder}")
                time.sleep(self._pause)
        except BaseException:
            os.close(self._handle)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)

    def _try(self) -> bool:
        try:
            # Linux passes it on over NFS; and, unlike lockf, it holds between threads of one process
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            raise LatentError(
                f"out {self._folder} lies on a file system without locks ({error.strerror}), where two workers could "
                f"write one walker; give a folder on another one, or mount it with locks"
            ) from error
        return True
