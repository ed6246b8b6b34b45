"""Small systems and small modules that say exactly what a jump should do."""

from pathlib import Path
from typing import List, Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import openmm as mm
import torch
from openmm import app, unit
from torch import Tensor

from openmm_latent.bundle import export_bundle
from openmm_latent.model import ExplicitLatentModule, LatentModule
from openmm_latent.topology import describe_atoms, heavy_atoms

ADP_PDB = Path(__file__).parents[1] / "examples" / "data" / "adp.pdb"


class Identity(ExplicitLatentModule):
    """Leaves every atom where it is; its latent is the radius of gyration."""

    def __init__(self, n_atoms: int) -> None:
        super().__init__()
        self.n_atoms, self.n_latent, self.n_slow = n_atoms, 1, 1
        self.n_propagate_noise, self.n_decode_noise = 1, 0

    def encode(self, positions: Tensor) -> Tensor:
        """Radius of gyration, (b, 1)."""
        centred = positions - positions.mean(1, keepdim=True)
        return (centred * centred).sum(2).mean(1, keepdim=True).sqrt()

    def propagate(self, latent: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Keep the latent."""
        return latent, state

    def decode(self, latent: Tensor, positions: Tensor, noise: Tensor) -> Tensor:
        """Keep the frame."""
        return positions * 1.0

    def slow(self, latent: Tensor) -> Tensor:
        """The latent itself."""
        return latent


class Torsions(Identity):
    """Leaves every atom where it is; its latent and its slow coordinates are torsion angles [rad]."""

    def __init__(self, n_atoms: int, quadruples: np.ndarray) -> None:
        super().__init__(n_atoms)
        self.n_latent = self.n_slow = len(quadruples)
        self.register_buffer("quadruples", torch.as_tensor(quadruples, dtype=torch.int64))

    def encode(self, positions: Tensor) -> Tensor:
        """Torsion angles, (b, n_torsions), IUPAC sign."""
        first = positions[:, self.quadruples[:, 1]] - positions[:, self.quadruples[:, 0]]
        axis = positions[:, self.quadruples[:, 2]] - positions[:, self.quadruples[:, 1]]
        last = positions[:, self.quadruples[:, 3]] - positions[:, self.quadruples[:, 2]]
        m, n = torch.cross(first, axis, dim=2), torch.cross(axis, last, dim=2)
        return torch.atan2((axis * axis).sum(2).sqrt() * (first * n).sum(2), (m * n).sum(2))

    def slow_periods(self) -> list[float]:
        return [2 * np.pi] * self.n_slow


class Detached(Identity):
    """A slow coordinate that autograd does not see, as of a neighbour graph rebuilt per frame: energy without force."""

    def slow(self, latent: Tensor) -> Tensor:
        """The latent itself, with a gradient of zero."""
        return latent.detach() + 0.0 * latent


class Forbidden(Identity):
    """Must not be asked by the simulation, whose positions are centred."""

    def encode(self, positions: Tensor) -> Tensor:
        """Radius of gyration, or an error."""
        if bool((positions.mean(1).abs() < 1e-5).all()):
            raise RuntimeError("the toy was asked")
        return positions.std(1).mean(1, keepdim=True)


class BrokenSlow(Identity):
    """A slow coordinate that is not a number."""

    def slow(self, latent: Tensor) -> Tensor:
        """NaN."""
        return latent * float("nan")


class Shake(LatentModule):
    """Moves every atom by `size` [nm] times its own noise."""

    def __init__(self, n_atoms: int, size: float) -> None:
        super().__init__()
        self.n_atoms, self.n_latent, self.n_slow = n_atoms, 0, 0
        self.n_propagate_noise, self.n_decode_noise = 3 * n_atoms, 0
        self.size = size

    def initial_state(self, positions: Tensor) -> List[Tensor]:  # noqa: UP006
        """No memory."""
        state: List[Tensor] = []  # noqa: UP006
        return state

    def jump(self, positions: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Add noise."""
        return positions + self.size * noise.reshape(positions.shape), state


class Counter(Shake):
    """Remembers how often it was asked (int64) and the last frame it saw (float32), and moves by the count."""

    def initial_state(self, positions: Tensor) -> List[Tensor]:  # noqa: UP006
        """Count zero, and the frame."""
        return [torch.zeros([positions.shape[0], 1], dtype=torch.int64), positions * 1.0]

    def jump(self, positions: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Shake by the size times (1 + the count)."""
        scale = self.size * (1.0 + state[0].to(torch.float32))
        moved = positions + scale.unsqueeze(2) * noise.reshape(positions.shape)
        return moved, [state[0] + 1, 0.5 * (state[1] + positions)]


class Rotate(LatentModule):
    """Turns the whole molecule by 90 degrees about z and moves it by 1 nm along x."""

    def __init__(self, n_atoms: int) -> None:
        super().__init__()
        self.n_atoms, self.n_latent, self.n_slow = n_atoms, 0, 0
        self.n_propagate_noise, self.n_decode_noise = 0, 0

    def initial_state(self, positions: Tensor) -> List[Tensor]:  # noqa: UP006
        """No memory."""
        state: List[Tensor] = []  # noqa: UP006
        return state

    def jump(self, positions: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """(x, y, z) -> (1 - y, x, z)."""
        return torch.stack([1.0 - positions[:, :, 1], positions[:, :, 0], positions[:, :, 2]], dim=2), state


class Mirror(Rotate):
    """Reflects the molecule: what the guard must notice as a change of chirality."""

    def jump(self, positions: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """x -> -x."""
        return torch.stack([-positions[:, :, 0], positions[:, :, 1], positions[:, :, 2]], dim=2), state


class NotANumber(Rotate):
    """A model that has broken down."""

    def jump(self, positions: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """NaN everywhere."""
        return positions * float("nan"), state


class Failing(Shake):
    """Raises inside torch at the first noise that is not zero, which is the integrator's."""

    def jump(self, positions: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Fail, or stay."""
        if bool((noise != 0).any()):
            raise RuntimeError("the toy fails on purpose")
        return positions * 1.0, state


class InPlace(Counter):
    """Counts in place, as a ring buffer would."""

    def jump(self, positions: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Stay, and count."""
        state[0].add_(1)
        return positions * 1.0, state


def export_toy(module: LatentModule, path: Path, topology: app.Topology, positions: np.ndarray, atoms=None) -> Path:
    """Write a toy's bundle for the heavy atoms (or the given ones) of a topology."""
    atoms = heavy_atoms(topology) if atoms is None else atoms
    everything = list(topology.atoms())
    return export_bundle(
        module,
        path,
        family="toy",
        atoms=describe_atoms(topology, atoms),
        masses=[everything[i].element.mass.value_in_unit(unit.dalton) for i in atoms],
        lag_time=1.0,
        config={},
        training={"temperature": 300.0, "force_field": "none", "digest": "0", "files": [], "seed": 0},
        reference_positions=positions[atoms],
    )


def load_adp() -> tuple[app.Topology, np.ndarray]:
    """Alanine dipeptide: topology and positions (22, 3) [nm]."""
    pdb = app.PDBFile(str(ADP_PDB))
    return pdb.topology, np.array(pdb.positions.value_in_unit(unit.nanometer))


def adp_system(topology: app.Topology, constraints=app.HBonds) -> mm.System:
    """Alanine dipeptide in vacuum, amber14."""
    return app.ForceField("amber14-all.xml").createSystem(topology, constraints=constraints)


def langevin(seed: int = 11) -> mm.LangevinMiddleIntegrator:
    """300 K, 1/ps, 2 fs."""
    integrator = mm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtosecond)
    integrator.setRandomNumberSeed(seed)
    return integrator


def chains_in_a_box(n_molecules=300):
    """Equal three-atom chains in a periodic box, in no order in space: topology, System, positions [nm]."""
    topology, system, forces = app.Topology(), mm.System(), (mm.HarmonicBondForce(), mm.NonbondedForce())
    chain = topology.addChain()
    for i in range(n_molecules):
        residue = topology.addResidue("TRI", chain)
        atoms = [topology.addAtom(f"C{k}", app.element.carbon, residue) for k in range(3)]
        for _ in range(3):
            system.addParticle(12.0)
            forces[1].addParticle(0.0, 0.3, 0.2)
        for k in range(2):
            topology.addBond(atoms[k], atoms[k + 1])
            forces[0].addBond(3 * i + k, 3 * i + k + 1, 0.15, 1e5)
        for pair in ((0, 1), (1, 2), (0, 2)):
            forces[1].addException(3 * i + pair[0], 3 * i + pair[1], 0.0, 1.0, 0.0)
    forces[1].setNonbondedMethod(mm.NonbondedForce.CutoffPeriodic)
    for force in forces:
        system.addForce(force)
    system.setDefaultPeriodicBoxVectors(*(6.0 * np.eye(3)))
    topology.setPeriodicBoxVectors(6.0 * np.eye(3) * unit.nanometer)
    grid = np.stack(np.meshgrid(*[np.arange(7)] * 3), -1).reshape(-1, 3)[:n_molecules] * 0.85 + 0.1
    grid = np.random.default_rng(1).permutation(grid)
    return topology, system, (grid[:, None] + [[0, 0, 0], [0.15, 0, 0], [0.3, 0, 0]]).reshape(-1, 3)
