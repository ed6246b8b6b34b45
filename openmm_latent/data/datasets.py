"""Data sets of many proteins: what is in them, and their frames as a stream that never fills the memory.

| class | what |
|---|---|
| `DataSet` | the entries of one folder, file or archive |
| `Entry` | one protein (or complex): its topology and its runs |
| `Run` | one trajectory of an entry: one temperature, one replica |

Each format subclasses `Entry`; opening is in `openmm_latent.data.recognise`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from openmm import app

from openmm_latent.data.imaging import ModelAtoms, require_sound
from openmm_latent.data.trajectories import TrajectorySet, select_atoms
from openmm_latent.errors import require

#: Atoms times frames of one chunk of a stream: 5 MB of float32 coordinates.
CHUNK_ATOMS = 400_000
#: Bonds longer than this are no bonds [nm]: the atoms are in another order than the topology's.
LONGEST_BOND = 0.3
#: Share of such bonds at which a trajectory counts as that of another topology.
_MAX_STRETCHED = 0.05


@dataclass(frozen=True)
class Run:
    """One trajectory.

    Attributes
    ----------
    name : str
        Unique within the entry, e.g. "R1" or "320/0".
    n_frames : int
    frame_spacing : float or None
        [ps]; None where neither file nor format tells.
    temperature : float or None
        [K]
    file : Path
        Holds the frames.
    """

    name: str
    n_frames: int
    frame_spacing: float | None
    temperature: float | None
    file: Path


@dataclass(frozen=True)
class Entry(ABC):
    """One protein of a data set; nothing is read before it is asked for, and little of it is kept.

    Attributes
    ----------
    name : str
    path : Path
        File or folder it is in.
    """

    name: str
    path: Path

    @property
    def protein(self) -> str:
        """What two entries share if they are of one protein and must not be split: here the name."""
        return self.name

    @property
    @abstractmethod
    def files(self) -> list[Path]:
        """The files that hold the entry."""

    @abstractmethod
    def read_structure(self) -> tuple[app.Topology, np.ndarray | None]:
        """Read the topology and, where there are any, positions (n_atoms, 3) [nm] from file."""

    @abstractmethod
    def list_runs(self) -> tuple[Run, ...]:
        """Read from file which runs there are; checks their atom counts against the topology."""

    @abstractmethod
    def read_frames(self, run: Run, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Read frames of all atoms, (n_read, n_atoms, 3) [nm] float32, and boxes (n_read, 3, 3) [nm] or None."""

    @property
    def notes(self) -> list[str]:
        """What the format could not tell of this entry, a sentence each."""
        return []

    @property
    def provenance(self) -> dict[str, str]:
        """What is known of how the data were made."""
        return {}

    @property
    def topology(self) -> app.Topology:
        """Of all atoms in the frames."""
        return _structure(self)[0]

    @property
    def reference(self) -> np.ndarray | None:
        """(n_atoms, 3) [nm], or None."""
        return _structure(self)[1]

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs; `list_runs`, remembered for the entries used last."""
        return _runs(self)

    def run(self, name: str) -> Run:
        """Return the run of a name."""
        found = [run for run in self.runs if run.name == name]
        known = ", ".join(run.name for run in self.runs) or "none"
        require(len(found) == 1, f"run must be one of {self.name}'s ({known}), got {name!r}")
        return found[0]

    def model_atoms(self, atoms: str | Sequence[int] = "heavy") -> list[int]:
        """Return the indices of the atoms that "heavy", "all" or a list of indices selects."""
        return select_atoms(self.topology, atoms)

    def frames(self, run: Run, frames: Sequence[int] | np.ndarray, atoms: str | Sequence[int] = "heavy") -> np.ndarray:
        """Read single frames, in the order given, all at once.

        Parameters
        ----------
        run : Run
        frames : sequence of int
            (n_read,) frame numbers from 0 to `run.n_frames` - 1.
        atoms : str or sequence of int
            See `model_atoms`.

        Returns
        -------
        np.ndarray
            (n_read, n_model_atoms, 3) [nm] float32, whole molecules.

        Raises
        ------
        LatentError
            A frame is outside the run, the file is damaged, or coordinates are not numbers.
        """
        numbers = np.asarray(frames, dtype=np.int64).reshape(-1)
        require(
            len(numbers) == 0 or (numbers.min() >= 0 and numbers.max() < run.n_frames),
            f"frames must lie between 0 and {run.n_frames - 1} in run {run.name} of {self.name}, got "
            f"{numbers.min() if len(numbers) else ''} to {numbers.max() if len(numbers) else ''}",
        )
        picked = _picker(self, atoms if isinstance(atoms, str) else tuple(int(a) for a in atoms))
        positions, boxes = self.read_frames(run, numbers)
        require_sound(positions, numbers, f"run {run.name} of {self.name} in {run.file}")
        return picked.take(positions[:, picked.kept], boxes)

    def stream(
        self,
        run: Run,
        start: int = 0,
        stop: int | None = None,
        stride: int = 1,
        atoms: str | Sequence[int] = "heavy",
    ) -> Iterator[np.ndarray]:
        """Read a run as chunks of some megabytes, each (n, n_model_atoms, 3) [nm] float32.

        `start`, `stop` and `stride` count frames as a slice does, without negative numbers.
        """
        last = run.n_frames if stop is None else min(stop, run.n_frames)
        require(
            start >= 0 and stride >= 1 and (stop is None or stop >= 0),
            f"start, stop and stride must count frames forwards from 0, got {start}, {stop} and {stride}",
        )
        numbers = np.arange(start, last, stride)
        n_chunk = max(1, CHUNK_ATOMS // self.topology.getNumAtoms())
        for first in range(0, len(numbers), n_chunk):
            yield self.frames(run, numbers[first : first + n_chunk], atoms)

    def require_fit(self, run: Run) -> None:
        """Raise `LatentError` if bonded atoms lie apart in the run's first frame: another order than the topology's."""
        share = stretched_bonds(self, run)[1]
        require(
            share <= _MAX_STRETCHED,
            f"run {run.name} of {self.name} does not fit its topology: {100 * share:.0f} % of the bonds are longer "
            f"than {LONGEST_BOND} nm in the first frame; the atoms are in another order, or {run.file.name} is "
            f"of another system",
        )


@dataclass(frozen=True)
class DataSet:
    """The entries of one data set.

    Attributes
    ----------
    kind : str
        "ATLAS", "mdCATH", "MISATO" or "files".
    path : Path
    entries : tuple of Entry
        Sorted by name; names are unique.
    licence : str
        What is known of it, for the manifest.
    """

    kind: str
    path: Path
    entries: tuple[Entry, ...]
    licence: str = "unknown"
    _places: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._places.update({entry.name: i for i, entry in enumerate(self.entries)})
        require(
            len(self._places) == len(self.entries),
            f"data set {self.path} has two entries of one name; rename or remove one",
        )

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __getitem__(self, name: str) -> Entry:
        require(
            name in self._places,
            f"data set {self.path} has no entry {name!r}; it has {len(self)}: {some_of(self.names)}",
        )
        return self.entries[self._places[name]]

    @property
    def names(self) -> list[str]:
        """Names of the entries."""
        return [entry.name for entry in self.entries]

    def subset(self, names: Sequence[str]) -> DataSet:
        """Return the data set of these entries, in the order of `names`."""
        return DataSet(self.kind, self.path, tuple(self[name] for name in names), self.licence)

    def load(
        self,
        name: str,
        *,
        runs: Sequence[str] | None = None,
        temperature: float | None = None,
        atoms: str | Sequence[int] = "heavy",
        stride: int = 1,
    ) -> TrajectorySet:
        """Read one entry into memory, as what models of one system are trained on.

        Parameters
        ----------
        name : str
        runs : sequence of str or None
            Which runs; None takes all.
        temperature : float or None
            [K] Take only runs at this one; needed where an entry has several.
        atoms : str or sequence of int
            See `Entry.model_atoms`.
        stride : int
            Keep every stride-th frame.

        Raises
        ------
        LatentError
            The runs differ in temperature or frame spacing, do not fit the topology, or none is left.
        """
        entry = self[name]
        chosen = [entry.run(run) for run in runs] if runs is not None else runs_at(entry, temperature)
        require(len(chosen) > 0, f"entry {name} has no runs to load; {' '.join(entry.notes) or 'choose another entry'}")
        _require_alike(entry, chosen)
        require(stride >= 1, f"stride must be a positive whole number, got {stride}")
        positions = []
        for run in chosen:
            entry.require_fit(run)
            positions.append(np.concatenate(list(entry.stream(run, stride=stride, atoms=atoms))))
        model_atoms, at = entry.model_atoms(atoms), chosen[0].temperature
        return TrajectorySet(
            topology=entry.topology,
            model_atoms=model_atoms,
            positions=positions,
            frame_spacing=float(chosen[0].frame_spacing or 0.0) * stride,
            files=[f"{run.file}#{run.name}" for run in chosen],
            digest=_digest(entry.topology, positions, model_atoms),
            provenance={"data_set": self.kind, "licence": self.licence}
            | entry.provenance
            | ({} if at is None else {"temperature": at}),
        )


def runs_at(entry: Entry, temperature: float | None) -> list[Run]:
    """Return the runs at a temperature [K], or all for None.

    Raises
    ------
    LatentError
        The entry has runs, but none at this temperature.
    """
    if temperature is None:
        return list(entry.runs)
    found = [run for run in entry.runs if run.temperature is not None and abs(run.temperature - temperature) < 0.5]
    have = sorted({run.temperature for run in entry.runs if run.temperature is not None})
    require(
        bool(found) or not entry.runs,
        f"temperature must be one of {entry.name}'s ({', '.join(f'{t:g}' for t in have) or 'none known'} K), got "
        f"{temperature:g} K",
    )
    return found


def runs_to_learn_from(entry: Entry, temperature: float | None) -> list[Run]:
    """Return the runs at a temperature [K], or all for None, as `runs_at`; an entry without any is refused."""
    runs = runs_at(entry, temperature)
    require(len(runs) > 0, f"entry {entry.name} has no runs to learn from; {' '.join(entry.notes) or 'leave it out'}")
    return runs


def data_facts(dataset: DataSet, temperature: float | None = None) -> dict[str, Any]:
    """Return what a data set tells of its temperature [K], force field and licence, for the file of weights."""
    runs = [run for entry in dataset for run in runs_at(entry, temperature)]
    temperatures = {run.temperature for run in runs}
    fields = {entry.provenance.get("force_field") for entry in dataset}
    return {
        "temperature": temperatures.pop() if len(temperatures) == 1 else None,
        "force_field": fields.pop() if len(fields) == 1 else None,
        "files": sorted({run.file.name for run in runs}),
        "data_set": dataset.kind,
        "licence": dataset.licence,
    }


def stretched_bonds(entry: Entry, run: Run) -> tuple[int, float]:
    """Return how many bonds are longer than `LONGEST_BOND` in the run's first frame, and which share of all that is."""
    bonds = np.array([(bond[0].index, bond[1].index) for bond in entry.topology.bonds()])
    if len(bonds) == 0:
        return 0, 0.0
    first = entry.frames(run, [0], range(entry.topology.getNumAtoms()))[0].astype(float)
    lengths = np.linalg.norm(first[bonds[:, 0]] - first[bonds[:, 1]], axis=1)
    n_long = int(np.count_nonzero(lengths > LONGEST_BOND))
    return n_long, n_long / len(bonds)


