"""Superposition and internal coordinates in NumPy, on batches of frames."""

from __future__ import annotations

import numpy as np

from openmm_latent.errors import require


def _checked(positions: np.ndarray, name: str) -> np.ndarray:
    """Return `positions` as float64, after checking that it ends in (n_atoms, 3)."""
    return np.asarray(_shaped(positions, name), dtype=np.float64)


def _shaped(positions: np.ndarray, name: str) -> np.ndarray:
    """Return `positions` as an array of its own type, after checking that it ends in (n_atoms, 3)."""
    array = np.asarray(positions)
    require(
        array.ndim >= 2 and array.shape[-1] == 3,
        f"{name} must have shape (..., n_atoms, 3) [nm], got {array.shape}; pass Cartesian positions",
    )
    return array


#: Coordinates that are taken to double precision at a time, 4 MB: trajectories are long.
_CHUNK_COORDINATES = 500_000


def _pieces(n_frames: int, n_atoms: int) -> list[slice]:
    """Return slices that cover all frames, each with about `_CHUNK_COORDINATES` coordinates."""
    size = max(1, _CHUNK_COORDINATES // max(1, 3 * n_atoms))
    return [slice(start, start + size) for start in range(0, n_frames, size)]


def superpose(
    positions: np.ndarray, reference: np.ndarray, weights: np.ndarray | None = None, *, out: np.ndarray | None = None
) -> np.ndarray:
    """Move every frame rigidly onto a reference structure (least squares, proper rotations only).

    Parameters
    ----------
    positions : array, (n_frames, n_atoms, 3) or (n_atoms, 3) [nm]
    reference : array, (n_atoms, 3) [nm]
    weights : array, (n_atoms,), optional
        Such as masses; equal weights unless given. Atoms of weight 0 are carried along.
    out : array, the shape of `positions`, optional
        Filled with the result, which saves memory; may be `positions` itself.

    Returns
    -------
    array, the shape and dtype of `positions`, or `out` [nm]
        Centred on the reference's (weighted) centre.

    Raises
    ------
    LatentError
        The atom counts differ, or `out` has another shape.

    Source: W. Kabsch, Acta Cryst. A 32, 922 (1976).
    """
    given = _shaped(positions, "positions")
    target = _checked(reference, "reference")
    require(
        target.ndim == 2 and given.shape[-2] == target.shape[0],
        f"reference must have shape (n_atoms={given.shape[-2]}, 3) [nm], got {target.shape}; "
        "pass one structure of the same atoms",
    )
    moved = np.empty_like(given, subok=False) if out is None else out
    require(moved.shape == given.shape, f"out must have the shape of positions {given.shape}, got {moved.shape}")
    share = np.ones(len(target)) if weights is None else np.asarray(weights, dtype=np.float64)
    share = share / share.sum()
    frames, placed = (given[None], moved[None]) if given.ndim == 2 else (given, moved)
    for piece in _pieces(len(frames), len(target)):
        placed[piece] = _superposed(frames[piece], target, share)
    return moved


def _superposed(frames: np.ndarray, target: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Superpose a few frames in double precision: (n_frames, n_atoms, 3), (n_atoms, 3), (n_atoms,) [nm]."""
    centre = share @ target
    centred = frames.astype(np.float64)
    centred -= (share @ centred)[..., None, :]
    # (n_frames, 3, 3): covariance of moving and fixed atoms
    covariance = np.swapaxes(centred, -1, -2) @ (share[:, None] * (target - centre))
    left, _, right = np.linalg.svd(covariance)
    # A negative determinant would be a mirror image: flip the direction that costs least.
    handedness = np.sign(np.linalg.det(left @ right))
    left = np.concatenate([left[..., :2], left[..., 2:] * handedness[..., None, None]], axis=-1)
    return centred @ (left @ right) + centre


def rmsd(positions: np.ndarray, reference: np.ndarray, *, is_superposed: bool = False) -> np.ndarray:
    """Return the root mean square deviation of every frame from a reference, after superposition.

    Parameters
    ----------
    positions : array, (n_frames, n_atoms, 3) [nm]
    reference : array, (n_atoms, 3) [nm]
    is_superposed : bool
        True takes the frames as they lie.

    Returns
    -------
    array, (n_frames,) [nm]
    """
    frames, target = _shaped(positions, "positions"), _checked(reference, "reference")
    if frames.ndim != 3:
        return _rmsd(frames, target, is_superposed)
    pieces = [_rmsd(frames[piece], target, is_superposed) for piece in _pieces(len(frames), len(target))]
    return np.concatenate([*pieces, np.zeros(0)])


def _rmsd(frames: np.ndarray, target: np.ndarray, is_superposed: bool) -> np.ndarray:
    """Return the RMSD of a few frames [nm]."""
    placed = frames.astype(np.float64)
    difference = (placed if is_superposed else superpose(placed, target)) - target
    return np.sqrt((difference**2).sum(axis=-1).mean(axis=-1))


def dihedrals(positions: np.ndarray, quadruples: np.ndarray) -> np.ndarray:
    """Return torsion angles in (-pi, pi], IUPAC sign (trans is pi, clockwise positive).

    Parameters
    ----------
    positions : array, (n_frames, n_atoms, 3) or (n_atoms, 3) [nm]
    quadruples : array of int, (n_torsions, 4)

    Returns
    -------
    array, (n_frames, n_torsions) or (n_torsions,) [rad]

    Raises
    ------
    LatentError
        `quadruples` has another shape or an index outside the atoms.
    """
    frames = _shaped(positions, "positions")
    indices = np.asarray(quadruples, dtype=np.int64)
    require(
        indices.ndim == 2 and indices.shape[1] == 4,
        f"quadruples must have shape (n_torsions, 4), got {indices.shape}; give four atom indices a torsion",
    )
    n_atoms = frames.shape[-2]
    require(
        indices.size == 0 or (indices.min() >= 0 and indices.max() < n_atoms),
        f"quadruples must hold indices from 0 to {n_atoms - 1}, got up to {indices.max(initial=0)}; "
        "were they made for another topology?",
    )
    if frames.ndim != 3:
        return _dihedrals(frames, indices)
    angles = np.empty((len(frames), len(indices)))
    for piece in _pieces(len(frames), 4 * len(indices)):
        angles[piece] = _dihedrals(frames[piece], indices)
    return angles


def _dihedrals(frames: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return the torsions of a few frames: (..., n_atoms, 3) [nm], (n_torsions, 4) -> (..., n_torsions) [rad]."""
    first, second, third, fourth = (frames[..., indices[:, k], :].astype(np.float64) for k in range(4))
    bond_1, bond_2, bond_3 = second - first, third - second, fourth - third
    normal_1, normal_2 = np.cross(bond_1, bond_2), np.cross(bond_2, bond_3)
    length_2 = np.linalg.norm(bond_2, axis=-1)
    return np.arctan2(length_2 * (bond_1 * normal_2).sum(-1), (normal_1 * normal_2).sum(-1))


#: Atom names of side-chain torsions, chi1 to chi4 (IUPAC; the first of two equivalent branches).
_CHI_ATOMS = {
    "chi1": ("N", "CA", "CB", ("CG", "CG1", "OG", "OG1", "SG")),
    "chi2": ("CA", "CB", ("CG", "CG1"), ("CD", "CD1", "OD1", "ND1", "SD")),
    "chi3": ("CB", "CG", ("CD", "SD"), ("NE", "OE1", "CE")),
    "chi4": ("CG", "CD", ("NE", "CE"), ("CZ", "NZ")),
}


def torsion_quadruples(atoms: list, kind: str) -> np.ndarray:
    """Find the atom indices of all torsions of one kind.

    Parameters
    ----------
    atoms : list
        Records with `chain`, `residue_index` and `name` (as `openmm_latent.topology.describe_atoms` makes), in the
        order of the positions.
    kind : str
        "phi", "psi", "omega" or "chi1" to "chi4".

    Returns
    -------
    array of int, (n_torsions, 4), residue by residue

    Raises
    ------
    LatentError
        `kind` is none of the above.
    """
    kinds = ("phi", "psi", "omega", *_CHI_ATOMS)
    require(kind in kinds, f"kind must be one of {', '.join(kinds)}, got {kind!r}; name one torsion")
    residues: dict[tuple[str, int], dict[str, int]] = {}
    for index, atom in enumerate(atoms):
        residues.setdefault((atom.chain, atom.residue_index), {})[atom.name] = index
    found = []
    for (chain, number), here in residues.items():
        before, after = residues.get((chain, number - 1), {}), residues.get((chain, number + 1), {})
        if kind == "phi":
            torsion = [before.get("C"), here.get("N"), here.get("CA"), here.get("C")]
        elif kind == "psi":
            torsion = [here.get("N"), here.get("CA"), here.get("C"), after.get("N")]
        elif kind == "omega":
            torsion = [_first(here, ("CA", "CH3")), here.get("C"), after.get("N"), _first(after, ("CA", "C", "CH3"))]
        else:
            torsion = [_first(here, names if isinstance(names, tuple) else (names,)) for names in _CHI_ATOMS[kind]]
        if None not in torsion:
            found.append(torsion)
    return np.array(found, dtype=np.int64).reshape(-1, 4)


def _first(residue: dict[str, int], names: tuple[str, ...]) -> int | None:
    """Return the index of the first of `names` that the residue has."""
    for name in names:
        if name in residue:
            return residue[name]
    return None
