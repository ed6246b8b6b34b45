"""What a network is taught: distances from its state, clean atoms from its decoder.

| symbol | variable |
|---|---|
| L_disto | `distogram_loss` |
| L_diff: w_l, lambda(tau) | `denoising_loss`: `weights`, `level_weight` |

Source: ATMOS, section 3.4, equations 10 to 13.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openmm_latent.models.atmos.alignment import superpose_each
from openmm_latent.nn.superposition import Superposition

#: First and last edge of the distogram's bins [nm].
DISTOGRAM_SPAN = (0.2, 2.2)


def atom_weights(is_ligand: Tensor, token: Tensor, ligand_weight: float) -> Tensor:
    """Return what each atom counts, (n_atoms,): 1, or `ligand_weight` where its token, (n_tokens,), is a ligand's."""
    return torch.where(is_ligand.index_select(0, token), ligand_weight, 1.0)


def distogram_loss(logits: Tensor, centres: Tensor) -> Tensor:
    """Return the cross-entropy of distances, mean over pairs of different tokens [nats].

    Parameters
    ----------
    logits : Tensor
        (b, n, n, n_bins)
    centres : Tensor
        (b, n, 3) [nm] of the target frame's tokens

    Source: ATMOS, equation 10; Jumper et al., supplement, section 1.9.8. A complex of one token has no pairs: zero.
    """
    n_bins, n = logits.shape[-1], logits.shape[1]
    edges = torch.linspace(*DISTOGRAM_SPAN, n_bins - 1, device=logits.device)
    bins = torch.bucketize(torch.cdist(centres, centres), edges)
    each = torch.nn.functional.cross_entropy(logits.permute(0, 3, 1, 2), bins, reduction="none")
    others = 1.0 - torch.eye(n, device=logits.device)
    return (each * others).sum() / (len(each) * others.sum()).clamp(min=1.0)


def denoising_loss(
    denoised: Tensor, target: Tensor, weights: Tensor, level_weight: Tensor, superposition: Superposition
) -> Tensor:
    """Return the weighted squared error of denoised frames, the target superposed on each.

    Parameters
    ----------
    denoised, target : Tensor
        (b, n_atoms, 3) [nm]
    weights : Tensor
        (n_atoms,)
    level_weight : Tensor
        (b,) [1/nm^2] from `EDM.weight`

    Returns
    -------
    Tensor
        Scalar, about 1 for a network that says nothing: the mean over coordinates and frames.

    Source: ATMOS, equations 11 and 12. DISCREPANCY(ATMOS, equation 12): its weight for each data set's scale of noise
    is the data scale in `level_weight`.
    """
    aligned = superpose_each(superposition, target, denoised.detach(), weights)
    errors = (denoised - aligned).square().mean(-1)  # (b, n_atoms)
    return (level_weight * (errors * weights).sum(-1) / weights.sum()).mean()


def geometry_loss(denoised: Tensor, target: Tensor, pairs: Tensor, level_weight: Tensor) -> Tensor:
    """Return the squared error of some distances, mean over these, weighted as `denoising_loss`.

    Parameters
    ----------
    denoised, target : Tensor
        (b, n_atoms, 3) [nm]
    pairs : Tensor of int
        (n_pairs, 2) of atoms one or two bonds apart
    level_weight : Tensor
        (b,) [1/nm^2]

    DISCREPANCY(ATMOS, equation 13): the paper starts from a decoder that knows bond lengths and angles from the PDB;
    one that starts from nothing is told of them.
    """
    if len(pairs) == 0:
        return denoised.sum() * 0.0

    def lengths(positions: Tensor) -> Tensor:
        between = positions[:, pairs[:, 0]] - positions[:, pairs[:, 1]]
        return torch.sqrt(between.square().sum(-1) + 1e-8)

    return (level_weight * (lengths(denoised) - lengths(target)).square().mean(-1)).mean()
