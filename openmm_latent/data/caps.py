"""Caps of chains (ACE, NME, NH2) built by geometry: no model draws them, and a trace only says that they are there."""

from __future__ import annotations

import math

import numpy as np
import torch
from openmm import app
from scipy.spatial.distance import cdist

from openmm_latent.nn.internal_coordinates import place
from openmm_latent.nn.residue_geometry import residue_tables
from openmm_latent.topology import CAPS

#: Heavy atoms of caps by OpenMM's names, in the order in which they are placed, and the bonds inside.
CAP_ATOMS = {"ACE": ("C", "O", "CH3"), "NME": ("N", "C"), "NH2": ("N",)}
#: Other names of caps.
CAP_NAMES = {"ACE": "ACE", "NME": "NME", "NMA": "NME", "NH2": "NH2", "NHE": "NH2"}
#: Lengths [nm] and angles [rad] beside those of a peptide bond: C-O and C-CH3 of ACE, N-C of NME.
_C_O, _C_CH3, _N_CH3 = (0.123, math.radians(122.9)), (0.1525, math.radians(116.6)), 0.145
#: Torsions phi of the residue after ACE that are tried, and the room that its atoms want [nm].
_PHI, _ROOM = np.radians(np.arange(-165.0, -45.0, 15.0)), 0.35


class CapBuilder:
    """Places the heavy atoms of a topology's caps, whatever the other atoms do.

    ACE turns about N-CA to where it has most room; NME and NH2 lie opposite to the oxygen of the residue before. All
    peptide bonds are trans.

    Parameters
    ----------
    topology : openmm.app.Topology
        Heavy atoms, with bonds to the caps; the caps' atoms have OpenMM's names.
    """

    def __init__(self, topology: app.Topology):
        self.inner = np.array([atom.index for atom in topology.atoms() if atom.residue.name not in CAPS])
        near = {frozenset((a.index, b.index)) for a, b in topology.bonds()}
        self.caps: list[tuple[str, list[int], list[int]]] = []  # name, its atoms, those that it hangs on
        residues = list(topology.residues())
        for residue in residues:
            if residue.name not in CAPS:
                continue
            own = {atom.name: atom.index for atom in residue.atoms()}
            end, other = ("C", "N") if residue.name == "ACE" else ("N", "C")
            for neighbour in residues[max(0, residue.index - 1) : residue.index + 2]:
                there = {atom.name: atom.index for atom in neighbour.atoms()}
                if frozenset((own[end], there.get(other, -1))) in near and neighbour is not residue:
                    names = ("C", "CA", "N") if residue.name == "ACE" else ("O", "CA", "C")
                    held = [there[name] for name in names]
                    self.caps.append((residue.name, [own[name] for name in CAP_ATOMS[residue.name]], held))

    def __call__(self, drawn: np.ndarray) -> np.ndarray:
        """Return all atoms of a frame.

        Parameters
        ----------
        drawn : ndarray
            (n_inner, 3) [nm] of the atoms of no cap, in the topology's order

        Returns
        -------
        ndarray
            (n_atoms, 3) [nm], float32
        """
        whole = np.zeros((len(self.inner) + sum(len(atoms) for _, atoms, _ in self.caps), 3))
        whole[self.inner] = drawn
        for name, atoms, held in self.caps:
            corners = whole[held]
            if name == "ACE":
                others = np.delete(np.asarray(drawn), np.searchsorted(self.inner, held), axis=0)
                trials = [_acetyl(corners, phi) for phi in _PHI]
                rooms = [np.minimum(cdist(trial, others).min(axis=1), _ROOM).sum() for trial in trials]
                whole[atoms] = trials[int(np.argmax(rooms))]
            else:
                whole[atoms] = _amide(corners)[: len(atoms)]
        return whole.astype(np.float32)


def _acetyl(corners: np.ndarray, phi: float) -> np.ndarray:
    """Return C, O and CH3 before a residue's C, CA and N, (3, 3) [nm], at a torsion C-N-CA-C [rad]."""
    c, ca, n = corners
    length, _, angle = residue_tables().peptide
    carbon = _placed(c, ca, n, (length, angle, phi))
    return np.stack([carbon, _placed(ca, n, carbon, (*_C_O, 0.0)), _placed(ca, n, carbon, (*_C_CH3, math.pi))])


def _amide(corners: np.ndarray) -> np.ndarray:
    """Return N and the methyl's carbon after a residue's O, CA and C, (3, 3) [nm]."""
    oxygen, ca, c = corners
    length, angle, next_angle = residue_tables().peptide
    nitrogen = _placed(oxygen, ca, c, (length, angle, math.pi))
    return np.stack([nitrogen, _placed(ca, c, nitrogen, (_N_CH3, next_angle, math.pi))])


def _placed(first: np.ndarray, second: np.ndarray, third: np.ndarray, internal: tuple[float, ...]) -> np.ndarray:
    points = (torch.tensor(point) for point in (first, second, third))
    return place(*points, torch.tensor(internal, dtype=torch.float64)).numpy()
