"""What the guard takes for a clash: heavy atoms that a jump brought together; and a ligand's hand turned over."""

import itertools
from typing import List, Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import openmm as mm
import pytest
import torch
from openmm import app
from torch import Tensor

import toys
from openmm_latent import LatentModel

N_ATOMS, SPACING = 8, 0.25


class Shift(toys.Rotate):
    """Moves each atom by a vector of its own, (n_atoms, 3) [nm]."""

    def __init__(self, shifts: np.ndarray) -> None:
        super().__init__(len(shifts))
        self.register_buffer("shifts", torch.as_tensor(shifts, dtype=torch.float32))

    def jump(self, positions: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Add the vectors."""
        return positions + self.shifts, state


def chain(closes=False):
    """Atoms on a line, bonded one after the other, perhaps to a ring: topology and positions, (n_atoms, 3) [nm]."""
    topology = app.Topology()
    residue = topology.addResidue("CHN", topology.addChain())
    atoms = [topology.addAtom(f"C{i}", app.element.carbon, residue) for i in range(N_ATOMS)]
    for first, second in itertools.pairwise(atoms):
        topology.addBond(first, second)
    if closes:
        topology.addBond(atoms[-1], atoms[0])
    positions = np.zeros((N_ATOMS, 3))
    positions[:, 0] = SPACING * np.arange(N_ATOMS)
    return topology, positions


def verdict(topology, positions, target, folder):
    """Why the guard refuses a jump to `target`, (n_atoms, 3) [nm]; empty if it lets it stand."""
    path = toys.export_toy(
        Shift(target - positions), folder / "shift.latent.pt", topology, positions, range(len(positions))
    )
    system = mm.System()
    for _ in range(len(positions)):
        system.addParticle(12.0)
    # Nothing but the bonds' list counts here: no forces, and bonds may stretch.
    integrator = LatentModel(path).createIntegrator(topology, toys.langevin(), thresholds={"maxBondChange": 1000.0})
    context = mm.Context(system, integrator, mm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    integrator.jump()
    return integrator.getJumpRecords(0)[0].reason


@pytest.mark.parametrize("closes", [False, True], ids=["chain", "ring"])
@pytest.mark.parametrize("moved", range(1, N_ATOMS))
def test_only_atoms_more_than_three_bonds_apart_clash(moved, closes, tmp_path):
    topology, positions = chain(closes=closes)
    target = positions.copy()
    target[moved] = [-0.1, 0.0, 0.0]  # next to the first atom, far from all others
    bonds_apart = min(moved, N_ATOMS - moved) if closes else moved
    assert verdict(topology, positions, target, tmp_path) == ("clash" if bonds_apart > 3 else "")


def test_atoms_that_were_as_close_before_do_not_clash(tmp_path):
    topology, positions = chain()
    positions[6] = [-0.1, 0.0, 0.0]
    assert verdict(topology, positions, positions, tmp_path) == ""
    target = positions.copy()
    target[7] = [0.0, 0.1, 0.0]
    assert verdict(topology, positions, target, tmp_path) == "clash"


def centre(kind, *neighbours):
    """A ligand's atom at the origin with these elements around it, as on a tetrahedron: topology, positions [nm]."""
    topology = app.Topology()
    residue = topology.addResidue("LIG", topology.addChain())
    carbon = topology.addAtom("C", app.Element.getBySymbol(kind), residue)
    for number, symbol in enumerate(neighbours):
        topology.addBond(carbon, topology.addAtom(f"X{number}", app.Element.getBySymbol(symbol), residue))
    corners = 0.1 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])[: len(neighbours)]
    return topology, np.concatenate([np.zeros((1, 3)), corners])


@pytest.mark.parametrize(
    ("neighbours", "reason"),
    [("C H F Cl Br", "chirality"), ("P C N O S", "chirality"), ("C H H F Cl", ""), ("C N C O", ""), ("Fe N N N N", "")],
    ids=["halothane", "quaternary", "two hydrogens", "three neighbours", "metal"],
)
def test_a_ligands_tetrahedral_centres_keep_their_hands(neighbours, reason, tmp_path):
    topology, positions = centre(*neighbours.split())
    assert verdict(topology, positions, positions * [-1.0, 1.0, 1.0], tmp_path) == reason
    assert verdict(topology, positions, positions * [-1.0, -1.0, 1.0], tmp_path) == ""
