"""The comparator of the learned slow coordinates: alanine dipeptide's phi and psi, picked by hand, in a bundle.

Its slow coordinates are the two angles; its proposal kernels are fitted to the very data, at the very lag time, with
which the learned model was trained; its jump stays where it is. So an exact run with it differs from one with the
learned bundle in the coordinates alone. Seconds on one core.

    python benchmarks/torsion_model.py [--out FILE]
"""

import argparse
import math
from dataclasses import asdict
from pathlib import Path
from typing import List, Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.bundle import export_bundle
from openmm_latent.data.trajectories import TrajectorySet, load_trajectories
from openmm_latent.geometry import torsion_quadruples
from openmm_latent.model import LatentModule
from openmm_latent.propagators.proposal import ProposalConfig, fit_proposal
from openmm_latent.topology import describe_atoms

ROOT = Path(__file__).parents[1]
DATA = ROOT / "examples" / "data"
OUT = ROOT / "benchmark_output" / "torsion_model" / "adp_torsions.latent.pt"
LAG_TIME = 40.0  # ps, that of examples/data/make_adp_bundle.py


class TorsionModel(LatentModule):
    """Torsion angles as latent and as slow coordinates, with proposal kernels and without a jump of its own.

    Parameters
    ----------
    n_atoms : int
    quadruples : ndarray of int
        (n_torsions, 4)
    """

    def __init__(self, n_atoms: int, quadruples: np.ndarray):
        super().__init__()
        n_torsions = len(quadruples)
        self.n_atoms, self.n_latent, self.n_slow = n_atoms, n_torsions, n_torsions
        self.n_propagate_noise, self.n_decode_noise, self.n_propose_noise = 0, 0, 0
        bonds = np.zeros((3, n_torsions, n_atoms))
        for torsion, atoms in enumerate(quadruples):
            for bond in range(3):
                bonds[bond, torsion, atoms[bond + 1]], bonds[bond, torsion, atoms[bond]] = 1.0, -1.0
        # positions -> the three bond vectors of every torsion: one product instead of six differences
        self.register_buffer("bonds", torch.tensor(bonds.reshape(-1, n_atoms), dtype=torch.float32))
        self.proposal: nn.Module = nn.Identity()
        self.register_buffer("proposal_weights", torch.zeros(0))

    def initial_state(self, positions: Tensor) -> List[Tensor]:  # noqa: UP006
        """Return no memory."""
        state: List[Tensor] = []  # noqa: UP006
        return state

    def jump(self, positions: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Stay."""
        return positions * 1.0, state

    def encode(self, positions: Tensor) -> Tensor:
        """Return the angles in (-pi, pi], IUPAC sign: (b, n_atoms, 3) [nm] -> (b, n_torsions) [rad]."""
        bonds = torch.matmul(self.bonds, positions).view(positions.shape[0], 3, -1, 3)
        normals = torch.linalg.cross(bonds[:, :2], bonds[:, 1:])  # (b, 2, n_torsions, 3)
        first, second = normals.unbind(1)
        sine = torch.linalg.vector_norm(bonds[:, 1], dim=2) * (bonds[:, 0] * second).sum(2)
        return torch.atan2(sine, (first * second).sum(2))

    def slow(self, latent: Tensor) -> Tensor:
        """Return the angles themselves."""
        return latent

    def propose(self, slow: Tensor, noise: Tensor) -> Tensor:
        """Draw the next pair of angles."""
        return self.proposal.propose(slow, noise, self.proposal_weights)

    def log_density(self, to: Tensor, start: Tensor) -> Tensor:
        """Return the logarithm of the density of that draw."""
        return self.proposal.log_density(to, start, self.proposal_weights)

    def slow_periods(self) -> list[float]:
        """Return a whole turn for each angle."""
        return [2.0 * math.pi] * self.n_slow

    def proposal_names(self) -> list[str]:
        """Return the names of the fitted kernels."""
        return list(self.proposal.names) if self.n_propose_noise > 0 else []

    def fit(self, positions: list[np.ndarray], lag_frames: int, config: ProposalConfig, seed: int) -> None:
        """Fit the proposal kernels to trajectories, (n_frames, n_atoms, 3) [nm] each."""
        with torch.no_grad():
            angles = [self.encode(torch.from_numpy(np.asarray(part, dtype=np.float32))).numpy() for part in positions]
        self.proposal = fit_proposal(angles, lag_frames, self.slow_periods(), config, seed)
        self.n_propose_noise = self.proposal.n_noise
        self.proposal_weights = torch.full((len(config.kernels),), 1.0 / len(config.kernels))


def make_bundle(
    out: Path,
    trajectories: TrajectorySet | None = None,
    lag_time: float = LAG_TIME,
    config: ProposalConfig | None = None,
    seed: int = 1,
) -> Path:
    """Fit the comparator and write its bundle; the shipped 400 K data unless other trajectories are given."""
    if trajectories is None:
        trajectories = load_trajectories(DATA / "adp.pdb", DATA / "adp_400K.xtc")
    config = ProposalConfig() if config is None else config
    atoms = describe_atoms(trajectories.topology, trajectories.model_atoms)
    quadruples = np.concatenate([torsion_quadruples(atoms, kind) for kind in ("phi", "psi")])
    module = TorsionModel(len(atoms), quadruples)
    module.fit(trajectories.positions, trajectories.lag_frames(lag_time), config, seed)
    everything = list(trajectories.topology.atoms())
    provenance = trajectories.provenance
    out.parent.mkdir(parents=True, exist_ok=True)
    return export_bundle(
        module,
        out,
        family="torsions",
        atoms=atoms,
        masses=[everything[atom].element.mass._value for atom in trajectories.model_atoms],
        lag_time=lag_time,
        config={"torsions": ["phi", "psi"], "proposal_config": asdict(config)},
        training={
            "temperature": provenance.get("temperature"),
            "force_field": provenance.get("force_field"),
            "digest": trajectories.digest,
            "files": [Path(name).name for name in trajectories.files],
            "seed": seed,
        },
        reference_positions=np.asarray(trajectories.positions[0][len(trajectories.positions[0]) // 2]),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    print(make_bundle(parser.parse_args().out))
