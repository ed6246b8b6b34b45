"""mdCATH: CATH domains at five temperatures with five replicas each, one HDF5 file a domain.

| path in the file | shape, unit | used |
|---|---|---|
| `<domain>` | group, attributes numProteinAtoms, numResidues, numChains | |
| `<domain>/pdbProteinAtoms` | PDB text of the n_atoms atoms in the frames | topology |
| `<domain>/psf` | PSF text of the whole system | bonds |
| `<domain>/pdb` | PDB text of the whole system | no |
| `<domain>/chain`, `element`, `resid`, `resname`, `z` | (n_atoms,) | checked against the PDB |
| `<domain>/320` ... `450` | groups, the temperature in K | runs |
| `<domain>/320/0` ... `4` | groups, replicas, attribute numFrames | runs |
| `.../coords` | (n_frames, n_atoms, 3) [Å] float | frames |
| `.../box` | (3, 3) [nm] | images |
| `.../forces` | (n_frames, n_atoms, 3) [kcal/mol/Å] | no |
| `.../dssp`, `gyrationRadius`, `rmsd`, `rmsf` | per frame or residue | no |

A frame is 1 ns; the file has no time stamps. CHARMM36m in TIP3P water.
Source: `user/1_inspect_content.ipynb` (layout `mdcath-only-protein-v1.0`), `user-utils/convert_mdCATH.py` and
`builder/molAnalyzer.py` of compsciencelab/mdCATH; Mirarchi, Giorgino and De Fabritiis, Scientific Data 11 (2024) 1299.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from openmm import app, unit

from openmm_latent.data.datasets import Entry, Run
from openmm_latent.data.random_access import open_hdf5, read_dataset
from openmm_latent.data.readers import reading
from openmm_latent.errors import LatentError, require

LICENCE = "CC BY 4.0 (mdCATH, as its data card says; earlier versions of the card said CC BY-ND 4.0)"
FRAME_SPACING = 1000.0  # [ps]
_PREFIX = "mdcath_dataset_"
#: What a group must hold to be a domain of mdCATH.
MARK = "pdbProteinAtoms"


@dataclass(frozen=True)
class MdcathEntry(Entry):
    """One domain of mdCATH."""

    frame_spacing: float = FRAME_SPACING

    @property
    def protein(self) -> str:
        """The PDB id: domains of one chain are not independent."""
        return self.name[:4].lower()

    @property
    def files(self) -> list[Path]:
        """The one file."""
        return [self.path]

    @property
    def provenance(self) -> dict[str, str]:
        """What all of mdCATH was made with."""
        return {"force_field": "CHARMM36m + TIP3P"}

    @property
    def notes(self) -> list[str]:
        """Whether bonds could be taken from the PSF."""
        with reading(self.path, "mdCATH file"):
            bonds = _psf_bonds(self._text("psf"), _records(self._text(MARK)))
        return [] if bonds else [f"{self.name}: the PSF does not match; bonds are those of standard residues"]

    def read_structure(self) -> tuple[app.Topology, np.ndarray | None]:
        """Read `pdbProteinAtoms`, check it against the atom tables, and take bonds from the PSF."""
        with reading(self.path, "mdCATH file"):
            text = self._text(MARK)
            loaded = app.PDBFile(io.StringIO(text))
            topology = loaded.topology
            self._require_atoms(topology)
            bonds = _psf_bonds(self._text("psf"), _records(text))
        positions = np.array(loaded.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        return (_with_bonds(topology, bonds) if bonds else topology), positions

    def list_runs(self) -> tuple[Run, ...]:
        """List temperatures and replicas, checking the shape of `coords`."""
        n_atoms = self.topology.getNumAtoms()
        runs = []
        with reading(self.path, "mdCATH file"):
            domain = self._domain()
            temperatures = sorted((key for key in domain if key.isdigit()), key=int)
            for temperature in temperatures:
                for replica in sorted(domain[temperature], key=int):
                    name = f"{temperature}/{replica}"
                    shape = domain[name]["coords"].shape
                    require(
                        len(shape) == 3 and shape[1:] == (n_atoms, 3),
                        f"mdCATH file {self.path} has coords of shape {shape} in {name}, expected (n_frames, "
                        f"{n_atoms}, 3) by its {MARK}; the file is damaged or not mdCATH",
                    )
                    runs.append(Run(name, int(shape[0]), self.frame_spacing, float(temperature), self.path))
        return tuple(runs)

    def read_frames(self, run: Run, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Read frames; the box is one for the whole run."""
        with reading(self.path, "mdCATH file"):
            replica = self._domain()[run.name]
            positions = read_dataset(replica["coords"], frames)
            box = np.asarray(replica["box"][()], dtype=float) if "box" in replica else np.zeros((3, 3))
        positions /= 10.0
        is_box = box.shape == (3, 3) and bool(np.all(np.diagonal(box) > 0))
        return positions, np.broadcast_to(box, (len(frames), 3, 3)) if is_box else None

    def _domain(self) -> Any:
        """Return the HDF5 group of the domain."""
        store = open_hdf5(self.path)
        name = self.name if self.name in store else next(iter(store), "")
        is_domain = name in store and hasattr(store[name], "keys") and MARK in store[name]
        require(
            is_domain,
            f"HDF5 file {self.path} is not mdCATH: it has no group with {MARK}; leave it out of the folder",
        )
        return store[name]

    def _text(self, key: str) -> str:
        domain = self._domain()
        return domain[key][()].decode() if key in domain else ""

    def _require_atoms(self, topology: app.Topology) -> None:
        """Compare the PDB with the tables of elements and residues that the file has beside it."""
        domain, atoms = self._domain(), list(topology.atoms())
        for key in ("z", "resid"):
            require(
                key not in domain or len(domain[key]) == len(atoms),
                f"mdCATH file {self.path} names {len(domain[key]) if key in domain else 0} atoms in its table {key} "
                f"and {len(atoms)} in {MARK}; the file is damaged",
            )
        if "z" in domain:
            told = np.asarray(domain["z"][()])
            read = np.array([0 if atom.element is None else atom.element.atomic_number for atom in atoms])
            wrong = np.flatnonzero(told != read)
            if len(wrong):
                atom = atoms[wrong[0]]
                raise LatentError(
                    f"mdCATH file {self.path} has atomic number {told[wrong[0]]} in its table z for atom {atom.index}, "
                    f"which {MARK} calls {atom.name} of {atom.residue.name} {atom.residue.id}; the file is damaged"
                )


