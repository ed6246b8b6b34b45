"""Minimisation over a Cα trace: bridges close, peptide bonds stay cis or trans, and what was done is told."""

from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_latent.data.forcefields import build_system
from openmm_latent.data.restrained import RestrainedMinimiser, Soundness
from openmm_latent.errors import LatentError
from openmm_latent.geometry import dihedrals
from openmm_latent.metrics.violations import clash_counts

PDB = app.PDBFile(str(Path(__file__).parent / "capped_peptide.pdb"))


def heavy_peptide():
    """Return the heavy atoms of ACE-CHAPHIHC-NME, with a bridge: topology and positions (n_heavy, 3) [nm]."""
    modeller = app.Modeller(PDB.topology, PDB.positions)
    modeller.delete([atom for atom in PDB.topology.atoms() if atom.element == app.element.hydrogen])
    return modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer))


TOPOLOGY, POSITIONS = heavy_peptide()
PLACES = {(atom.residue.index, atom.name): atom.index for atom in TOPOLOGY.atoms()}
BONDS = np.array([(a.index, b.index) for a, b in TOPOLOGY.bonds()])


@pytest.fixture(scope="module")
def minimiser():
    return RestrainedMinimiser(TOPOLOGY, POSITIONS, "vacuum", "Reference", n_iterations=300)


def with_cis_bond(residue, positions=POSITIONS):
    """Return a frame whose peptide bond after a residue is cis over the Cα atoms of a trans one."""
    frame = positions.copy()
    first, last = frame[PLACES[residue, "CA"]], frame[PLACES[residue + 1, "CA"]]
    along = (last - first) / np.linalg.norm(last - first)
    across = frame[PLACES[residue, "O"]] - first
    across -= across @ along * along
    across /= np.linalg.norm(across)
    middle = 0.5 * (first + last)
    frame[PLACES[residue, "C"]] = middle - 0.066 * along + 0.085 * across
    frame[PLACES[residue + 1, "N"]] = middle + 0.066 * along + 0.085 * across
    frame[PLACES[residue, "O"]] = middle - 0.12 * along + 0.19 * across
    return frame


def omega(positions, residue, places=PLACES):
    names = [(residue, "CA"), (residue, "C"), (residue + 1, "N"), (residue + 1, "CA")]
    return np.degrees(np.abs(dihedrals(positions[None], np.array([[places[name] for name in names]]))[0, 0]))


def heavy_of(minimiser, done):
    return done.positions[minimiser.heavy]


def test_a_settled_frame_hardly_moves_and_the_report_says_so(minimiser):
    done = minimiser.relax(POSITIONS)
    assert minimiser.topology.getNumAtoms() in (126, 127, 128)  # forms of histidine are Modeller's choice
    assert done.energy < done.energy_before
    assert done.largest_move < 0.06
    assert (done.clashes_before, done.clashes) == (0, 0)
    np.testing.assert_array_equal(minimiser(POSITIONS)[0], done.positions)


def test_clashes_are_counted_before_and_after(minimiser):
    crowded = POSITIONS.copy()
    crowded[PLACES[3, "CB"]] = crowded[PLACES[6, "CD1"]] + 0.05
    done = minimiser.relax(crowded)
    expected = clash_counts(crowded[None], BONDS, cutoff=0.12)["total"][0]
    assert done.clashes_before == expected > 0
    assert done.clashes == 0
    assert done.energy < done.energy_before
    assert done.largest_move == pytest.approx(np.linalg.norm(heavy_of(minimiser, done) - crowded, axis=1).max())


def test_a_bridge_is_a_bond_that_closes(minimiser):
    sulphurs = [PLACES[1, "SG"], PLACES[8, "SG"]]
    opened = POSITIONS.copy()
    opened[sulphurs[0]] += 0.1 * (opened[sulphurs[0]] - opened[sulphurs[1]]) / 0.2
    done = heavy_of(minimiser, minimiser.relax(opened))
    assert np.linalg.norm(done[sulphurs[0]] - done[sulphurs[1]]) == pytest.approx(0.205, abs=0.01)
    named = {(atom.residue.index, atom.name) for atom in minimiser.topology.atoms()}
    assert not {(1, "HG"), (8, "HG")} & named


def test_peptide_bonds_are_turned_trans_but_before_proline(minimiser):
    """Over Cα atoms 0.38 nm apart: isoleucine's cis bond cannot be meant, proline's may."""
    assert [PDB.topology.getNumResidues(), omega(POSITIONS, 3) > 150, omega(POSITIONS, 5) > 150] == [10, True, True]
    for residue, is_before_proline in ((3, True), (5, False)):
        drawn = with_cis_bond(residue)
        assert omega(drawn, residue) < 5
        done = heavy_of(minimiser, minimiser.relax(drawn))
        found = omega(done, residue)
        assert found < 60 if is_before_proline else found > 130, found
    # and the next frame is judged anew
    assert omega(heavy_of(minimiser, minimiser.relax(POSITIONS)), 3) > 150


