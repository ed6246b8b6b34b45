"""A PDB file made ready for MD: missing atoms, hydrogens, and a water box where one is asked for."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from openmm import Platform, app, unit

from openmm_latent.data.forcefields import force_field
from openmm_latent.errors import LatentError, require
from openmm_latent.topology import SOLVENT

#: Terminal caps, which pdbfixer would take for foreign residues.
_CAPS = frozenset({"ACE", "NME", "NMA", "NHE", "NH2"})


@dataclass(frozen=True)
class Prepared:
    """A structure that the force field covers.

    Attributes
    ----------
    topology : openmm.app.Topology
    positions : np.ndarray
        (n_atoms, 3) [nm]
    notes : list of str
        What was changed, for the provenance.
    """

    topology: app.Topology
    positions: np.ndarray
    notes: list[str]


def prepare(
    pdb: str | Path,
    *,
    solvent: str = "obc2",
    ph: float = 7.0,
    seed: int = 1,
    remove_heterogens: bool = False,
    padding: float = 1.2,
    ionic_strength: float = 0.15,
) -> Prepared:
    """Complete a PDB file with pdbfixer.

    Crystal water and ions go; missing atoms and inner loops named in SEQRES come; residues such as selenomethionine
    become their standard parent. Hydrogens stay as they are where the force field knows every residue with them;
    otherwise (hydrogens missing, or neutral termini, which amber14 does not have) all are rebuilt for the pH.

    Parameters
    ----------
    pdb : path
    solvent : str
        "obc2", "vacuum" or "tip3p"; the last adds a water box.
    ph : float
    seed : int
        Of the places where pdbfixer starts its own small minimisations.
    remove_heterogens : bool
        Leave out ligands and additives instead of refusing them.
    padding : float
        [nm] of water between a solute and its next image.
    ionic_strength : float
        [mol/l]

    Raises
    ------
    LatentError
        The file is absent or unreadable, or holds residues that the force field does not know.
    """
    from pdbfixer import PDBFixer

    path = Path(pdb)
    require(path.is_file(), f"PDB file {path} does not exist; check the name")
    field = force_field(solvent)
    try:
        kind = "pdbxfile" if path.suffix.lower() in {".cif", ".mmcif", ".pdbx"} else "pdbfile"
        with open(path) as handle:
            fixer = PDBFixer(**{kind: handle}, platform=Platform.getPlatform("Reference"))
    except Exception as error:  # the parser raises whatever the broken line makes it raise
        raise LatentError(f"PDB file {path} cannot be read ({' '.join(str(error).split())[:160]})") from error
    require(
        fixer.topology.getNumAtoms() > 0, f"PDB file {path} has no atoms; give the structure of a protein or peptide"
    )
    notes: list[str] = []
    with _seeded(seed):
        _standardise(fixer, path, remove_heterogens, notes)
        _complete(fixer, seed, notes)
        _add_hydrogens(fixer, field, ph, notes)
        modeller = app.Modeller(fixer.topology, fixer.positions)
        if solvent == "tip3p":
            modeller.addSolvent(
                field, model="tip3p", padding=padding * unit.nanometer, ionicStrength=ionic_strength * unit.molar
            )
            notes.append(f"water box with {padding:g} nm padding and {ionic_strength:g} mol/l NaCl added")
        else:
            modeller.topology.setPeriodicBoxVectors(None)
    unknown = field.getUnmatchedResidues(modeller.topology)
    require(
        not unknown,
        f"PDB file {path} holds residues that the force field does not know: "
        f"{', '.join(sorted({f'{r.name} {r.id}' for r in unknown})[:5])}; remove them or rename their atoms",
    )
    return Prepared(modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer)), notes)


def _standardise(fixer, path: Path, remove_heterogens: bool, notes: list[str]) -> None:
    """Replace residues that have a standard parent; drop water and ions; refuse, or drop, what is foreign."""
    from pdbfixer.pdbfixer import dnaResidues, proteinResidues, rnaResidues

    fixer.findNonstandardResidues()
    for residue, parent in fixer.nonstandardResidues:
        notes.append(f"{residue.name} {residue.id} replaced by {parent}")
    fixer.replaceNonstandardResidues()
    known = set(proteinResidues) | set(dnaResidues) | set(rnaResidues) | _CAPS
    known |= {"HID", "HIE", "HIP", "CYX", "CYM", "ASH", "GLH", "LYN", "HSD", "HSE", "HSP"}
    residues = list(fixer.topology.residues())
    solvent = [r for r in residues if r.name in SOLVENT]
    foreign = [r for r in residues if r.name not in known and r not in solvent]
    require(
        remove_heterogens or not foreign,
        f"PDB file {path} holds residues that are no protein or nucleic acid: "
        f"{', '.join(sorted({f'{r.name} {r.id}' for r in foreign})[:5])}; "
        f"remove them from the file, or leave them out with --remove-heterogens",
    )
    require(
        len(solvent) + len(foreign) < len(residues),
        f"PDB file {path} holds only water, ions and ligands; give the structure of a protein or peptide",
    )
    gone = solvent + foreign
    if gone:
        modeller = app.Modeller(fixer.topology, fixer.positions)
        modeller.delete(gone)
        fixer.topology, fixer.positions = modeller.topology, modeller.positions
        notes.append(f"{len(gone)} residues removed: {', '.join(sorted({r.name for r in gone}))}")


def _complete(fixer, seed: int, notes: list[str]) -> None:
    """Add missing heavy atoms and loops inside chains; missing ends of chains stay missing."""
    fixer.findMissingResidues()
    lengths = [len(list(chain.residues())) for chain in fixer.topology.chains()]
    fixer.missingResidues = {
        (chain, place): names for (chain, place), names in fixer.missingResidues.items() if 0 < place < lengths[chain]
    }
    for (chain, place), names in fixer.missingResidues.items():
        notes.append(f"loop {'-'.join(names)} modelled in chain {chain} after residue {place}: check it")
    fixer.findMissingAtoms()
    n_before = fixer.topology.getNumAtoms()
    fixer.addMissingAtoms(seed=seed)
    if fixer.topology.getNumAtoms() > n_before:
        notes.append(f"{fixer.topology.getNumAtoms() - n_before} missing heavy atoms added")


def _add_hydrogens(fixer, field: app.ForceField, ph: float, notes: list[str]) -> None:
    if not field.getUnmatchedResidues(fixer.topology):
        notes.append("hydrogens kept as in the file")
        return
    modeller = app.Modeller(fixer.topology, fixer.positions)
    hydrogens = [atom for atom in modeller.topology.atoms() if atom.element is not None and atom.element.symbol == "H"]
    modeller.delete(hydrogens)
    fixer.topology, fixer.positions = modeller.topology, modeller.positions
    fixer.addMissingHydrogens(ph, forcefield=field)
    notes.append(f"hydrogens rebuilt for pH {ph:g} ({len(hydrogens)} in the file)")


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed Python's `random`, which OpenMM's Modeller draws from, and put its state back afterwards."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
