"""A PDB file made ready for MD: missing atoms, hydrogens, and a water box where one is asked for."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from openmm import Platform, app, unit
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from openmm_latent.data.backbone import residue_frames
from openmm_latent.data.forcefields import force_field
from openmm_latent.errors import LatentError, require
from openmm_latent.topology import CAPS, SOLVENT

_BACKBONE = frozenset({"N", "CA", "C", "O", "OXT"})
#: A side chain's atoms want no more room than this [nm].
_ROOM = 0.35


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
    known = set(proteinResidues) | set(dnaResidues) | set(rnaResidues) | CAPS  # pdbfixer would take caps for foreign
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
    given = set(_wrong_hands(fixer))
    fixer.addMissingAtoms(seed=seed)
    if fixer.topology.getNumAtoms() > n_before:
        notes.append(f"{fixer.topology.getNumAtoms() - n_before} missing heavy atoms added")
    _mend_hands(fixer, given, notes)


def _wrong_hands(fixer) -> dict[tuple[int, str, str], app.topology.Residue]:
    """Find residues with a stereocentre, CA or CB, of another hand than in pdbfixer's template, by chain and number."""
    positions = np.array(fixer.positions.value_in_unit(unit.nanometer))
    found = {}
    for residue in fixer.topology.residues():
        place = {atom.name: positions[atom.index] for atom in residue.atoms()}
        standard = _template(fixer, residue.name)
        for centre in (("N", "CA", "C", "CB"), ("CA", "CB", "CG2", "CG1" if residue.name == "ILE" else "OG1")):
            if place.keys() >= set(centre) and standard.keys() >= set(centre):
                volumes = [_volume(*(one[name] for name in centre)) for one in (place, standard)]
                if volumes[0] * volumes[1] < 0:
                    found[residue.chain.index, residue.id, residue.insertionCode] = residue
    return found


def _mend_hands(fixer, given: set[tuple[int, str, str]], notes: list[str]) -> None:
    """Place side chains anew that pdbfixer turned over: its own minimisation leads atoms through one another.

    They come from the template, turned about CA-CB to where they have most room. Residues that were of the other hand
    in the file, `given`, stay so.
    """
    positions = np.array(fixer.positions.value_in_unit(unit.nanometer))
    for key, residue in _wrong_hands(fixer).items():
        if key in given:
            continue
        standard = _template(fixer, residue.name)
        place = {atom.name: positions[atom.index] for atom in residue.atoms()}
        frames = [residue_frames(one["N"], one["CA"], one["C"]) for one in (place, standard)]
        moved = [atom for atom in residue.atoms() if atom.name not in _BACKBONE and atom.name in standard]
        sites = np.array([standard[atom.name] for atom in moved]) - standard["CA"]
        sites = place["CA"] + sites @ frames[1] @ frames[0].T
        others = np.delete(positions, [atom.index for atom in moved], axis=0)
        axis = sites[[atom.name for atom in moved].index("CB")] - place["CA"]
        turns = Rotation.from_rotvec(np.arange(0, 360, 30)[:, None] * axis / np.linalg.norm(axis), degrees=True)
        trials = [place["CA"] + turn.apply(sites - place["CA"]) for turn in turns]
        rooms = [cdist(trial, others).min(axis=1) for trial in trials]
        best = max(range(len(trials)), key=lambda trial: np.minimum(rooms[trial], _ROOM).sum())
        positions[[atom.index for atom in moved]] = trials[best]
        notes.append(f"side chain of {residue.name} {residue.id} placed anew: pdbfixer had turned it over")
    fixer.positions = positions * unit.nanometer


def _template(fixer, name: str) -> dict[str, np.ndarray]:
    """Return the positions of pdbfixer's standard residue by atom name, (3,) [nm] each; empty for unknown ones."""
    if name not in fixer.templates:
        return {}
    standard = fixer.templates[name]
    places = np.array(standard.positions.value_in_unit(unit.nanometer))
    return {atom.name: places[atom.index] for atom in standard.topology.atoms()}


def _volume(first: np.ndarray, centre: np.ndarray, second: np.ndarray, third: np.ndarray) -> float:
    """Return the signed volume of three arms of a centre [nm^3]."""
    return float(np.dot(np.cross(first - centre, second - centre), third - centre))


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
