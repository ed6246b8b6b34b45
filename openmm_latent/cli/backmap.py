"""`openmm-latent backmap`: all heavy atoms, and hydrogens, for Cα traces."""

from __future__ import annotations

import csv
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console

from openmm_latent.cli.bind import family_of
from openmm_latent.cli.common import PlatformOption, SeedOption, progress_bar
from openmm_latent.errors import require

if TYPE_CHECKING:
    from openmm_latent.data.restrained import Relaxation
    from openmm_latent.data.traces import Trace

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
    disulphides: Annotated[
        str | None,
        typer.Option(
            help="Bonded cysteines, such as A:3-A:40,A:14-A:26, or none.", show_default="those that the file tells"
        ),
    ] = None,
    relax: Annotated[
        bool,
        typer.Option(
            "--relax", help="Add hydrogens and minimise with OpenMM, the Cα atoms held; a CSV file tells what it did."
        ),
    ] = False,
    stiffness: Annotated[float, typer.Option(help="[kJ/mol/nm^2] with which --relax holds each Cα.")] = 10_000.0,
    solvent: Annotated[str, typer.Option(help="Of --relax: obc2 or vacuum.")] = "obc2",
    seed: SeedOption = 1,
    platform: PlatformOption = None,
) -> None:
    """Draw all heavy atoms on Cα traces, several samples a frame if asked.

    The sequence is that of the trace's residue names; chains may be many. Other atoms are passed over, so an all-atom
    file works, too; but caps (ACE, NME, NH2) are built, and cysteines are bonded whose SG are near in the file or that
    its SSBOND records name. Time stamps are those of the trace.

    **Examples**

    - `openmm-latent backmap --trace ca.pdb --model codlad.weights.pt --out all_atom.pdb`

    - `openmm-latent backmap --trace cg.xtc --top cg.pdb --model codlad.weights.pt --out all_atom.xtc -n 10 --relax`

    - `openmm-latent backmap --trace ca.pdb --model codlad.weights.pt --out all_atom.pdb --disulphides A:3-A:40`
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
    frames, times, found = read_frames(trace, top, stride, disulphides)
    family_of(model)  # a file of neither kind is told as `bind` tells it
    mapper = load_backmapper(model, found, steps)
    topology, minimiser, done = mapper.topology, None, []
    with progress_bar() as bar, AllAtomWriter(out) as writer:
        task = bar.add_task("backmapping", total=len(frames) * samples)
        for number, positions in enumerate(mapper.draw(frames, samples, seed)):
            if relax:
                if minimiser is None:
                    minimiser = RestrainedMinimiser(topology, positions, solvent, platform, stiffness)
                done.append(minimiser.relax(positions))
                positions = done[-1].positions
            writer.write(minimiser.topology if minimiser else topology, positions, float(times[number // samples]))
            bar.advance(task)
    bridges = f" with {len(found.disulphides)} disulphides" if len(found.disulphides) else ""
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{len(frames)} frames of {len(found.cas)} residues{bridges}, {samples} samples of each", markup=False
    )
    paths = list(writer.paths)
    if done:
        energies = [one.energy for one in done]
        console.print(
            f"energy after minimisation: median {np.median(energies):.0f}, most {max(energies):.0f} kJ/mol\n"
            f"largest move of a heavy atom: median {np.median([one.largest_move for one in done]):.3f} nm\n"
            f"clashes a sample: {np.mean([one.clashes_before for one in done]):.2f} before, "
            f"{np.mean([one.clashes for one in done]):.2f} after"
        )
        paths.append(_write_table(out.with_name(out.stem + ".relax.csv"), done, samples, times))
    console.print("wrote " + " and ".join(map(str, paths)), markup=False)


def _write_table(path: Path, done: list[Relaxation], samples: int, times: np.ndarray) -> Path:
    """Write what minimisation did, a row a sample; times (n_frames,) [ps]."""
    with open(path, "w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(
            "time_ps sample energy_before_kJ_mol energy_kJ_mol largest_move_nm clashes_before clashes".split()
        )
        for number, one in enumerate(done):
            energies = f"{one.energy_before:.6g}", f"{one.energy:.2f}"
            counts = f"{one.largest_move:.4f}", one.clashes_before, one.clashes
            table.writerow([f"{times[number // samples]:g}", number % samples + 1, *energies, *counts])
    return path


def read_frames(
    path: Path, top: Path | None, stride: int, disulphides: str | None = None
) -> tuple[np.ndarray, np.ndarray, Trace]:
    """Return frames of Cα (n_frames, n_residues, 3) [nm], their times (n_frames,) [ps], and the `Trace`.

    Disulphides are those that are given, "none" for none; unless given, those that the file's SG or records tell.

    Raises
    ------
    LatentError
        A file is absent or unreadable, holds no Cα, or residues that are none of the 20; or disulphides do not fit.
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
    named = path if top is None or kind in _SINGLE else top
    topology, positions = load_topology(named)
    if kind in _SINGLE:
        frames, times = np.asarray(positions)[None], None
    else:
        every = np.arange(topology.getNumAtoms())
        chunks = list(read_chunks(path, mdtraj.Topology.from_openmm(topology), every))
        frames = np.concatenate([chunk.positions for chunk in chunks])
        stamps = [chunk.times for chunk in chunks if chunk.times is not None]
        times = np.concatenate(stamps) if len(stamps) == len(chunks) else None
    found = _with_bridges(read_trace(topology, frames[0]), frames[0], named, disulphides)
    chosen = frames[::stride, found.cas]
    broken = np.flatnonzero(~np.isfinite(chosen).all(axis=(1, 2)))
    require(
        len(broken) == 0,
        f"trace (--trace) {path} has Cα positions that are no numbers in frames {stride * broken[:3]}; leave these out",
    )
    return chosen, (np.arange(len(frames), dtype=np.float64) if times is None else times)[::stride], found


def _with_bridges(found: Trace, first: np.ndarray, named: Path, disulphides: str | None) -> Trace:
    """Return a trace with the disulphides of `read_frames`; first (n_atoms, 3) [nm], `named` names the residues."""
    from openmm_latent.data.disulphides import read_bridges, ssbond_records

    if disulphides is not None:
        return found.bridged([] if disulphides.strip() == "none" else read_bridges(disulphides), first[found.cas])
    if len(found.disulphides) or named.suffix.lower() not in {".pdb", ".ent"}:
        return found
    there = set(found.labels)  # records stay in a file when a chain is cut off
    return found.bridged([pair for pair in ssbond_records(named) if set(pair) <= there], first[found.cas])


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
