"""`openmm-latent sample`: independent conformations from a bundle, or a trajectory in time order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console

from openmm_latent.cli.backmap import AllAtomWriter
from openmm_latent.cli.common import PlatformOption, SeedOption, progress_bar
from openmm_latent.errors import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from openmm import System, app

    from openmm_latent.bundle import Bundle
    from openmm_latent.data.restrained import Relaxation, RestrainedMinimiser

ModelOption = Annotated[Path, typer.Option(help="The bundle, e.g. protein.latent.pt.")]
OutOption = Annotated[Path, typer.Option(help="frames.xtc (with frames.pdb beside it) or frames.pdb.")]
RelaxOption = Annotated[
    bool, typer.Option("--relax", help="Add hydrogens and minimise each frame with OpenMM, its Cα atoms held.")
]
StiffnessOption = Annotated[float, typer.Option(help="[kJ/mol/nm^2] with which --relax holds each Cα.")]
RelaxSolventOption = Annotated[str, typer.Option(help="Of --relax: obc2 or vacuum.")]
WholeOption = Annotated[
    Path | None,
    typer.Option(
        "--top", help="All atoms of a complex: its ligands' bonds are written, too.", show_default="the model's atoms"
    ),
]
CoordinatesOption = Annotated[
    Path | None,
    typer.Option(help="Positions, where --top has none: inpcrd, rst7, gro, PDB.", show_default="those of --top"),
]
RelaxSystemOption = Annotated[
    Path | None,
    typer.Option(
        "--system",
        help="System of --top, .xml or Amber .prmtop, with which --relax minimises a complex.",
        show_default="amber14, which knows no ligands",
    ),
]

#: What can be written.
_FORMATS = (".xtc", ".pdb")


def sample(
    model: ModelOption,
    out: OutOption,
    n: Annotated[int, typer.Option("-n", "--n", help="Frames; of a trajectory with the start among them.")] = 250,
    trajectory: Annotated[
        bool, typer.Option("--trajectory", help="Frames in time order, jump after jump, instead of independent ones.")
    ] = False,
    start: Annotated[
        Path | None,
        typer.Option(
            help="Structure from which --trajectory starts, with the model's atoms.",
            show_default="the structure in the bundle",
        ),
    ] = None,
    fill: Annotated[
        bool | None,
        typer.Option(
            help="--trajectory: draw the frames between two jumps, too (atmos).", show_default="if the model can"
        ),
    ] = None,
    relax: RelaxOption = False,
    stiffness: StiffnessOption = 10_000.0,
    solvent: RelaxSolventOption = "obc2",
    top: WholeOption = None,
    coordinates: CoordinatesOption = None,
    system: RelaxSystemOption = None,
    seed: SeedOption = 1,
    platform: PlatformOption = None,
) -> None:
    """Draw independent conformations, or with --trajectory frames in time order, without any MD.

    Model atoms are written as the model has them: independent frames put onto the structure that it was bound to, those
    of a trajectory each onto the one before, a lag time apart, or less where the frames between two jumps are drawn. No
    frame is Boltzmann: for averages, start MD from them and reweight it.

    **Examples**

    - `openmm-latent sample --model protein.latent.pt --n 250 --out frames.xtc`

    - `openmm-latent sample --model protein.latent.pt --n 50 --out frames.pdb --relax`

    - `openmm-latent sample --model complex.latent.pt --trajectory -n 400 --start complex.pdb --out traj.xtc`

    - `openmm-latent sample --model complex.latent.pt --trajectory -n 400 --out traj.xtc --top complex.pdb --system
      complex.xml --relax`
    """
    from openmm_latent.conformations import load_able, sample_conformations

    require_out(out)
    least = 2 if trajectory else 1
    require(n >= least, f"n (--n) must be at least {least}, got {n}; 250 are usual")
    given = [name for name, value in (("--start", start), ("--fill", fill)) if value is not None]
    require(trajectory or not given, f"{' and '.join(given)} is for frames in time order; give --trajectory, too")
    whole = read_whole(top, coordinates, system, Relaxing(stiffness, solvent, platform) if relax else None)
    if trajectory:
        bundle, frames, spacing = _trajectory(model, n, start, fill, seed)
        what = f"{n} frames of {len(bundle.manifest.atoms)} atoms in time order, {spacing:g} ps apart"
    else:
        bundle, spacing = load_able(model, "sample"), 1.0
        frames = sample_conformations(bundle, n, seed)
        what = f"{n} conformations of {len(bundle.manifest.atoms)} atoms"
    done = write_frames(frames, n, bundle, out, spacing, whole)
    tell(what, done, out)


def _trajectory(
    model: Path, n: int, start: Path | None, fill: bool | None, seed: int
) -> tuple[Bundle, Iterable[np.ndarray], float]:
    """Return the bundle, its frames in time order, and the time between them [ps]."""
    from openmm_latent.conformations import fine_time, load_able, read_model_atoms, sample_trajectory

    bundle = load_able(model, "fill" if fill else "jump")
    manifest = bundle.manifest
    begun = None if start is None else read_model_atoms(start, manifest, bundle.name, "start (--start)")
    is_filled = fill is not False and "fill" in manifest.capabilities
    frames = sample_trajectory(bundle, n, begun, seed, is_filled)
    return bundle, frames, fine_time(manifest) if is_filled else manifest.lag_time


def require_out(out: Path) -> None:
    """Refuse a file that cannot be written."""
    require(
        out.suffix.lower() in _FORMATS,
        f"out (--out) must end in {' or '.join(_FORMATS)}, got {out.name!r}; the topology goes beside an XTC file",
    )
    require(out.parent.is_dir(), f"out (--out): the folder '{out.parent}' does not exist; create it first")


@dataclass(frozen=True)
class Relaxing:
    """How --relax minimises: stiffness [kJ/mol/nm^2] of the restraints, solvent, and platform."""

    stiffness: float
    solvent: str
    platform: str | None


@dataclass(frozen=True)
class Whole:
    """What is known of all atoms of what is drawn, and whether frames are minimised.

    Attributes
    ----------
    topology : openmm.app.Topology or None
        Of --top.
    positions : ndarray or None
        (n_atoms, 3) [nm] of --top or --coordinates
    system : openmm.System or None
        Of --system.
    relaxing : Relaxing or None
    """

    topology: app.Topology | None
    positions: np.ndarray | None
    system: System | None
    relaxing: Relaxing | None

    def minimiser(self, bundle: Bundle) -> tuple[RestrainedMinimiser, Callable[[np.ndarray], np.ndarray]]:
        """Return what minimises a bundle's frames, and what brings these into the order and place that it wants."""
        from openmm_latent.conformations import model_topology
        from openmm_latent.data.restrained import RestrainedMinimiser
        from openmm_latent.geometry import superpose
        from openmm_latent.topology import match_atoms

        assert self.relaxing is not None  # for mypy: asked for alone
        how, manifest = self.relaxing, bundle.manifest
        if self.system is None:
            structure = np.asarray(manifest.reference_positions)
            made = RestrainedMinimiser(
                model_topology(manifest, self.topology), structure, how.solvent, how.platform, how.stiffness
            )
            return made, lambda frame: frame
        assert self.topology is not None  # for mypy: both are read with the System
        assert self.positions is not None
        places = np.array(match_atoms(manifest.atoms, self.topology, f"bundle '{bundle.name}'"))
        atoms = list(self.topology.atoms())
        heavy = {atom.index for atom in atoms if atom.element is not None and atom.element.symbol != "H"}
        unseen = sorted(heavy - set(places.tolist()))
        require(
            not unseen and len(heavy) == len(places),
            f"--relax wants a System of the model's heavy atoms and their hydrogens, but bundle '{bundle.name}' "
            + (
                f"knows nothing of {atoms[unseen[0]].name} of residue {atoms[unseen[0]].residue.name} and "
                f"{len(unseen) - 1} other heavy atoms of --top; leave these out of --top and --system"
                if unseen
                else "has hydrogens of its own; train one on heavy atoms"
            ),
        )
        made = RestrainedMinimiser(
            self.topology, self.positions, platform=how.platform, stiffness=how.stiffness, system=self.system
        )
        order, there = np.argsort(places), self.positions[np.sort(places)]
        return made, lambda frame: superpose(np.asarray(frame, dtype=np.float64)[order], there)  # for springs to places


