"""`openmm-latent backmap`: all heavy atoms, and hydrogens, for Cα traces."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from openmm_latent.cli.bind import family_of
from openmm_latent.cli.common import PlatformOption, SeedOption, progress_bar
from openmm_latent.errors import require

#: What can be written.
_FORMATS = (".xtc", ".pdb")
#: Structures, which name their residues themselves; of the second kind only one frame is read.
_MODELS, _SINGLE = {".pdb"}, {".ent", ".cif", ".mmcif", ".pdbx"}


def backmap(
    trace: Annotated[Path, typer.Option(help="Cα trace: a PDB or mmCIF file, or a trajectory with --top.")],
    model: Annotated[Path, typer.Option(help="Weights that `train codlad` wrote, or a bundle with `backmap`.")],
    out: Annotated[Path, typer.Option(help="all_atom.xtc (with all_atom.pdb beside it) or all_atom.pdb.")],
    top: Annotated[
        Path | None, typer.Option(help="Structure whose atoms a trajectory has.", show_default="the trace itself")
    ] = None,
    samples: Annotated[int, typer.Option("-n", "--samples", help="Of each frame, written one after another.")] = 1,
    stride: Annotated[int, typer.Option(help="Take every n-th frame.")] = 1,
    steps: Annotated[
        int | None, typer.Option(help="Diffusion steps; fewer are quicker and coarser.", show_default="the model's")
    ] = None,
    relax: Annotated[
        bool, typer.Option("--relax", help="Add hydrogens and minimise with OpenMM, the Cα atoms held.")
    ] = False,
    stiffness: Annotated[float, typer.Option(help="[kJ/mol/nm^2] with which --relax holds each Cα.")] = 10_000.0,
    solvent: Annotated[str, typer.Option(help="Of --relax: obc2 or vacuum.")] = "obc2",
    seed: SeedOption = 1,
    platform: PlatformOption = None,
) -> None:
    """Draw all heavy atoms on Cα traces, several samples a frame if asked.

    The sequence is that of the trace's residue names; chains may be many. Atoms beside the Cα are passed over, so an
    all-atom file works, too. Cysteines are built without disulphide bonds. Time stamps are those of the trace.

    **Examples**

    - `openmm-latent backmap --trace ca.pdb --model codlad.weights.pt --out all_atom.pdb`

    - `openmm-latent backmap --trace cg.xtc --top cg.pdb --model codlad.weights.pt --out all_atom.xtc -n 10 --relax`
    """
    from openmm_latent.backmapping import load_backmapper
    from openmm_latent.data.restrained import RestrainedMinimiser

    require(
        out.suffix.lower() in _FORMATS,
        f"out (--out) must end in {' or '.join(_FORMATS)}, got {out.name!r}; the topology goes beside an XTC file",
    )
    require(out.parent.is_dir(), f"out (--out): the folder '{out.parent}' does not exist; create it first")
    require(samples >= 1, f"samples (-n) must be at least 1 a frame, got {samples}")
    require(stride >= 1, f"stride (--stride) must be at least 1, got {stride}")
    frames, times, found = read_frames(trace, top, stride)
    family_of(model)  # a file of neither kind is told as `bind` tells it
    mapper = load_backmapper(model, found, steps)
    topology, energies, minimiser = mapper.topology, [], None
    with progress_bar() as bar, AllAtomWriter(out) as writer:
        task = bar.add_task("backmapping", total=len(frames) * samples)
        for number, positions in enumerate(mapper.draw(frames, samples, seed)):
            if relax:
                if minimiser is None:
                    minimiser = RestrainedMinimiser(topology, positions, solvent, platform, stiffness)
                positions, energy = minimiser(positions)
                energies.append(energy)
            writer.write(minimiser.topology if minimiser else topology, positions, float(times[number // samples]))
            bar.advance(task)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{len(frames)} frames of {len(found.cas)} residues, {samples} samples of each", markup=False)
    if energies:
        console.print(f"energy after minimisation: median {np.median(energies):.0f}, most {max(energies):.0f} kJ/mol")
    console.print("wrote " + " and ".join(map(str, writer.paths)), markup=False)


def read_frames(path: Path, top: Path | None, stride: int) -> tuple[np.ndarray, np.ndarray, Any]:
    """Return frames of Cα (n_frames, n_residues, 3) [nm], their times (n_frames,) [ps], and the `Trace`.

    Raises
    ------
    LatentError
        A file is absent or unreadable, holds no Cα, or residues that are none of the 20.
    """
    import mdtraj

    from openmm_latent.data.readers import read_chunks
    from openmm_latent.data.traces import read_trace
    from openmm_latent.data.trajectories import load_topology

    require(path.is_file(), f"trace (--trace) {path} does not exist; check the name")
    kind = path.suffix.lower()
    require(
        kind in _MODELS | _SINGLE or top is not None,
        f"trace (--trace) {path} is a trajectory, which names no residues; give its structure by --top",
    )
    topology, positions = load_topology(path if top is None or kind in _SINGLE else top)
    if kind in _SINGLE:
        frames, times = np.asarray(positions)[None], None
    else:
        every = np.arange(topology.getNumAtoms())
        chunks = list(read_chunks(path, mdtraj.Topology.from_openmm(topology), every))
        frames = np.concatenate([chunk.positions for chunk in chunks])
        stamps = [chunk.times for chunk in chunks if chunk.times is not None]
        times = np.concatenate(stamps) if len(stamps) == len(chunks) else None
    found = read_trace(topology, frames[0])
    chosen = frames[::stride, found.cas]
    broken = np.flatnonzero(~np.isfinite(chosen).all(axis=(1, 2)))
    require(
        len(broken) == 0,
        f"trace (--trace) {path} has Cα positions that are no numbers in frames {stride * broken[:3]}; leave these out",
    )
    return chosen, (np.arange(len(frames), dtype=np.float64) if times is None else times)[::stride], found


class AllAtomWriter:
    """Writes frames to a PDB file of many models, or to an XTC file with a PDB of the first frame beside it.

    Files appear under their names once all is written.
    """

    def __init__(self, out: Path):
        self.out = out
        self.structure = out.with_suffix(".pdb") if out.suffix.lower() == ".xtc" else out
        self.paths = [out] if self.structure == out else [out, self.structure]
        self.n_written = 0

    def __enter__(self) -> AllAtomWriter:
        """Open the files."""
        from mdtraj.formats import XTCTrajectoryFile

        self.pdb = open(_part(self.structure), "w")
        self.xtc = XTCTrajectoryFile(str(_part(self.out)), "w") if len(self.paths) == 2 else None
        return self

    def write(self, topology: Any, positions: np.ndarray, time: float) -> None:
        """Write one frame: (n_atoms, 3) [nm] at a time [ps]."""
        from openmm import app, unit

        first, model = self.n_written == 0, self.n_written + 1 if self.xtc is None else None
        if first:
            app.PDBFile.writeHeader(topology, self.pdb)
        if first or self.xtc is None:
            app.PDBFile.writeModel(topology, positions * unit.nanometer, self.pdb, modelIndex=model, keepIds=True)
        if first and self.xtc is not None:
            app.PDBFile.writeFooter(topology, self.pdb)
        if self.xtc is not None:
            frame = np.asarray(positions, dtype=np.float32)[None]
            self.xtc.write(frame, time=np.array([time], dtype=np.float32), step=np.array([self.n_written], np.int32))
        self.topology, self.n_written = topology, self.n_written + 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files, and name them unless something went wrong."""
        from openmm import app

        if self.xtc is not None:
            self.xtc.close()
        elif self.n_written:
            app.PDBFile.writeFooter(self.topology, self.pdb)
        self.pdb.close()
        for path in self.paths:
            if kind is None:
                _part(path).replace(path)
            else:
                _part(path).unlink(missing_ok=True)


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")
