"""How rebuilt heavy atoms of codlad_small.py are judged."""

import mdtraj
import numpy as np
import torch

from openmm_latent.data.residue_slots import ProteinFrames
from openmm_latent.data.traces import heavy_topology
from openmm_latent.metrics.backmapping import backmapping_rmsd, bond_graph_scores, covalent_radii, diversity
from openmm_latent.models.codlad.losses import LossTables, nearer_names
from openmm_latent.nn.internal_coordinates import Chirality

ANGSTROM = 10.0  # one nm
CLASH = 0.12  # [nm]
#: Pairs this near are what clashes are counted among, beside all pairs [nm].
NEAR = 0.5


def topology_of(example: ProteinFrames):
    """Return the heavy atoms in the order of slots, as an OpenMM topology."""
    return heavy_topology(example.residues, [("A", str(i + 1)) for i in range(len(example.residues))])


def rebuilt_scores(samples: np.ndarray, example: ProteinFrames, reference: np.ndarray) -> dict[str, float]:
    """Compare rebuilt frames with those whose traces they were built on.

    Parameters
    ----------
    samples : ndarray
        (n_samples, n_frames, n_residues, 15, 3) [nm]
    example : ProteinFrames
        Its residues count, not its frames.
    reference : ndarray
        (n_frames, n_residues, 15, 3) [nm]

    Returns
    -------
    dict of str to float
        rmsd and rmsd_superposed [Å] of all heavy atoms, Cα among them; ged, edits a frame; gdr [%]; bond_mse [Å^2];
        clash [% of pairs within 5 Å] and clash_of_all [% of all pairs] < 1.2 Å, pairs that are neither bonded nor
        bonded to a common atom; wrong_hands [% of stereocentres]; div = 1 - RMSD(samples, their mean) /
        RMSD(samples, reference), of more than one sample; chi1_rotameric, share within 40 degrees of -60, 60 and 180
    """
    n_samples, n_frames = samples.shape[:2]
    tables, has_atom = LossTables(example.residues, example.disulphides), example.residues.has_atom
    found = torch.as_tensor(np.asarray(samples, dtype=np.float32)).flatten(0, 1)
    wanted = torch.as_tensor(np.asarray(reference, dtype=np.float32)).repeat(n_samples, 1, 1, 1)
    true = nearer_names(found, wanted, tables)[:, has_atom].numpy()
    atoms = found[:, has_atom].numpy()
    radii = covalent_radii([name[0] for names in example.residues.atom_names for name in names if name])
    apart = backmapping_rmsd(atoms, true)
    bonds = bond_graph_scores(atoms, true, radii)
    n_atoms = int(has_atom.sum())
    n_pairs = n_atoms * (n_atoms - 1) // 2 - len(tables.bonded_numbers)
    n_clashes = len(tables.near_pairs(found, CLASH))
    hands = Chirality(example.residues)
    n_centres = int((hands.handedness != 0).sum())
    scores = {
        "rmsd": ANGSTROM * apart["unsuperposed"],
        "rmsd_superposed": ANGSTROM * apart["superposed"],
        "ged": bonds["ged"],
        "gdr": 100.0 * bonds["gdr"],
        "bond_mse": ANGSTROM**2 * bonds["bond_mse"],
        "clash": 100.0 * n_clashes / max(1, len(tables.near_pairs(found, NEAR))),
        "clash_of_all": 100.0 * n_clashes / (len(found) * n_pairs),
        "wrong_hands": 100.0 * float((~hands(found)).sum()) / (len(found) * n_centres),
        "chi1_rotameric": rotameric(chi1(atoms, example)),
    }
    if n_samples > 1:
        named = true.reshape(n_samples, n_frames, n_atoms, 3)[0]
        scores["div"] = diversity(atoms.reshape(n_samples, n_frames, n_atoms, 3), named)["div"]
    return scores


def chi1(atoms: np.ndarray, example: ProteinFrames) -> np.ndarray:
    """Return chi1 [rad], (n_frames, n_chi1), of heavy atoms (n_frames, n_atoms, 3) [nm] in the order of slots."""
    topology = mdtraj.Topology.from_openmm(topology_of(example))
    return mdtraj.compute_chi1(mdtraj.Trajectory(atoms, topology))[1]


def rotameric(angles: np.ndarray) -> float:
    """Return the share of chi1 within 40 degrees of a staggered one; NaN without any."""
    off = angles % (2 * np.pi / 3) - np.pi / 3  # from 60, 180 and 300 degrees
    return float((np.abs(off) < np.radians(40.0)).mean()) if angles.size else float("nan")


def averaged(scores: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return mean, standard deviation and largest value of each score over proteins."""
    table = {}
    for name in scores[0]:
        values = np.array([one[name] for one in scores if name in one])
        values = values[np.isfinite(values)]
        if len(values):
            table[name] = {"mean": values.mean(), "sd": values.std(ddof=1) if len(values) > 1 else 0.0}
            table[name] |= {"most": values.max()}
    return {name: {key: float(value) for key, value in one.items()} for name, one in table.items()}