def test_trans_bonds_stay_trans_where_atoms_push(minimiser):
    shaken = POSITIONS + 0.03 * np.random.default_rng(2).normal(size=POSITIONS.shape)
    done = heavy_of(minimiser, minimiser.relax(shaken))
    assert min(omega(done, residue) for residue in range(1, 8)) > 150


def test_frames_of_another_shape_are_refused(minimiser):
    with pytest.raises(LatentError, match=r"positions must be finite and of shape \(n_heavy=67, 3\) \[nm\], got"):
        minimiser.relax(POSITIONS[1:])
    with pytest.raises(LatentError, match="positions must be finite"):
        minimiser.relax(np.full_like(POSITIONS, np.nan))


def test_a_broken_chain_is_refused():
    modeller = app.Modeller(TOPOLOGY, POSITIONS * unit.nanometer)
    modeller.delete([residue for residue in TOPOLOGY.residues() if residue.name == "PRO"])
    with pytest.raises(
        LatentError, match="chain A is broken after ALA 3, and hydrogens are added to whole chains alone"
    ):
        RestrainedMinimiser(modeller.topology, np.array(modeller.positions._value), "vacuum", "Reference")


def test_a_trace_that_is_no_chain_is_approached_from_the_sound_frame_before():
    minimiser = RestrainedMinimiser(TOPOLOGY, POSITIONS, "vacuum", "Reference", n_iterations=300)
    torn = 3.0 * POSITIONS  # no bond can reach that far
    alone = minimiser.relax(torn, may_pull=True)
    assert (alone.is_sound, alone.is_pulled) == (False, False)  # there is no sound frame yet
    settled = minimiser.relax(POSITIONS)
    assert settled.is_sound
    assert not minimiser.relax(torn).is_sound
    pulled = minimiser.relax(torn, may_pull=True)
    assert (pulled.is_sound, pulled.is_pulled) == (True, True)
    assert minimiser.soundness.is_sound(pulled.positions)

    def spread(done):
        return np.linalg.norm(np.ptp(done.positions[minimiser.cas], axis=0))

    assert spread(pulled) > 1.05 * spread(settled)  # it went some of the way
    again = minimiser.relax(POSITIONS, may_pull=True)
    assert (again.is_sound, again.is_pulled) == (True, False)


@pytest.mark.parametrize(
    ("fault", "name"),
    [("bond", "bonds"), ("mirror", "hands"), ("cis", "omegas"), ("overlap", "clashes below 0.11 nm")],
)
def test_what_is_wrong_with_a_frame_is_counted(fault, name):
    soundness = Soundness(TOPOLOGY, POSITIONS)
    assert soundness.is_sound(POSITIONS)
    frame = POSITIONS.copy()
    if fault == "bond":
        frame[PLACES[3, "O"]] += 0.3
    elif fault == "mirror":
        frame *= [1.0, 1.0, -1.0]
    elif fault == "cis":
        assert soundness(with_cis_bond(3)[None])[name][0] == 0  # before proline
        frame = with_cis_bond(5)
    else:
        frame[PLACES[2, "CB"]] = frame[PLACES[5, "CB"]] + 0.05
    assert soundness(frame[None])[name][0] > 0
    assert not soundness.is_sound(frame)


def test_a_users_forces_keep_their_parameters_and_count_in_the_energy():
    """In the group and by the names that the restraints had best."""
    topology, start = PDB.topology, np.array(PDB.positions.value_in_unit(unit.nanometer))
    system = build_system(topology, "vacuum")
    plain = RestrainedMinimiser(topology, start, platform="Reference", n_iterations=1, system=system)
    pull = openmm.CustomExternalForce("stiffness+rigidity+free")
    for name, value in (("stiffness", 1000.0), ("rigidity", 200.0), ("free", 30.0)):
        pull.addGlobalParameter(name, value)
    pull.addParticle(0, [])
    pull.setForceGroup(31)
    system.addForce(pull)
    pulled = RestrainedMinimiser(topology, start, platform="Reference", n_iterations=1, system=system)
    heavy = start[plain.heavy]
    assert pulled.relax(heavy).energy_before == pytest.approx(plain.relax(heavy).energy_before + 1230.0, abs=0.1)
    assert pull.getForceGroup() == 31


@pytest.mark.parametrize(
    ("bonds", "told"),
    [
        (((0, 1), (0, 2)), "H1 of residue HOH 1 with 1 bonds and 1 heavy"),
        ((), "H1 of residue HOH 1 with 0 bonds and 0"),
    ],
    ids=["too few atoms", "no bonds"],
)
def test_hydrogens_of_a_system_that_nothing_places_are_named(bonds, told):
    topology, system = app.Topology(), openmm.System()
    residue = topology.addResidue("HOH", topology.addChain())
    atoms = [topology.addAtom(name, app.Element.getBySymbol(name[0]), residue) for name in ("O", "H1", "H2")]
    for first, second in bonds:
        topology.addBond(atoms[first], atoms[second])
    for atom in atoms:
        system.addParticle(atom.element.mass)
    with pytest.raises(LatentError, match=told):
        RestrainedMinimiser(topology, np.eye(3), platform="Reference", system=system)
