"""Scores of a ligand and its pocket: how both move, and where they clash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openmm_latent import metrics
from openmm_latent.data.residues import nonstandard_residues
from openmm_latent.errors import require
from openmm_latent.report.ensembles import Ensemble
from openmm_latent.report.molecule import Molecule
from openmm_latent.report.scores import CHECKED_FRAMES, defined

#: A residue that is no amino acid is worth a hint that it may be a ligand from this many heavy atoms on.
_LIGAND_ATOMS = 6


@dataclass(frozen=True)
class Site:
    """A ligand and its pocket, as indices of scored atoms.

    Attributes
    ----------
    ligand : array of int, (n_ligand_atoms,)
    pocket : array of int, (n_pocket_atoms,)
        All scored atoms of residues with a heavy atom near the ligand.
    """

    ligand: np.ndarray
    pocket: np.ndarray

    @property
    def atoms(self) -> np.ndarray:
        """Ligand and pocket together, in order."""
        return np.union1d(self.ligand, self.pocket)


def find_site(molecule: Molecule, structure: np.ndarray, names: Sequence[str]) -> Site | None:
    """Find the atoms of a ligand and of its pocket; None where no ligand is named.

    Parameters
    ----------
    molecule : Molecule
    structure : array, (n_atoms, 3) [nm]
        Tells which residues are near.
    names : sequence of str
        Of the ligand's residues.

    Raises
    ------
    LatentError
        A name is none of the scored residues', or all residues are the ligand.
    """
    if not names:
        return None
    there = {record.residue_name for record in molecule.records}
    for name in names:
        require(
            name in there,
            f"ligand (--ligand) must name residues among the scored ones, got {name!r}; those that are no amino acids "
            f"are {', '.join(sorted(there & set(nonstandard_residues(molecule.topology)))) or 'none'}",
        )
    ligand = np.array([i for i, record in enumerate(molecule.records) if record.residue_name in set(names)])
    residues = np.unique([f"{r.chain} {r.residue_index}" for r in molecule.records], return_inverse=True)[1]
    require(
        len(ligand) < len(residues) and bool(molecule.is_heavy[ligand].any()),
        f"ligand (--ligand) {', '.join(names)} must leave a protein beside it and hold a heavy atom; name the ligand's "
        f"residue alone",
    )
    return Site(ligand, metrics.pocket_atoms(structure, ligand, residues, molecule.is_heavy))


def possible_ligands(molecule: Molecule) -> list[str]:
    """Return names of scored residues that are no amino acids and large enough to be a ligand."""
    unknown = set(nonstandard_residues(molecule.topology))
    sizes: dict[tuple[str, str, int], int] = {}
    for record, is_heavy in zip(molecule.records, molecule.is_heavy, strict=True):
        if is_heavy and record.residue_name in unknown:
            key = (record.residue_name, record.chain, record.residue_index)
            sizes[key] = sizes.get(key, 0) + 1
    return sorted({name for (name, _, _), n_heavy in sizes.items() if n_heavy >= _LIGAND_ATOMS})


def complex_scores(sample: Ensemble, reference: Ensemble, site: Site) -> dict[str, float]:
    """Compare the fluctuations of ligand and pocket, as they lie after superposition on the protein."""
    if sample.positions is None or reference.positions is None:
        return {}
    own, expected = sample.positions[:, site.atoms], reference.positions[:, site.atoms]
    fluctuations = [metrics.rmsf(frames, None) for frames in (own, expected)]
    return {
        "complex_rmsf_r": defined(lambda: metrics.pearson(*fluctuations)),
        "complex_rmwd": metrics.rmwd(own, expected, None)["rmwd"],
        "ligand_rmwd": metrics.rmwd(sample.positions[:, site.ligand], reference.positions[:, site.ligand], None)[
            "rmwd"
        ],
    }


def complex_clashes(ensemble: Ensemble, site: Site) -> dict[str, float]:
    """Return clashes a frame within the protein, within the ligand and between them: an ensemble's own numbers."""
    molecule = ensemble.molecule
    if ensemble.positions is None or len(molecule.bonds) == 0:
        return {}
    heavy, bonds = molecule.heavy_bonds()
    is_ligand = np.zeros(len(molecule.atoms), dtype=bool)
    is_ligand[site.ligand] = True
    checked = ensemble.thinned(CHECKED_FRAMES).positions[:, heavy]
    counts = metrics.clash_counts(checked, bonds, np.flatnonzero(is_ligand[heavy]))
    return {f"clashes_{part}": float(counts[part].mean()) for part in ("protein", "ligand", "between")}
