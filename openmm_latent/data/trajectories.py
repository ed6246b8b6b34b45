"""What models are trained on: the model atoms of one or more trajectory files, with their frame spacing and origin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from openmm import app, unit

from openmm_latent.data.imaging import ModelAtoms, require_sound
from openmm_latent.data.readers import read_chunks
from openmm_latent.errors import LatentError, reason_of, require
from openmm_latent.topology import SOLVENT, heavy_atoms

#: Two frame spacings count as equal when they differ by less than this fraction.
_SPACING_TOLERANCE = 1e-3


@dataclass(frozen=True)
class TrajectorySet:
    """Model atoms of several trajectory files; time runs on inside a file and never from one file to the next.

    Attributes
    ----------
    topology : openmm.app.Topology
        Of the whole system.
    model_atoms : list of int
        Indices into the topology.
    positions : list of np.ndarray
        (n_frames, n_model_atoms, 3) [nm] float32 a file, whole molecules.
    frame_spacing : float
        [ps]
    files : list of str
    digest : str
        SHA-256 of the topology, the files' bytes, the chosen atoms and frames.
    provenance : dict
        What the `.json` files beside the trajectories agree on (temperature [K], force_field, ...); {} without any.
    """

    topology: app.Topology
    model_atoms: list[int]
    positions: list[np.ndarray]
    frame_spacing: float
    files: list[str]
    digest: str
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def n_frames(self) -> int:
        """Frames of all files together."""
        return sum(len(part) for part in self.positions)

    def concatenated(self) -> np.ndarray:
        """Return all files after one another, (n_frames, n_model_atoms, 3) [nm]."""
        return np.concatenate(self.positions)

    def lag_frames(self, lag_time: float) -> int:
        """Return how many frames one lag time [ps] is.

        Raises
        ------
        LatentError
            `lag_time` is not a positive multiple of the frame spacing.
        """
        return frames_per_lag(lag_time, self.frame_spacing)

    def lag_pairs(self, lag_time: float) -> tuple[np.ndarray, np.ndarray]:
        """Return (now, later), indices into `concatenated()` of frames one lag time [ps] apart in the same file.

        Raises
        ------
        LatentError
            `lag_time` is not a multiple of the frame spacing, or no file is longer than it.
        """
        n_lag = self.lag_frames(lag_time)
        now, start = [], 0
        for part in self.positions:
            now.append(np.arange(start, start + max(0, len(part) - n_lag)))
            start += len(part)
        first = np.concatenate(now)
        longest = max(len(part) for part in self.positions)
        require(
            len(first) > 0,
            f"lag_time {lag_time:g} ps is {n_lag} frames, but the longest file has {longest} frames; "
            f"give a shorter lag_time or longer trajectories",
        )
        return first, first + n_lag

    def split_chronological(self, fraction: float) -> tuple[TrajectorySet, TrajectorySet]:
        """Split every file in time: its first `fraction` to train on, the rest to test on."""
        require(
            0.0 < fraction < 1.0, f"fraction must lie between 0 and 1, got {fraction}; 0.8 trains on the first 80 %"
        )
        cuts = [round(fraction * len(part)) for part in self.positions]
        train = [part[:cut] for part, cut in zip(self.positions, cuts, strict=True)]
        test = [part[cut:] for part, cut in zip(self.positions, cuts, strict=True)]
        for name, parts in (("training", train), ("test", test)):
            require(
                all(len(part) > 0 for part in parts),
                f"fraction {fraction} leaves a file without {name} frames ({[len(p) for p in self.positions]} frames a "
                f"file); choose another fraction or longer files",
            )
        return self._part(train, self.files, f"first {fraction}"), self._part(test, self.files, f"after {fraction}")

    def split_blocks(self, n_blocks: int, test_blocks: Sequence[int]) -> tuple[TrajectorySet, TrajectorySet]:
        """Cut every file into equal blocks: test on those numbered (from 0), train on what lies between them."""
        shortest = min(len(part) for part in self.positions)
        require(2 <= n_blocks <= shortest, f"n_blocks must lie between 2 and {shortest} frames a file, got {n_blocks}")
        held_out = set(test_blocks)
        require(
            0 < len(held_out) < n_blocks and held_out <= set(range(n_blocks)),
            f"test_blocks must be some, not all, of the blocks 0 to {n_blocks - 1}, got {list(test_blocks)}",
        )
        pieces: dict[bool, list[np.ndarray]] = {False: [], True: []}
        names: dict[bool, list[str]] = {False: [], True: []}
        for part, name in zip(self.positions, self.files, strict=True):
            edges = np.linspace(0, len(part), n_blocks + 1).astype(int)
            start = 0
            for block in range(1, n_blocks + 1):  # a piece ends where training changes to testing or back
                is_test = block - 1 in held_out
                if block == n_blocks or (block in held_out) != is_test:
                    pieces[is_test].append(part[edges[start] : edges[block]])
                    names[is_test].append(name)
                    start = block
        what = f"{n_blocks} blocks, test {sorted(held_out)}"
        return (
            self._part(pieces[False], names[False], f"training part of {what}"),
            self._part(pieces[True], names[True], f"test part of {what}"),
        )

    def split_by_file(self, test_files: int | Sequence[str]) -> tuple[TrajectorySet, TrajectorySet]:
        """Split by file: test on the last `test_files` files, or on those named, and train on the rest."""
        if isinstance(test_files, int):
            is_test = [i >= len(self.files) - test_files for i in range(len(self.files))]
        else:
            wanted = {Path(name).name for name in test_files}
            unknown = sorted(wanted - {Path(name).name for name in self.files})
            require(not unknown, f"test_files names {unknown}, which are not among the files {self.files}")
            is_test = [Path(name).name in wanted for name in self.files]
        require(
            any(is_test) and not all(is_test),
            f"test_files must leave at least one file on each side, got {test_files} of {len(self.files)} files",
        )
        sides = []
        for side in (False, True):
            chosen = [i for i, flag in enumerate(is_test) if flag is side]
            names = [self.files[i] for i in chosen]
            sides.append(self._part([self.positions[i] for i in chosen], names, " ".join(Path(n).name for n in names)))
        return sides[0], sides[1]

    def _part(self, positions: list[np.ndarray], files: list[str], what: str) -> TrajectorySet:
        digest = hashlib.sha256(f"{self.digest} {what}".encode()).hexdigest()
        return replace(self, positions=positions, files=list(files), digest=digest)


def frames_per_lag(lag_time: float, frame_spacing: float) -> int:
    """Return how many frames, `frame_spacing` [ps] apart, one lag time [ps] is.

    Raises
    ------
    LatentError
        `lag_time` is not a positive multiple of the frame spacing.
    """
    require(
        np.isfinite(lag_time) and lag_time > 0,
        f"lag_time must be a positive time in ps, got {lag_time}; give e.g. 10",
    )
    n_frames = round(lag_time / frame_spacing)
    is_multiple = abs(n_frames * frame_spacing - lag_time) <= _SPACING_TOLERANCE * frame_spacing
    nearest = max(1, n_frames) * frame_spacing
    require(
        n_frames >= 1 and is_multiple,
        f"lag_time must be a multiple of the frame spacing ({frame_spacing:g} ps), got {lag_time:g} ps; "
        f"the nearest possible is {nearest:g} ps",
    )
    return n_frames


def load_trajectories(
    top: str | Path | app.Topology,
    files: str | Path | Sequence[str | Path],
    *,
    atoms: str | Sequence[int] = "heavy",
    stride: int = 1,
    frame_spacing: float | None = None,
) -> TrajectorySet:
    """Read trajectory files, keeping only the model atoms.

    Parameters
    ----------
    top : path or openmm.app.Topology
        Topology of the whole system: PDB, mmCIF, or what mdtraj reads (prmtop, psf, gro, ...).
    files : path or paths
        Trajectories: xtc, dcd, nc, trr, h5, pdb and what else mdtraj reads; each a run of its own.
    atoms : str or sequence of int
        "heavy" (all but hydrogens, water and ions), "all" (but water and ions), or atom indices.
    stride : int
        Keep every stride-th frame.
    frame_spacing : float or None
        [ps] between frames in the files, before `stride`; needed where the format stores no time, and believed over
        time stamps where both are there.

    Raises
    ------
    LatentError
        A file is absent, unreadable, truncated, empty, or of another topology; time stamps are uneven or differ from
        file to file, and no `frame_spacing` is given; coordinates are not numbers; the files come from different
        temperatures or force fields.
    """
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(name) for name in files]
    require(len(paths) > 0, "files (--traj) is empty; give at least one trajectory file")
    require(stride >= 1, f"stride must be a positive whole number, got {stride}")
    require(
        frame_spacing is None or (np.isfinite(frame_spacing) and frame_spacing > 0),
        f"frame_spacing must be a positive time in ps, got {frame_spacing}",
    )
    topology, reference = load_topology(top)
    model_atoms = select_atoms(topology, atoms)
    reader = _Reader(topology, model_atoms, reference, stride, judges_stamps=frame_spacing is None)
    positions, spacings = [], []
    for path in paths:
        part, spacing = reader.read(path)
        positions.append(part)
        spacings.append(spacing)
    provenances = [read_provenance(path) for path in paths]
    spacing = frame_spacing or _common_spacing(paths, spacings, provenances)
    return TrajectorySet(
        topology=topology,
        model_atoms=model_atoms,
        positions=positions,
        frame_spacing=spacing * stride,
        files=[str(path) for path in paths],
        digest=_digest(topology, paths, model_atoms, stride),
        provenance=_common_provenance(paths, provenances),
    )


def load_topology(top: str | Path | app.Topology) -> tuple[app.Topology, np.ndarray | None]:
    """Read a topology and, where the file has them, positions (n_atoms, 3) [nm]."""
    if isinstance(top, app.Topology):
        return top, None
    path = Path(top)
    require(path.is_file(), f"topology file {path} does not exist; check the name given to top (--top)")
    suffix = path.suffix.lower()
    try:
        if suffix in {".pdb", ".ent", ".cif", ".mmcif", ".pdbx"}:
            loaded = app.PDBFile(str(path)) if suffix in {".pdb", ".ent"} else app.PDBxFile(str(path))
            topology = loaded.topology
            positions = np.array(loaded.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        else:
            import mdtraj

            topology, positions = mdtraj.load_topology(str(path)).to_openmm(), None
            if suffix in {".prmtop", ".parm7"}:
                _name_missing_elements(topology, path)
    except Exception as error:  # the readers raise whatever the broken line makes them raise
        raise LatentError(
            f"topology file {path} cannot be read ({reason_of(error)}); give a PDB, mmCIF, prmtop, psf or gro "
            f"file to top (--top)"
        ) from error
    require(
        topology.getNumAtoms() > 0, f"topology file {path} has no atoms; give the PDB file of the system to top (--top)"
    )
    return topology, positions


def _name_missing_elements(topology: app.Topology, path: Path) -> None:
    """Read elements from masses where an Amber file has no atomic numbers, as of ligands; virtual sites keep none."""
    if all(atom.element is not None or atom.residue.name in SOLVENT for atom in topology.atoms()):
        return
    from openmm_latent.data.complex_tokens import name_elements

    name_elements(topology, app.AmberPrmtopFile(str(path)).createSystem())


def select_atoms(topology: app.Topology, atoms: str | Sequence[int]) -> list[int]:
    """Return the indices of the model atoms; see `load_trajectories` for the words that `atoms` takes."""
    if isinstance(atoms, str):
        require(atoms in ("heavy", "all"), f"atoms must be 'heavy', 'all' or a list of indices, got {atoms!r}")
        solute = [a for a in topology.atoms() if a.residue.name not in SOLVENT and a.element is not None]
        chosen = heavy_atoms(topology) if atoms == "heavy" else [a.index for a in solute]
        require(len(chosen) > 0, f"atoms={atoms!r} selects nothing: the topology holds only water and ions")
        return chosen
    chosen = [int(index) for index in atoms]
    n_atoms = topology.getNumAtoms()
    outside = [index for index in chosen if not 0 <= index < n_atoms]
    require(
        len(chosen) > 0 and not outside and len(set(chosen)) == len(chosen),
        f"atoms must be different indices from 0 to {n_atoms - 1}, got {outside or chosen}",
    )
    return chosen


class _Reader:
    """Reads one file after another with the same topology, atoms and stride."""

    def __init__(
        self,
        topology: app.Topology,
        model_atoms: list[int],
        reference: np.ndarray | None,
        stride: int,
        judges_stamps: bool = True,
    ) -> None:
        import mdtraj

        self.topology = mdtraj.Topology.from_openmm(topology)
        self.stride, self.judges_stamps = stride, judges_stamps
        self.atoms = ModelAtoms(topology, model_atoms, reference)

    def read(self, path: Path) -> tuple[np.ndarray, float | None]:
        """Return (n_frames, n_model_atoms, 3) [nm] and the spacing of the file's time stamps [ps] if it has any."""
        frames, times, n_seen, n_kept = np.empty((0, 0, 3), dtype=np.float32), [], 0, 0
        for chunk in read_chunks(path, self.topology, self.atoms.kept):
            keep = slice((-n_seen) % self.stride, None, self.stride)
            positions = chunk.positions[keep]
            numbers = n_seen + np.arange(len(chunk.positions))[keep]
            require_sound(positions, numbers, f"trajectory file {path}")
            part = self.atoms.take(positions, None if chunk.boxes is None else chunk.boxes[keep])
            frames = _appended(frames, n_kept, part)
            n_kept += len(part)
            times.append(chunk.times)
            n_seen += len(chunk.positions)
        require(n_seen > 0, f"trajectory file {path} holds no frames; leave it out or write it again")
        stamps = None if any(part is None for part in times) else np.concatenate(times)
        frames.resize((n_kept, *frames.shape[1:]), refcheck=False)
        return frames, _spacing(path, stamps) if self.judges_stamps else None


