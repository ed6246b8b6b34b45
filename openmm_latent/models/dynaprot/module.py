"""One protein's Gaussian as the exported contract sees it: a linear latent, Gaussian kernels, rigid residues.

| symbol | variable |
|---|---|
| eigenvectors of Sigma without rigid motions, largest variance first | `modes` (3 n_residues, n_latent) |
| square roots of their eigenvalues | `deviations` (n_latent,) [nm] |
| rho = exp(-lag time / relaxation time) | `persistence` (n_latent,) |
| sqrt(1 - rho^2) | `innovation` (n_latent,) |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import List, Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import torch
from torch import Tensor

from openmm_latent.errors import require
from openmm_latent.model import ExplicitLatentModule
from openmm_latent.models.dynaprot.covariance import without_rigid_motions
from openmm_latent.models.dynaprot.placement import Placement
from openmm_latent.nn.superposition import Superposition, superpose
from openmm_latent.propagators.proposal import KERNELS, choose, standard_uniform
from openmm_latent.topology import AtomRecord

#: More slow coordinates than these cannot be driven at once.
MOST_SLOW = 8


class GaussianProtein(ExplicitLatentModule):
    """Superposed Cα atoms as a Gaussian: whitened modes are latent, and the largest of them are slow coordinates.

    latent = (x - mean) . modes / deviations, of Cα atoms x superposed on the mean, so that conformations of the model
    have a standard normal latent. Superposition on the mean leaves no displacement along its rigid motions, to which
    all modes are orthogonal, so what `decode` adds along the modes turns nothing, and changes other modes by nothing.

    Parameters
    ----------
    atoms : sequence of AtomRecord
        (n_atoms,) heavy atoms of the protein.
    bonds : array of int
        (n_bonds, 2) between them.
    residues : sequence of dict
        For each Cα atom, in the order of `covariance`, name -> model atom of its residue.
    reference : ndarray
        (n_atoms, 3) [nm], whose bond lengths and angles decoded structures have.
    covariance : Tensor
        (3 n_residues, 3 n_residues) [nm^2] of Cα positions, in the axes of `mean`; rigid motions are taken out here.
    lag_time : float
        [ps]
    relaxation_time : float or sequence of float
        [ps] after which a mode's correlation has fallen to 1/e: one, or (n_latent,); 0 makes every jump independent.
    mean : ndarray, optional
        (n_residues, 3) [nm] of Cα atoms; unless given the reference's, as in the paper.
    n_slow : int
        Leading modes that are slow coordinates, at most 8.
    least_share : float
        Modes below this share of the whole variance are left to the MD.

    Raises
    ------
    LatentError
        Shapes disagree, the mean's atoms lie on one line, or an argument is out of range.

    Source: DynaProt, ICLR 2026 (openreview uKn9PdREBA). DISCREPANCY(paper): it draws independent structures; the
    Ornstein-Uhlenbeck kernel, which has the same stationary density, is ours.
    """

    __constants__ = ("n_residues",)

    def __init__(
        self,
        atoms: Sequence[AtomRecord],
        bonds: np.ndarray,
        residues: Sequence[dict[str, int]],
        reference: np.ndarray,
        covariance: Tensor,
        *,
        lag_time: float,
        relaxation_time: float | Sequence[float],
        mean: np.ndarray | None = None,
        n_slow: int = 4,
        least_share: float = 1e-6,
    ):
        super().__init__()
        self.n_atoms, self.n_residues = len(atoms), len(residues)
        self.placement = Placement(atoms, bonds, residues, reference)
        self.superposition = Superposition()
        cas = self.placement.cas
        reference = torch.tensor(np.asarray(reference, dtype=np.float64))
        mean = reference[cas] if mean is None else torch.tensor(np.asarray(mean, dtype=np.float64))
        _check_mean(mean, self.n_residues)
        mean = mean - mean.mean(dim=0)
        modes, deviations = _whitening(without_rigid_motions(covariance, mean), least_share)
        self.n_latent = modes.shape[1]
        require(
            isinstance(n_slow, int) and 0 <= n_slow <= min(MOST_SLOW, self.n_latent),
            f"n_slow must be a whole number from 0 to {min(MOST_SLOW, self.n_latent)}, got {n_slow!r}",
        )
        self.n_slow = n_slow
        self.n_propagate_noise, self.n_decode_noise = self.n_latent, 0
        self.n_propose_noise = n_slow + 1 if n_slow > 0 else 0
        _, rotation, centre = superpose(reference[cas][None], mean)
        self.register_buffer("mean", mean)  # float64, as all that positions are made of
        self.register_buffer("reference", (reference - centre[0]) @ rotation[0])
        self.register_buffer("modes", modes)
        self.register_buffer("deviations", deviations)
        persistence = _persistence(lag_time, relaxation_time, self.n_latent)
        self.register_buffer("persistence", persistence)
        self.register_buffer("innovation", (1.0 - persistence.double().square()).sqrt().float())
        self.register_buffer("proposal_weights", torch.full((len(KERNELS) if n_slow > 0 else 0,), 0.5))

    def noise_sizes(self) -> dict[str, int]:
        """Numbers of standard normals, that of `sample` among them."""
        return {**super().noise_sizes(), "sample": self.n_latent + self.n_decode_noise}

    def displacement(self, superposed: Tensor) -> Tensor:
        """Return how far along each mode superposed Cα atoms are: (b, n_residues, 3) -> (b, n_latent) [nm]."""
        return torch.matmul((superposed - self.mean).flatten(1), self.modes)

    def encode(self, positions: Tensor) -> Tensor:
        """Return the whitened displacement, (b, n_latent), of frames at any place and orientation."""
        superposed = self.superposition(positions.index_select(1, self.placement.cas), self.mean)[0]
        return (self.displacement(superposed) / self.deviations).to(torch.float32)

    def decode(self, latent: Tensor, positions: Tensor, noise: Tensor) -> Tensor:
        """Return the current frame with its residues moved to where the latent has them: (b, n_atoms, 3) [nm].

        What the modes do not span stays as in the frame, side-chain torsions included; unless `place` says otherwise.
        """
        superposed, rotation, centre = self.superposition(positions.index_select(1, self.placement.cas), self.mean)
        change = latent.to(torch.float64) * self.deviations - self.displacement(superposed)
        shifts = torch.matmul(change, self.modes.transpose(0, 1)).view(-1, self.n_residues, 3)
        frame = torch.bmm(positions.to(torch.float64) - centre, rotation)
        placed = self.place(shifts, frame, noise)
        return (torch.bmm(placed, rotation.transpose(1, 2)) + centre).to(torch.float32)

    def place(self, shifts: Tensor, frame: Tensor, noise: Tensor) -> Tensor:
        """Return all atoms of a frame whose Cα atoms move by `shifts`, (b, n_residues, 3) [nm], in double precision."""
        return self.placement(shifts, frame)

    def propagate(
        self,
        latent: Tensor,
        state: List[Tensor],  # noqa: UP006
        noise: Tensor,
    ) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Move every mode by one lag time of its Ornstein-Uhlenbeck process, exactly."""
        return self.persistence * latent + self.innovation * noise, state

    def sample(self, noise: Tensor) -> Tensor:
        """Return independent conformations: (b, n_noise) -> (b, n_atoms, 3) [nm], placed on the mean."""
        frames = self.reference.to(torch.float32).unsqueeze(0).expand(noise.shape[0], -1, -1)
        return self.decode(noise[:, : self.n_latent], frames, noise[:, self.n_latent :])

    def slow(self, latent: Tensor) -> Tensor:
        """Return the modes of largest variance, (b, n_slow)."""
        return latent[:, : self.n_slow]

    def propose(self, slow: Tensor, noise: Tensor) -> Tensor:
        """Draw from the Ornstein-Uhlenbeck kernel or from the Gaussian itself, as the shares of the kernels say."""
        normals = noise[:, : self.n_slow]
        uniform = standard_uniform(noise[:, self.n_slow :])
        kernel = choose(self.proposal_weights.unsqueeze(0).expand(slow.shape[0], -1), uniform).unsqueeze(1)
        lagged = self.persistence[: self.n_slow] * slow + self.innovation[: self.n_slow] * normals
        return torch.where(kernel == 0, lagged, normals)

    def log_density(self, to: Tensor, start: Tensor) -> Tensor:
        """Return ln q(to | start), (b,), of that mixture of two Gaussians."""
        widths = self.innovation[: self.n_slow]
        lagged = (to - self.persistence[: self.n_slow] * start) / widths
        each = torch.stack([-0.5 * lagged.square().sum(1) - torch.log(widths).sum(), -0.5 * to.square().sum(1)], dim=1)
        log_weights = torch.log(self.proposal_weights / self.proposal_weights.sum())
        return torch.logsumexp(each + log_weights, dim=1) - 0.5 * self.n_slow * math.log(2.0 * math.pi)

    def proposal_names(self) -> list[str]:
        """Return the names of the two kernels."""
        return list(KERNELS) if self.n_propose_noise > 0 else []


