"""Short implicit-solvent MD of the non-redundant small proteins in ../shared/data: what transferable models learn from.

Model 1 of each file, heavy atoms only, prepared by `openmm_latent.data.generate`: amber14 + OBC2, 300 K, hydrogens of
3 amu, 4 fs. Adenylate kinase is cut into its two small domains. One structure a fold: other files of ubiquitin,
Trp-cage and chignolin are left out. Resumable; a longer --duration goes on with what is there.

    python benchmarks/small_proteins.py [--duration 100] [--names villin ubiquitin]
"""

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

from openmm import app
from results import shared_data

from openmm_latent.data.generate import GenerateConfig, generate

OUT = Path(__file__).parents[1] / "benchmark_output" / "small_proteins"
FRAME_SPACING = 0.5  # [ps]


@dataclass(frozen=True)
class Protein:
    """One protein and where its structure lies."""

    name: str
    file: str  # below ../shared/data
    residues: tuple[int, int] | None = None  # first and last number in the file, where a domain is cut out
    is_free: bool = True  # so that weights learned from its MD may be shipped


#: By number of atoms, the smallest first.
PROTEINS = (
    Protein("chignolin", "pdb/CLN025.pdb"),
    Protein("trp_cage", "pdb/2JOF.pdb"),
    Protein("bba", "pdb/1FME.pdb"),
    Protein("villin", "pdb/2F4K.pdb"),
    Protein("adk_nmp", "adk/adk_open.pdb", (30, 67)),
    Protein("atlas_7lp1", "atlas/7lp1_A.pdb", is_free=False),
    Protein("adk_lid", "adk/adk_open.pdb", (118, 161)),
    Protein("ph75_1hgv", "timewarp/1hgv-traj-state0.pdb"),
    Protein("atlas_7jfl", "atlas/7jfl_C.pdb", is_free=False),
    Protein("atlas_6okd", "atlas/6okd_C.pdb", is_free=False),
    Protein("bpti", "bpti/bpti_top.pdb"),
    Protein("bbflow60", "bbflow60/equilibrium.pdb"),
    Protein("ubiquitin", "pdb/pdb1ubi.pdb"),
)


def structure(protein: Protein) -> Path:
    """Write the heavy atoms of one protein as a PDB file, once; return its path."""
    path = OUT / "structures" / f"{protein.name}.pdb"
    if not path.exists():
        read = app.PDBFile(str(shared_data(protein.file.split("/")[0]) / protein.file.split("/")[1]))
        modeller = app.Modeller(read.topology, read.positions)
        first, last = protein.residues or (-(10**6), 10**6)
        modeller.delete(
            [
                atom
                for atom in read.topology.atoms()
                if atom.element is None or atom.element.symbol == "H" or not first <= int(atom.residue.id) <= last
            ]
        )
        modeller.topology.setPeriodicBoxVectors(None)  # stripped of their solvent, some files kept a box
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as out:
            app.PDBFile.writeFile(modeller.topology, modeller.positions, out)
    return path


def trajectory(protein: Protein, duration: float) -> tuple[Path, list[Path]]:
    """Return topology and trajectories of one protein, run for `duration` [ps] if they are not there yet."""
    config = GenerateConfig(
        duration=duration,
        frame_spacing=FRAME_SPACING,
        equilibration=10.0,
        timestep=0.004,
        hydrogen_mass=3.0,
        remove_heterogens=True,
    )
    folder = OUT / protein.name
    files = generate(structure(protein), folder, config, platform="CPU")
    return folder / f"{protein.name}.pdb", files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--duration", type=float, default=100.0, help="[ps] of each protein")
    parser.add_argument("--names", nargs="*", default=[protein.name for protein in PROTEINS])
    options = parser.parse_args()
    os.environ.setdefault("OPENMM_CPU_THREADS", "1")  # processes scale better than threads at this size
    for protein in (protein for protein in PROTEINS if protein.name in options.names):
        began = time.process_time()
        top, _ = trajectory(protein, options.duration)
        print(f"{protein.name}: {top}, {time.process_time() - began:.0f} CPU-s", flush=True)


if __name__ == "__main__":
    main()