def mdcath_entries(path: Path, frame_spacing: float | None = None) -> tuple[MdcathEntry, ...]:
    """List the domains in a folder (or its folder `data`, as downloaded) or in one file, by file name."""
    files = [path] if path.is_file() else sorted([*path.glob("*.h5"), *path.glob("data/*.h5")])
    found = [
        (file.stem.removeprefix(_PREFIX), file) for file in files if path.is_file() or file.stem.startswith(_PREFIX)
    ]
    return tuple(MdcathEntry(name, file, frame_spacing or FRAME_SPACING) for name, file in sorted(found))


def _records(pdb: str) -> list[tuple[str, str, str]]:
    """Return residue number, residue name and atom name of each atom of a PDB text, as written."""
    return [
        (line[22:27].strip(), line[17:21].strip(), line[12:16].strip())
        for line in pdb.splitlines()
        if line.startswith(("ATOM", "HETATM"))
    ]


def _psf_bonds(psf: str, records: list[tuple[str, str, str]]) -> list[tuple[int, int]]:
    """Return the bonds of a PSF text among its first atoms; [] if those are not the atoms of the PDB."""
    lines = iter(psf.splitlines())
    atoms: list[tuple[str, str, str]] = []
    for line in lines:
        if "!NATOM" in line:
            for _, record in zip(records, lines, strict=False):
                columns = record.split()
                atoms.append((columns[2], columns[3], columns[4]) if len(columns) > 4 else ("", "", ""))
        elif "!NBOND" in line:
            break
    if not records or [atom[::2] for atom in atoms] != [record[::2] for record in records]:
        return []
    numbers: list[int] = []
    for line in lines:
        if "!" in line or not line.strip():
            break
        numbers += [int(number) - 1 for number in line.split()]
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return [(a, b) for a, b in pairs if a < len(records) and b < len(records)]


def _with_bonds(topology: app.Topology, bonds: list[tuple[int, int]]) -> app.Topology:
    """Copy a topology with other bonds."""
    copy = app.Topology()
    copy.setPeriodicBoxVectors(topology.getPeriodicBoxVectors())
    atoms = []
    for chain in topology.chains():
        new_chain = copy.addChain(chain.id)
        for residue in chain.residues():
            new_residue = copy.addResidue(residue.name, new_chain, residue.id, residue.insertionCode)
            atoms += [copy.addAtom(atom.name, atom.element, new_residue, atom.id) for atom in residue.atoms()]
    for a, b in bonds:
        copy.addBond(atoms[a], atoms[b])
    return copy
