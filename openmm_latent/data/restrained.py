"""Minimise structures built on a Cα trace: hydrogens are added, Cα atoms are held, strained atoms give way.

Where a trace is no chain's, nothing that lies on it is sound. A structure that is can be pulled towards it instead, as
far as its bonds allow.
"""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import openmm
from openmm import app, unit

from openmm_latent.data.forcefields import build_system, force_field
from openmm_latent.data.platforms import choose_platform
from openmm_latent.errors import LatentError, require
from openmm_latent.geometry import dihedrals, superpose
from openmm_latent.metrics.violations import CLOSE_CUTOFF, MAX_OMEGA_DEVIATION, chirality_violations, clash_counts
from openmm_latent.topology import CAPS, bonded_neighbours, find_structure, whole_positions

#: Of the harmonic restraint of each Cα [kJ/mol/nm^2]: 1 kT is 1 pm^2 away.
STIFFNESS = 10_000.0
#: Of the restraint that keeps a stereocentre's hand [kJ/mol/rad^2], and how far the centre may bend without [rad].
_HAND_STIFFNESS, _HAND_FREE = 5000.0, 0.3
#: The same of the restraint that keeps a peptide bond cis or trans.
_OMEGA_STIFFNESS, _OMEGA_FREE = 1000.0, 0.35
#: Cα atoms on both sides of a cis peptide bond are nearer than this [nm]: 0.29, and 0.38 of a trans one.
_CIS = 0.34
#: Where minimisation stops [kJ/mol/nm].
_TOLERANCE = 10.0
#: A bond of another length by this share is broken.
_MAX_BOND_CHANGE = 0.25
#: Pulls to a trace, and steps of minimisation in each at most.
_N_PULLS, _N_PULL_STEPS = 10, 100
#: How much of the stiffness is left when what was pulled settles.
_SOFTER = 0.01
_RESTRAINT_GROUP = 31
#: A parameter that no force of the user's has.
_HOLD = "openmm_latent_hold"


@dataclass(frozen=True)
class Relaxation:
    """What minimisation made of a frame.

    Attributes
    ----------
    positions : ndarray
        (n_atoms, 3) [nm], with hydrogens
    energy_before, energy : float
        [kJ/mol] of the force field, without the restraints; before, hydrogens lie where they were put
    largest_move : float
        [nm] of a heavy atom
    clashes_before, clashes : int
        Pairs of heavy atoms nearer than 0.12 nm that are not bonded.
    is_sound : bool
        Whether bonds, hands and peptide bonds are those of the first frame, and no heavy atoms nearer than 0.11 nm.
    is_pulled : bool
        Whether this is the sound frame before, pulled towards the one that was drawn.
    """

    positions: np.ndarray
    energy_before: float
    energy: float
    largest_move: float
    clashes_before: int
    clashes: int
    is_sound: bool
    is_pulled: bool = False