def read_whole(top: Path | None, coordinates: Path | None, system: Path | None, relaxing: Relaxing | None) -> Whole:
    """Read --top, --coordinates and --system, as far as they are given, and refuse those that mean nothing."""
    if top is None:
        alone = [name for name, value in (("--coordinates", coordinates), ("--system", system)) if value is not None]
        require(not alone, f"{' and '.join(alone)} is of all atoms of a complex; give its structure by --top, too")
        return Whole(None, None, None, relaxing)
    from openmm_latent.data.complex_files import read_positions, read_system
    from openmm_latent.data.trajectories import load_topology

    topology, positions = load_topology(top)
    if coordinates is not None:
        positions = read_positions(coordinates, topology)
    if system is None:
        return Whole(topology, positions, None, relaxing)
    require(
        relaxing is not None, "system (--system) is what --relax minimises with; give --relax, too, or leave it out"
    )
    require(
        positions is not None,
        f"top (--top) {top} has no positions, which --relax needs of hydrogens; give them by --coordinates",
    )
    assert relaxing is not None  # for mypy: required above
    require(
        relaxing.solvent in ("obc2", "vacuum"),
        f"solvent (--solvent) must be obc2 or vacuum, of a System made from a prmtop, got {relaxing.solvent!r}",
    )
    return Whole(topology, positions, read_system(system, topology, relaxing.solvent), relaxing)


