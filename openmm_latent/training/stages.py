"""Where stages of a training are kept, and the bar of those that Lightning does not show."""

from __future__ import annotations

import tempfile
from pathlib import Path


class ProgressBar:
    """One bar for a propagator's epochs."""

    def __init__(self, name: str, is_shown: bool):
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bar = Progress(*columns, disable=not is_shown)
        self.name = name
        self.task = self.bar.add_task(name, total=None)

    def update(self, epoch: int, n_epochs: int, training: float, validation: float) -> None:
        """Show one more epoch."""
        text = f"{self.name}: loss {training:.4g}, validation {validation:.4g}"
        self.bar.update(self.task, completed=epoch, total=n_epochs, description=text)

    def __enter__(self) -> ProgressBar:
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()


class WorkDirectory:
    """Where stages are kept: the user's directory, one beside the bundle, or a temporary one."""

    def __init__(self, given: str | Path | None, out: str | Path | None, resume: bool):
        self._temporary = None
        if given is None and out is not None:
            given = Path(str(out) + ".work")
        if given is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="openmm-latent-")
            given = self._temporary.name
        self.path = Path(given)
        self.path.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> WorkDirectory:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()
