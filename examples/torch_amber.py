"""Amber's energy in torch, for example 05: it stands where you would have a learned potential."""

import openmm
import torch
from openmm.unit import is_quantity, md_unit_system
from torch import Tensor


class Amber(torch.nn.Module):
    """Energy [kJ/mol] of positions (n_atoms, 3) [nm], by the terms of an OpenMM System in vacuum."""

    def __init__(self, system: openmm.System) -> None:
        super().__init__()
        forces = {type(force): force for force in system.getForces()}
        bonds, angles = forces[openmm.HarmonicBondForce], forces[openmm.HarmonicAngleForce]
        torsions, nonbonded = forces[openmm.PeriodicTorsionForce], forces[openmm.NonbondedForce]
        self.bonds, self.bond_terms = _table(bonds.getBondParameters, bonds.getNumBonds(), 2)
        self.angles, self.angle_terms = _table(angles.getAngleParameters, angles.getNumAngles(), 3)
        self.torsions, self.torsion_terms = _table(torsions.getTorsionParameters, torsions.getNumTorsions(), 4)
        self.pairs, self.pair_terms = _pairs(nonbonded)

    def forward(self, positions: Tensor) -> Tensor:
        x = positions.double()
        length, stiffness = self.bond_terms[0], self.bond_terms[1]
        energy = 0.5 * (stiffness * ((x[self.bonds[0]] - x[self.bonds[1]]).norm(2, 1) - length) ** 2).sum()

        a, b = x[self.angles[0]] - x[self.angles[1]], x[self.angles[2]] - x[self.angles[1]]
        angle = torch.atan2(torch.cross(a, b, dim=1).norm(2, 1), (a * b).sum(1))
        energy = energy + 0.5 * (self.angle_terms[1] * (angle - self.angle_terms[0]) ** 2).sum()

        a = x[self.torsions[1]] - x[self.torsions[0]]
        axis = x[self.torsions[2]] - x[self.torsions[1]]
        b = x[self.torsions[3]] - x[self.torsions[2]]
        m, n = torch.cross(a, axis, dim=1), torch.cross(axis, b, dim=1)
        phi = torch.atan2(axis.norm(2, 1) * (a * n).sum(1), (m * n).sum(1))
        periodicity, phase, height = self.torsion_terms[0], self.torsion_terms[1], self.torsion_terms[2]
        energy = energy + (height * (1 + torch.cos(periodicity * phi - phase))).sum()

        distance = (x[self.pairs[0]] - x[self.pairs[1]]).norm(2, 1)
        coulomb = 138.935457  # 1 / (4 pi epsilon_0) [kJ/mol nm/e^2]
        charges, width, depth = self.pair_terms[0], self.pair_terms[1], self.pair_terms[2]
        sixth = (width / distance) ** 6
        return energy + (coulomb * charges / distance + 4 * depth * (sixth**2 - sixth)).sum()


def _table(get, n_rows: int, n_atoms: int) -> tuple[Tensor, Tensor]:
    """Return the atoms (n_atoms, n_rows) and the parameters (n_parameters, n_rows) of one kind of term."""
    rows = [[x.value_in_unit_system(md_unit_system) if is_quantity(x) else x for x in get(i)] for i in range(n_rows)]
    columns = torch.tensor(rows, dtype=torch.float64).T
    return columns[:n_atoms].long(), columns[n_atoms:]


def _pairs(nonbonded: openmm.NonbondedForce) -> tuple[Tensor, Tensor]:
    """Return all pairs (2, n_pairs), those with parameters of their own last, and charge product, width and depth."""
    special, special_terms = _table(nonbonded.getExceptionParameters, nonbonded.getNumExceptions(), 2)
    _, (charge, width, depth) = _table(nonbonded.getParticleParameters, nonbonded.getNumParticles(), 0)
    i, j = torch.triu_indices(len(charge), len(charge), 1)
    terms = torch.stack([charge[i] * charge[j], (width[i] + width[j]) / 2, (depth[i] * depth[j]).sqrt()])
    is_plain = torch.ones(len(charge), len(charge), dtype=torch.bool)
    is_plain[special.min(0).values, special.max(0).values] = False
    keep = is_plain[i, j]
    return torch.cat([torch.stack([i, j])[:, keep], special], 1), torch.cat([terms[:, keep], special_terms], 1)