def write_frames(
    frames: Iterable[np.ndarray], n_frames: int, bundle: Bundle, out: Path, spacing: float, whole: Whole
) -> list[Relaxation]:
    """Write frames (n_atoms, 3) [nm] so many ps apart, minimised if asked; return what minimisation did.

    Frames that minimisation leaves unsound are pulled from the last sound one, at first the structure to which the
    model was bound.
    """
    from openmm_latent.conformations import model_topology

    topology, done = model_topology(bundle.manifest, whole.topology), []
    with progress_bar() as bar, AllAtomWriter(out) as writer:
        task = bar.add_task("drawing", total=n_frames)
        if whole.relaxing is not None:
            minimiser, placed = whole.minimiser(bundle)
            topology = minimiser.topology
            minimiser.relax(placed(np.asarray(bundle.manifest.reference_positions)))  # what frames may be pulled from
        for number, positions in enumerate(frames):
            if whole.relaxing is not None:
                done.append(minimiser.relax(placed(positions), may_pull=True))
                positions = done[-1].positions
            writer.write(topology, positions, number * spacing)
            bar.advance(task)
    return done


def tell(what: str, done: list[Relaxation], out: Path) -> None:
    """Print what was drawn, what minimisation did, and where the files are."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(what, markup=False)
    if done:
        energies = [one.energy for one in done]
        console.print(
            f"energy after minimisation: median {np.median(energies):.0f}, most {max(energies):.0f} kJ/mol\n"
            f"largest move of a heavy atom: median {np.median([one.largest_move for one in done]):.3f} nm\n"
            f"clashes a frame: {np.mean([one.clashes_before for one in done]):.2f} before, "
            f"{np.mean([one.clashes for one in done]):.2f} after"
        )
        pulled, unsound = sum(one.is_pulled for one in done), sum(not one.is_sound for one in done)
        if pulled:
            console.print(
                f"{pulled} of {len(done)} frames stayed unsound, and were replaced by the sound one before, pulled "
                f"towards their Cα atoms as far as its bonds allow: train longer, or on more like them"
            )
        if unsound:
            console.print(f"{unsound} of {len(done)} frames are not sound: bonds, hands or peptide bonds are broken")
    paths = [out] if out.suffix.lower() == ".pdb" else [out, out.with_suffix(".pdb")]
    console.print("wrote " + " and ".join(map(str, paths)), markup=False)