class Soundness:
    """Counts what is wrong with frames of one topology, (n_frames, n_atoms, 3) [nm], measured by a sound structure."""

    def __init__(self, topology: app.Topology, structure: np.ndarray):
        found = find_structure(topology)
        self.structure = np.asarray(structure, dtype=np.float64)
        self.heavy = np.array([a.index for a in topology.atoms() if a.element is not app.element.hydrogen])
        heavy = set(self.heavy.tolist())
        pairs = [pair for pair in found.bonds if set(pair) <= heavy]
        self.bonds = np.searchsorted(self.heavy, np.array(pairs, dtype=np.int64).reshape(-1, 2))
        self.centres = np.array(found.chiral_centres, dtype=np.int64).reshape(-1, 4)
        self.omegas = np.array(found.omegas, dtype=np.int64).reshape(-1, 4)
        self.are_trans = np.abs(dihedrals(self.structure, self.omegas)) > 0.5 * np.pi
        atoms = list(topology.atoms())
        self.may_turn = np.array([atoms[omega[2]].residue.name == "PRO" for omega in found.omegas], dtype=bool)
        self.lengths = self._lengths(self.structure[None])

    def __call__(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        """Return the number of broken bonds, wrong hands, bent peptide bonds and clashes of each frame."""
        size = np.abs(dihedrals(frames, self.omegas))
        to_planar = np.where(self.are_trans, np.pi - size, size)
        to_planar = np.where(self.may_turn, np.minimum(size, np.pi - size), to_planar)
        return {
            "bonds": (np.abs(self._lengths(frames) / self.lengths - 1.0) > _MAX_BOND_CHANGE).sum(axis=1),
            "hands": chirality_violations(frames, self.centres, self.structure),
            "omegas": (to_planar > MAX_OMEGA_DEVIATION).sum(axis=1),
            "clashes below 0.11 nm": clash_counts(frames[:, self.heavy], self.bonds)["total"],
        }

    def are_sound(self, frames: np.ndarray) -> np.ndarray:
        """Return whether nothing is wrong with each frame, (n_frames,)."""
        return np.sum(list(self(frames).values()), axis=0) == 0

    def is_sound(self, positions: np.ndarray) -> bool:
        """Return whether nothing is wrong with a frame, (n_atoms, 3) [nm]."""
        return bool(self.are_sound(positions[None])[0])

    def _lengths(self, frames: np.ndarray) -> np.ndarray:
        heavy = frames[:, self.heavy]
        return np.linalg.norm(heavy[:, self.bonds[:, 0]] - heavy[:, self.bonds[:, 1]], axis=2)


class RestrainedMinimiser:
    """Adds hydrogens to frames of one protein's heavy atoms and minimises them with Cα atoms held where they are.

    Hydrogens of the first frame are OpenMM's Modeller's, for pH 7, or with a System the user's; those of the following
    ones lie the same way about their heavy atoms. Cysteines whose SG are bonded are bridges, others free thiols.
    Stereocentres keep the hand of the first frame, however atoms overlap. Peptide bonds stay cis or trans as each frame
    has them; but one that is cis before another residue than proline, over Cα atoms too far apart for it, is turned
    trans.

    Parameters
    ----------
    topology : openmm.app.Topology
        Heavy atoms with bonds; with a System all of its atoms.
    positions : ndarray
        (n_heavy, 3) [nm] of the first frame, or of all atoms of a System.
    solvent : str
        "obc2" or "vacuum", where there is no System.
    platform : str, optional
        The fastest unless given.
    stiffness : float
        [kJ/mol/nm^2] of each Cα atom's restraint
    n_iterations : int
        At most.
    system : openmm.System, optional
        The forces of a complex whose ligands amber14 does not know; it is copied. Ligands are free to move, but the
        hands of their tetrahedral atoms are held, too.

    Attributes
    ----------
    topology : openmm.app.Topology
        With hydrogens.

    Raises
    ------
    LatentError
        The force field does not know the residues, a hydrogen of the System hangs on nothing, or an argument is out of
        range.
    """

    def __init__(
        self,
        topology: app.Topology,
        positions: np.ndarray,
        solvent: str = "obc2",
        platform: str | None = None,
        stiffness: float = STIFFNESS,
        n_iterations: int = 500,
        system: openmm.System | None = None,
    ):
        require(stiffness > 0, f"stiffness must be positive [kJ/mol/nm^2], got {stiffness}; {STIFFNESS:g} is usual")
        require(n_iterations >= 1, f"n_iterations must be at least 1, got {n_iterations}")
        require(solvent in ("obc2", "vacuum"), f"solvent must be 'obc2' or 'vacuum' here, got {solvent!r}")
        self.n_iterations, self.stiffness = n_iterations, stiffness
        if system is None:
            self.topology, first = _with_hydrogens(topology, positions, solvent)
            system = build_system(self.topology, solvent)
        else:
            self.topology, first, system = topology, whole_positions(topology, positions).copy(), deepcopy(system)
            _require_hung(topology)
            for force in system.getForces():
                force.setForceGroup(0)  # that of the restraints is theirs alone
                if isinstance(force, openmm.NonbondedForce):
                    force.setReciprocalSpaceForceGroup(-1)
        atoms = list(self.topology.atoms())
        self.heavy = np.array([atom.index for atom in atoms if atom.element is not app.element.hydrogen])
        self._hang_hydrogens(first)
        first[self.hydrogens] = self._carried(first)
        self.restraint = openmm.CustomExternalForce(f"0.5*{_HOLD}*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
        self.restraint.addGlobalParameter(_HOLD, stiffness)
        for name in ("x0", "y0", "z0"):
            self.restraint.addPerParticleParameter(name)
        self.cas = [
            atom.index
            for atom in atoms
            if atom.name == "CA" and {"N", "C"} <= {other.name for other in atom.residue.atoms()}  # no calcium ion
        ]
        for atom in self.cas:
            self.restraint.addParticle(atom, first[atom])
        self.soundness = Soundness(self.topology, first)
        self.sound: np.ndarray | None = None  # the last frame that was, (n_atoms, 3) [nm]
        self.planes = self._planes()
        for force in (self.restraint, self._hands(first), self.planes):
            force.setForceGroup(_RESTRAINT_GROUP)
            system.addForce(force)
        chosen, properties, _ = choose_platform(platform, len(atoms))
        self.context = openmm.Context(system, openmm.VerletIntegrator(0.001), chosen, properties)

    def _hands(self, positions: np.ndarray) -> openmm.Force:
        """Return a force that keeps stereocentres as they are: atoms that overlap would else turn some inside out.

        It holds the hydrogen, too, on its side: one that was pushed through to the other would draw the rest after it.
        """
        force = openmm.CustomTorsionForce(f"0.5*{_HAND_STIFFNESS}*max(0, abs(theta-theta0)-{_HAND_FREE})^2")
        force.addPerTorsionParameter("theta0")
        centres = self.soundness.centres
        hydrogen_of = dict(zip(self.corners[:, 0].tolist(), self.hydrogens.tolist(), strict=True))
        beside = [[*centre[:3], hydrogen_of[centre[0]]] for centre in centres.tolist() if centre[0] in hydrogen_of]
        centres = np.concatenate([centres, np.array(beside, dtype=np.int64).reshape(-1, 4)])
        for centre, angle in zip(centres, dihedrals(positions[None], centres)[0], strict=True):
            force.addTorsion(*centre.tolist(), [float(angle)])
        return force

    def _planes(self) -> openmm.Force:
        """Return a force that holds peptide bonds near the form that each frame says."""
        force = openmm.CustomTorsionForce(
            f"0.5*{_OMEGA_STIFFNESS}*max(0, abs(off)-{_OMEGA_FREE})^2; "
            "off=theta-theta0-6.283185307179586*floor((theta-theta0)/6.283185307179586+0.5)"
        )
        force.addPerTorsionParameter("theta0")
        for omega in self.soundness.omegas.tolist():
            force.addTorsion(*omega, [np.pi])
        return force

    def _hold_planes(self, positions: np.ndarray) -> None:
        """Tell the force the form of each peptide bond of a frame, (n_atoms, 3) [nm]."""
        omegas = self.soundness.omegas
        if len(omegas) == 0:
            return
        is_cis = np.abs(dihedrals(positions[None], omegas)[0]) < 0.5 * np.pi
        ends = positions[omegas[:, 0]] - positions[omegas[:, 3]]
        is_cis &= self.soundness.may_turn | (np.linalg.norm(ends, axis=1) < _CIS)
        for number, (omega, stays_cis) in enumerate(zip(omegas.tolist(), is_cis, strict=True)):
            self.planes.setTorsionParameters(number, *omega, [0.0 if stays_cis else np.pi])
        self.planes.updateParametersInContext(self.context)

    def _hang_hydrogens(self, positions: np.ndarray) -> None:
        """Note for each hydrogen three heavy atoms, and where it lies in the frame that they make.

        One whose heavy atom has three other neighbours lies opposite to these. Modeller may leave it on the side of the
        others where atoms are crowded, and minimisation would then turn the centre inside out.
        """
        near = bonded_neighbours(self.topology)
        heavy = set(self.heavy.tolist())
        self.hydrogens = np.array([i for i in range(len(positions)) if i not in heavy], dtype=np.int64)
        corners = []
        positions = positions.copy()
        for hydrogen in self.hydrogens:
            parent = near[hydrogen][0]
            ring = [atom for atom in near[parent] if atom in heavy]
            beyond = [k for j in ring for k in near[j] if k in heavy and k != parent and k not in ring]
            corners.append([parent, *(ring + beyond)[:2]])
            if len(ring) == 3:
                arms = positions[ring] - positions[parent]
                opposite = -(arms / np.linalg.norm(arms, axis=1, keepdims=True)).sum(axis=0)
                positions[hydrogen] = positions[parent] + 0.109 * opposite / np.linalg.norm(opposite)
        self.corners = np.array(corners, dtype=np.int64).reshape(-1, 3)
        origin, axes = _frames(positions, self.corners)
        self.local = np.einsum("hij,hi->hj", axes, positions[self.hydrogens] - origin)

    def _carried(self, positions: np.ndarray) -> np.ndarray:
        """Return where hydrogens lie about the heavy atoms of a frame: (n_atoms, 3) -> (n_hydrogens, 3) [nm]."""
        origin, axes = _frames(positions, self.corners)
        return origin + np.einsum("hij,hj->hi", axes, self.local)

    def __call__(self, positions: np.ndarray) -> tuple[np.ndarray, float]:
        """Minimise one frame; return `positions` and `energy` of its `Relaxation`."""
        done = self.relax(positions)
        return done.positions, done.energy

    def relax(self, positions: np.ndarray, may_pull: bool = False) -> Relaxation:
        """Minimise one frame.

        Parameters
        ----------
        positions : ndarray
            (n_heavy, 3) [nm], in the order of the heavy topology
        may_pull : bool
            Whether a frame that stays unsound is replaced by the last sound one, its Cα atoms pulled towards this
            frame's, step by step, for as long as it stays sound. The first frame is pulled from nowhere.

        Raises
        ------
        LatentError
            The frame has another number of atoms, or its energy is not finite whatever gives way.
        """
        positions = np.asarray(positions, dtype=np.float64)
        require(
            positions.shape == (len(self.heavy), 3) and bool(np.isfinite(positions).all()),
            f"positions must be finite and of shape (n_heavy={len(self.heavy)}, 3) [nm], got {positions.shape}; give "
            f"those of the topology's heavy atoms",
        )
        whole = np.zeros((self.topology.getNumAtoms(), 3))
        whole[self.heavy] = positions
        whole[self.hydrogens] = self._carried(whole)
        is_pulled = False
        try:
            self.context.setPositions(whole)
            before = self._energy()
            relaxed = self._minimised(whole, whole[self.cas], self.n_iterations)
            is_sound = self.soundness.is_sound(relaxed)
            if not is_sound and may_pull and self.sound is not None:
                relaxed = self._pulled(self.sound, whole[self.cas])
                is_pulled = is_sound = True
        except openmm.OpenMMException as error:
            raise LatentError(f"a frame cannot be minimised ({error}); draw it with another seed") from error
        if is_sound:
            self.sound = relaxed
        self.context.setPositions(relaxed)
        pair = np.stack([positions, relaxed[self.heavy]])
        clashes = clash_counts(pair, self.soundness.bonds, cutoff=CLOSE_CUTOFF)["total"]
        move = float(np.linalg.norm(pair[1] - pair[0], axis=1).max())
        return Relaxation(relaxed, before, self._energy(), move, *map(int, clashes), is_sound, is_pulled)

    def _minimised(self, positions: np.ndarray, trace: np.ndarray, n_iterations: int) -> np.ndarray:
        """Minimise positions, (n_atoms, 3), with Cα atoms held at a trace, (n_residues, 3) [nm]."""
        for number, (atom, place) in enumerate(zip(self.cas, trace, strict=True)):
            self.restraint.setParticleParameters(number, atom, place)
        self.restraint.updateParametersInContext(self.context)
        self._hold_planes(positions)
        self.context.setPositions(positions)
        openmm.LocalEnergyMinimizer.minimize(self.context, _TOLERANCE, n_iterations)
        return self.context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)

    def _pulled(self, positions: np.ndarray, trace: np.ndarray) -> np.ndarray:
        """Pull the Cα atoms of a sound structure, (n_atoms, 3), towards a trace [nm], as long as it stays sound."""
        there, weights = positions.copy(), np.zeros(len(positions))
        there[self.cas], weights[self.cas] = trace, 1.0
        positions = superpose(positions, there, weights)
        begun = positions[self.cas]
        for share in np.linspace(0.0, 1.0, _N_PULLS + 1)[1:]:
            nearer = self._minimised(positions, begun + share * (trace - begun), _N_PULL_STEPS)
            if not self.soundness.is_sound(nearer):
                break
            positions = nearer
        # It hangs strained on a trace that no chain can follow.
        self.context.setParameter(_HOLD, _SOFTER * self.stiffness)
        eased = self._minimised(positions, positions[self.cas], self.n_iterations)
        self.context.setParameter(_HOLD, self.stiffness)
        return eased if self.soundness.is_sound(eased) else positions

    def _energy(self) -> float:
        """Return the energy without restraints [kJ/mol]."""
        state = self.context.getState(energy=True, groups=set(range(_RESTRAINT_GROUP)))
        return state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


def _require_whole(topology: app.Topology) -> None:
    """Refuse a chain with a break, where the force field has no form for the residues on both sides."""
    bonded = {frozenset((a.index, b.index)) for a, b in topology.bonds()}
    for chain in topology.chains():
        residues = list(chain.residues())
        for before, after in pairwise(residues):
            ends = [atom.index for atom in before.atoms() if atom.name == "C"]
            starts = [atom.index for atom in after.atoms() if atom.name == "N"]
            is_capped = before.name in CAPS and before.name != "ACE"
            require(
                is_capped or any(frozenset((c, n)) in bonded for c in ends for n in starts),
                f"chain {chain.id} is broken after {before.name} {before.id}, and hydrogens are added to whole chains "
                f"alone; do without --relax, or give both pieces caps, or chains of their own",
            )


def _require_hung(topology: app.Topology) -> None:
    """Refuse atoms of a System that nothing places: each hydrogen wants three heavy atoms that hang together."""
    neighbours = bonded_neighbours(topology)
    hydrogens = {atom.index for atom in topology.atoms() if atom.element is app.element.hydrogen}
    for atom in topology.atoms():
        where = f"{atom.name} of residue {atom.residue.name} {atom.residue.id}"
        require(
            atom.element is not None,
            f"top (--top) has {where}, which has no element; virtual sites cannot be relaxed here",
        )
        if atom.index not in hydrogens:
            continue
        near = neighbours[atom.index]
        reached = set(near)
        for _ in range(2):
            reached |= {one for i in reached for one in neighbours[i] if one not in hydrogens}
        require(
            len(near) == 1 and len(reached) >= 3,
            f"top (--top) has the hydrogen {where} with {len(near)} bonds and {len(reached)} heavy atoms in reach; it "
            f"takes one bond and three atoms to say where it lies: leave such molecules out, or give CONECT records",
        )


def _with_hydrogens(topology: app.Topology, positions: np.ndarray, solvent: str) -> tuple[app.Topology, np.ndarray]:
    """Add hydrogens; Modeller draws from Python's `random`, whose state is put back."""
    _require_whole(topology)
    modeller = app.Modeller(topology, np.asarray(positions) * unit.nanometer)
    state = random.getstate()
    random.seed(1)
    try:
        modeller.addHydrogens(force_field(solvent), pH=7.0)
    except (ValueError, openmm.OpenMMException) as error:
        raise LatentError(
            f"hydrogens cannot be added ({' '.join(str(error).split())}); give the whole complex and its forces, where "
            f"a ligand is in the way (`sample --top --system`), or do without --relax"
        ) from error
    finally:
        random.setstate(state)
    return modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer))


def _frames(positions: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return origin (h, 3) and axes (h, 3, 3), as columns, of frames that three atoms each make."""
    origin = positions[corners[:, 0]]
    first = positions[corners[:, 1]] - origin
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    across = positions[corners[:, 2]] - origin
    across -= (across * first).sum(axis=1, keepdims=True) * first
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    return origin, np.stack([first, across, np.cross(first, across)], axis=2)