def some_of(names: Sequence[str], n_shown: int = 5) -> str:
    """Return the first few of many names, for a message."""
    return ", ".join(names[:n_shown]) + (", ..." if len(names) > n_shown else "")


def _require_alike(entry: Entry, runs: Sequence[Run]) -> None:
    temperatures = sorted({run.temperature for run in runs if run.temperature is not None})
    require(
        len(temperatures) <= 1,
        f"entry {entry.name} has runs at {', '.join(f'{t:g}' for t in temperatures)} K; give the temperature of those "
        f"to load",
    )
    spacings = sorted({run.frame_spacing for run in runs if run.frame_spacing is not None})
    require(
        len(spacings) == 1 and all(run.frame_spacing is not None for run in runs),
        f"the runs of entry {entry.name} must have one frame spacing, got "
        f"{', '.join(f'{s:g}' for s in spacings) or 'none'} ps; name runs that are alike, or open the data set with "
        f"frame_spacing",
    )


def _digest(topology: app.Topology, positions: list[np.ndarray], model_atoms: list[int]) -> str:
    """SHA-256 of what was read: the file may hold a hundred times as much."""
    total = hashlib.sha256()
    for atom in topology.atoms():
        total.update(f"{atom.residue.chain.id} {atom.residue.name} {atom.residue.id} {atom.name}\n".encode())
    total.update(f"{model_atoms}".encode())
    for part in positions:
        total.update(part.tobytes())
    return total.hexdigest()


@lru_cache(maxsize=16)
def _structure(entry: Entry) -> tuple[app.Topology, np.ndarray | None]:
    return entry.read_structure()


@lru_cache(maxsize=1024)
def _runs(entry: Entry) -> tuple[Run, ...]:
    return entry.list_runs()


@lru_cache(maxsize=16)
def _picker(entry: Entry, atoms: str | tuple[int, ...]) -> ModelAtoms:
    return ModelAtoms(entry.topology, entry.model_atoms(atoms), entry.reference)
