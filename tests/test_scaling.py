"""Nothing on the way to a jump may grow with the square of the atoms.

What is counted is memory (numbers kept, bytes asked for), so these tests cannot fail by a busy machine; what a jump
takes in time at up to 250 000 atoms is measured by benchmarks/suite.py.
"""

import gc
import tracemalloc

import numpy as np
import pytest
import torch
from openmm import app

from openmm_latent import topology as topo
from openmm_latent.models.gldp import CONFIGS, GLDP

SIZES = (150, 300, 600)  # residues, of four heavy atoms: above what is multiplied densely
PLACES = np.array([[0, 0, 0], [0.14, 0, 0.02], [0.2, 0.1, 0.1], [0.2, -0.1, -0.1]])  # N, CA, CB, C [nm]


def growth(costs):
    """How much more the second doubling of the atoms adds than the first: 2 where cost is linear, 4 where quadratic."""
    small, middle, large = costs
    assert 0 < small < middle
    return (large - middle) / (middle - small)


#: Some things do not grow evenly: the longest list of neighbours.
LARGEST_GROWTH = 2.3


def peptides(n_residues, n_chains=1):
    """Backbone and CB of alanine chains, on a lattice; topology and positions (n_atoms, 3) [nm]."""
    made, positions = app.Topology(), []
    side = int(np.ceil(n_residues ** (1 / 3)))
    for number in range(n_residues):
        if number % (n_residues // n_chains) == 0:
            chain, last = made.addChain(), None
        residue = made.addResidue("ALA", chain)
        atoms = [made.addAtom(name, app.Element.getBySymbol(name[0]), residue) for name in ("N", "CA", "CB", "C")]
        for first, second in ((0, 1), (1, 2), (1, 3)):
            made.addBond(atoms[first], atoms[second])
        if last is not None:
            made.addBond(last, atoms[0])
        last = atoms[3]
        corner = 0.6 * np.array([number % side, number // side % side, number // side**2])
        positions.append(corner + PLACES)
    return made, np.concatenate(positions)


def gldp(n_residues, config):
    made, positions = peptides(n_residues)
    torch.manual_seed(1)
    model = GLDP(config, topo.describe_atoms(made, range(made.getNumAtoms())), positions).eval()
    model.set_reference_embedding()
    return model, torch.tensor(positions, dtype=torch.float32)[None]


def bytes_of_jump(n_residues, config):
    """Bytes that a jump's operations ask for, all together."""
    model, frame = gldp(n_residues, config)
    activity = torch.profiler.ProfilerActivity.CPU
    with torch.inference_mode(), torch.profiler.profile(activities=[activity], profile_memory=True) as profile:
        model.jump(frame, [], torch.zeros(1, 0))
    return sum(max(0, event.self_cpu_memory_usage) for event in profile.events())


VARIANTS = [CONFIGS[name].with_pooling(p) for name in ("tiny", "paper") for p in ("blind", "residue", "sequential")]


@pytest.mark.parametrize("config", VARIANTS, ids=lambda config: f"{config.decoder}-{config.pooling}")
def test_a_model_and_its_jump_grow_with_the_atoms(config):
    models = [gldp(n, config)[0] for n in SIZES]
    assert growth([sum(t.numel() for t in model.state_dict().values()) for model in models]) < LARGEST_GROWTH
    assert growth([bytes_of_jump(n, config) for n in SIZES]) < LARGEST_GROWTH


@pytest.mark.parametrize("residues_a_chain", [None, 1], ids=["one chain", "many chains"])
def test_binding_to_a_topology_grows_with_the_atoms(residues_a_chain):
    def peak(n_residues):
        made, positions = peptides(n_residues, n_residues // (residues_a_chain or n_residues))
        records = topo.describe_atoms(made, range(made.getNumAtoms()))
        gc.collect()
        tracemalloc.start()
        atoms = topo.match_atoms(records, made)
        topo.whole_parents(made, atoms, positions)
        topo.find_riders(made, atoms)
        topo.find_structure(made)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    # Python's tables grow by doubling, and objects it keeps for reuse are not counted: either makes a step between two
    # near sizes uneven. Over a factor of 16 a table twice too large moves the exponent by 0.25; a square makes it 2.
    assert np.log(peak(4800) / peak(300)) / np.log(16) < 1.3


def test_molecules_hang_by_their_shortest_contacts_whatever_their_number(monkeypatch):
    rng = np.random.default_rng(1)
    made, _ = peptides(60, n_chains=20)
    reference = rng.uniform(size=(made.getNumAtoms(), 3))
    atoms = list(range(len(reference)))
    molecule = np.arange(len(reference)) // 12
    all_pairs = topo.whole_parents(made, atoms, reference)
    monkeypatch.setattr(topo, "_MOST_PAIRED", 0)
    assert topo.whole_parents(made, atoms, reference) == all_pairs
    # Prim's algorithm: each molecule by the shortest contact with those that already hang.
    joints = {(i, parent) for i, parent in enumerate(all_pairs) if parent >= 0 and molecule[i] != molecule[parent]}
    distance = np.linalg.norm(reference[:, None] - reference[None], axis=2)
    placed, expected = molecule == 0, set()
    while not placed.all():
        waiting, contact = np.flatnonzero(~placed), np.flatnonzero(placed)
        row, column = np.unravel_index(distance[np.ix_(waiting, contact)].argmin(), (len(waiting), len(contact)))
        expected.add((waiting[row], contact[column]))
        placed |= molecule == molecule[waiting[row]]
    assert joints == expected
