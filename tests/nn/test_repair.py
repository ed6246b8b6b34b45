"""The repair of drawn structures: bonds, planes, hands and contacts, of frames apart from one another."""

import numpy as np
import pytest
import torch

from openmm_latent.errors import LatentError
from openmm_latent.nn.internal_coordinates import Chirality
from openmm_latent.nn.repair import Repair
from openmm_latent.nn.residue_geometry import N_SLOTS
from openmm_latent.topology import describe_atoms
from rovers import peptides

TOPOLOGY, POSITIONS, FOUND, CHOSEN, SLOTS, BONDS = peptides()
ATOMS = describe_atoms(TOPOLOGY, CHOSEN)
REFERENCE = torch.tensor(POSITIONS[CHOSEN])
CAS = np.array([i for i, atom in enumerate(ATOMS) if atom.name == "CA"])
REPAIR = Repair(ATOMS, BONDS, CAS, POSITIONS[CHOSEN])


def shaken(n, width, seed=1):
    """Return the structure with every atom moved by so much in each direction: (n, n_atoms, 3) [nm]."""
    return REFERENCE + width * torch.randn(n, *REFERENCE.shape, generator=torch.Generator().manual_seed(seed)).double()


def repaired(placed, before=None):
    before = REFERENCE.expand_as(placed) if before is None else before
    return REPAIR.repair(placed, placed[:, CAS], before)


def misfits(positions):
    """Return the largest error of a bond length in each frame [nm]."""
    pairs = torch.tensor(BONDS)
    found = (positions[:, pairs[:, 0]] - positions[:, pairs[:, 1]]).norm(dim=-1)
    expected = (REFERENCE[pairs[:, 0]] - REFERENCE[pairs[:, 1]]).norm(dim=-1)
    return (found - expected).abs().amax(dim=1)


def test_what_is_right_stays_as_it_is():
    torch.testing.assert_close(repaired(REFERENCE[None])[0], REFERENCE, atol=1e-6, rtol=0)


def test_bonds_come_back_to_their_lengths():
    """Atoms shaken by 20 pm: bonds are up to 90 pm wrong, then 4 pm at most."""
    placed = shaken(8, 0.02)
    assert float(misfits(placed).min()) > 0.04
    assert float(misfits(repaired(placed)).max()) < 0.004


def test_no_hand_changes():
    chirality = Chirality(FOUND.residues)
    built = torch.zeros(8, len(FOUND.residues) * N_SLOTS, 3).double()
    built[:, SLOTS] = repaired(shaken(8, 0.02))
    assert bool(chirality(built.view(8, -1, N_SLOTS, 3)).all())


def test_atoms_that_came_too_close_part():
    """The strand is pushed into the helix until heavy atoms lie 0.1 nm apart."""
    second = torch.tensor([atom.chain == "1" for atom in ATOMS])
    placed = REFERENCE.clone()
    gaps = torch.cdist(placed[~second], placed[second])
    one, other = divmod(int(gaps.argmin()), int(second.sum()))
    toward = placed[~second][one] - placed[second][other]
    placed[second] += toward * (1.0 - 0.1 / toward.norm())

    def nearest(positions):
        return float(torch.cdist(positions[~second], positions[second]).min())

    assert nearest(placed) < 0.11
    found = repaired(placed[None])
    assert nearest(found[0]) > 0.25
    assert float(misfits(found)[0]) < 0.004


def test_atoms_of_a_sound_structure_are_not_too_close():
    """Whatever the frame before was: else repair moves what MD would have drawn."""
    bonded = torch.zeros(len(ATOMS), len(ATOMS), dtype=torch.bool)
    bonded.view(-1)[REPAIR.bonded] = True
    apart = torch.ones_like(bonded).triu(1) & ~bonded
    depth = (REPAIR.radii[:, None] + REPAIR.radii - torch.cdist(REFERENCE, REFERENCE))[apart]
    assert float(depth.max()) < 1e-4  # nm


def test_frames_of_a_batch_do_not_touch():
    placed = shaken(3, 0.02)
    each = torch.cat([repaired(placed[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(repaired(placed), each, atol=1e-9, rtol=0)


def test_a_reference_of_other_atoms_is_refused():
    with pytest.raises(LatentError, match=r"reference must have shape \(n_atoms=109, 3\) \[nm\], got \(5, 3\)"):
        Repair(ATOMS, BONDS, CAS, POSITIONS[:5])