def _check_mean(mean: Tensor, n_residues: int) -> None:
    require(
        mean.shape == (n_residues, 3) and bool(torch.isfinite(mean).all()),
        f"mean must be finite positions of the n_residues={n_residues} Cα atoms, ({n_residues}, 3) [nm], got "
        f"{tuple(mean.shape)}; give one Cα atom a residue",
    )
    spread = torch.linalg.svdvals(mean - mean.mean(dim=0))
    require(
        n_residues >= 3 and float(spread[1]) > 1e-3,
        f"mean needs at least 3 Cα atoms that do not lie on one line to define an orientation, got {n_residues}; "
        f"choose a longer protein",
    )


def _whitening(covariance: Tensor, least_share: float) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """Return eigenvectors, (3 n, n_latent), and deviations, (n_latent,) [nm], of a projected covariance [nm^2]."""
    require(
        bool(torch.isfinite(covariance).all()) and float(covariance.diagonal().sum()) > 0,
        "covariance must be finite and have a positive trace [nm^2], got another; assemble it by joint_covariance",
    )
    require(0.0 < least_share < 1.0, f"least_share must lie between 0 and 1, got {least_share}; 1e-6 keeps all modes")
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0), vectors.flip(1)
    kept = values > least_share * values.sum()
    # an eigenvector's sign is the library's whim: the largest component is made positive
    vectors = vectors[:, kept]
    signs = torch.sign(vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True)))
    return (vectors * signs).contiguous(), values[kept].sqrt()


def _persistence(lag_time: float, relaxation_time: float | Sequence[float], n_latent: int) -> Tensor:
    """Return exp(-lag time / relaxation time) of each mode, (n_latent,); 0 where the latter is 0."""
    require(lag_time > 0, f"lag_time must be a positive time in ps, got {lag_time}")
    times = np.atleast_1d(np.asarray(relaxation_time, dtype=np.float64))
    require(
        times.shape in ((1,), (n_latent,)) and bool(np.isfinite(times).all() and (times >= 0).all()),
        f"relaxation_time must be one time in ps, or one for each of the n_latent={n_latent} modes, zero or more, got "
        f"{relaxation_time!r}",
    )
    with np.errstate(divide="ignore"):
        persistence = np.exp(-lag_time / times)
    require(
        bool((persistence < 1.0 - 1e-6).all()),
        f"relaxation_time must not exceed the lag_time of {lag_time} ps a millionfold, got {times.max():g} ps",
    )
    return torch.tensor(np.broadcast_to(persistence, (n_latent,)).copy(), dtype=torch.float32)