def _appended(frames: np.ndarray, n_used: int, part: np.ndarray) -> np.ndarray:
    """Put a chunk behind the first `n_used` frames of a store that grows in place: no file lies in memory twice."""
    needed = n_used + len(part)
    if len(frames) < needed:
        frames.resize((max(needed, len(frames) * 9 // 8), *part.shape[1:]), refcheck=False)
    frames[n_used:needed] = part
    return frames


def _spacing(path: Path, times: np.ndarray | None) -> float | None:
    """Return the even spacing of time stamps (n_frames,) [ps]; None without usable ones."""
    if times is None or len(times) < 2 or not np.all(np.isfinite(times)) or np.ptp(times) == 0:
        return None
    steps = np.diff(times)
    spacing = float(np.median(steps))
    # stamps are float32 in most formats: two roundings at the latest time
    tolerance = max(_SPACING_TOLERANCE * abs(spacing), 4 * float(np.spacing(np.float32(np.abs(times).max()))))
    uneven = np.flatnonzero((np.abs(steps - spacing) > tolerance) | (steps <= 0))
    if len(uneven):
        at = int(uneven[0])
        raise LatentError(
            f"trajectory file {path} has uneven time stamps: frame {at + 1} comes {steps[at]:g} ps after frame {at}, "
            f"most come after {spacing:g} ps; write it evenly, or give frame_spacing if the stamps are wrong"
        )
    spacing = float((times[-1] - times[0]) / (len(times) - 1))
    return round(spacing, 4) if spacing > 0.01 else spacing


def _common_spacing(paths: list[Path], spacings: list[float | None], provenances: list[dict[str, Any]]) -> float:
    """Return the one frame spacing [ps] of all files, from time stamps or else from the `.json` beside them."""
    told = [p.get("frame_spacing") if s is None else s for s, p in zip(spacings, provenances, strict=True)]
    known = [(path, float(s)) for path, s in zip(paths, told, strict=True) if s is not None]
    missing = [path for path, s in zip(paths, told, strict=True) if s is None]
    require(
        not missing,
        f"trajectory file {missing[0] if missing else ''} stores no time between frames; "
        f"give frame_spacing (--frame-spacing) in ps",
    )
    first_path, first = known[0]
    for path, other in known[1:]:
        require(
            abs(other - first) <= _SPACING_TOLERANCE * first,
            f"trajectory files have different frame spacings: {first_path} {first:g} ps, {path} {other:g} ps; "
            f"write them alike or train on one kind",
        )
    return first


def read_provenance(path: Path) -> dict[str, Any]:
    """Read the `.json` beside a trajectory, which `generate` and hybrid runs write; {} without one."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return {}
    try:
        content = json.loads(beside.read_text())
    except ValueError as error:
        raise LatentError(
            f"{beside}, the provenance of {path.name}, is not valid JSON ({error}); mend or remove it"
        ) from error
    return content if isinstance(content, dict) else {}


def _common_provenance(paths: list[Path], provenances: list[dict[str, Any]]) -> dict[str, Any]:
    """Keep what all files agree on; files of different temperature or force field are not one training set."""
    first = provenances[0]
    for path, other in zip(paths[1:], provenances[1:], strict=True):
        for key in ("temperature", "force_field"):
            require(
                first.get(key) == other.get(key) or not first or not other,
                f"trajectory files differ in {key}: {paths[0]} has {first.get(key)}, {path} has {other.get(key)}; "
                f"train one model on each",
            )
    return {key: value for key, value in first.items() if all(p.get(key, value) == value for p in provenances)}


def _digest(topology: app.Topology, paths: list[Path], model_atoms: list[int], stride: int) -> str:
    total = hashlib.sha256()
    for atom in topology.atoms():
        total.update(f"{atom.residue.chain.id} {atom.residue.name} {atom.residue.id} {atom.name}\n".encode())
    total.update(f"{model_atoms} {stride}".encode())
    for path in paths:
        with open(path, "rb") as handle:
            total.update(hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()
