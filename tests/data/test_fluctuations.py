"""Backbones and frames of residues, and the covariances that trajectories give them."""

import numpy as np
import pytest
from openmm import app
from scipy.spatial.transform import Rotation

from openmm_latent.data import open_dataset
from openmm_latent.data.backbone import RESIDUE_NAMES, UNKNOWN, Backbone, read_backbone, residue_frames, residue_type
from openmm_latent.data.fluctuations import fluctuations, protein_example, read_examples
from openmm_latent.errors import LatentError

CARBON, NITROGEN = app.Element.getBySymbol("C"), app.Element.getBySymbol("N")


def topology_of(*chains, atoms=("N", "CA", "CB", "C")):
    """Return a topology of these residue names, each with these atoms; names in lower case have one atom X."""
    topology = app.Topology()
    for names in chains:
        chain = topology.addChain()
        for name in names:
            residue = topology.addResidue(name.upper(), chain)
            for atom in ("X",) if name.islower() else atoms:
                topology.addAtom(atom, NITROGEN if atom == "N" else CARBON, residue)
    return topology


def test_backbone_leaves_out_what_is_no_protein():
    backbone = read_backbone(topology_of(["ace", "ALA", "HIE", "MSE", "nme"], ["LIG"], ["hoh", "hoh"], ["VAL", "hoh"]))
    names = [RESIDUE_NAMES[t] if t != UNKNOWN else None for t in backbone.residue_types]
    assert names == ["ALA", "HIS", "MET", None, "VAL"]
    assert backbone.chains.tolist() == [0, 0, 0, 1, 3]
    assert backbone.residue_index.tolist() == [1, 2, 3, 5, 8]
    assert backbone.n.tolist() == [1, 5, 9, 14, 20]
    assert (backbone.ca - backbone.n).tolist() == [1] * 5
    assert (backbone.c - backbone.n).tolist() == [3] * 5
    assert backbone.atoms[:6].tolist() == [1, 2, 4, 5, 6, 8]


@pytest.mark.parametrize(
    ("names", "parent"),
    [
        ("HIS HID HIE HIP HSD HSE HSP", "HIS"),
        ("CYS CYX CYM", "CYS"),
        ("ASP ASH", "ASP"),
        ("GLU GLH", "GLU"),
        ("LYS LYN", "LYS"),
        ("MET MSE", "MET"),
        ("SER SEP", "SER"),
    ],
)
def test_variants_count_as_their_parent(names, parent):
    assert {residue_type(name) for name in names.split()} == {RESIDUE_NAMES.index(parent)}


def test_residue_types_are_alphabetical_and_others_unknown():
    assert list(RESIDUE_NAMES) == sorted(RESIDUE_NAMES)
    assert [residue_type(name) for name in ("ALA", "VAL", "LIG", "HOH")] == [0, 19, 20, 20]


def test_traces_and_other_systems_are_told_apart():
    with pytest.raises(LatentError, match="only the Cα atoms of 2 residues"):
        read_backbone(topology_of(["ALA", "GLY"], atoms=("CA",)))
    with pytest.raises(LatentError, match="no residue with atoms N, CA and C"):
        read_backbone(topology_of(["hoh"], ["CA"], atoms=("CA",)))


def test_frames_turn_with_the_molecule_and_point_where_they_should():
    rng = np.random.default_rng(1)
    backbone = read_backbone(topology_of(["ALA", "GLY", "TRP"]))
    positions = rng.normal(size=(5, 12, 3))
    rotations, ca = backbone.frames(positions)
    np.testing.assert_allclose(
        rotations @ rotations.swapaxes(-1, -2), np.broadcast_to(np.eye(3), (5, 3, 3, 3)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1.0)
    to_c = np.einsum("fnac,fna->fnc", rotations, positions[:, backbone.c] - ca)
    to_n = np.einsum("fnac,fna->fnc", rotations, positions[:, backbone.n] - ca)
    np.testing.assert_allclose(to_c[..., 1:], 0.0, atol=1e-12)
    np.testing.assert_allclose(to_n[..., 2], 0.0, atol=1e-12)
    assert to_c[..., 0].min() > 0
    assert to_n[..., 1].min() > 0
    turn = Rotation.random(random_state=2).as_matrix()
    turned = backbone.frames(positions @ turn.T + 3.0)[0]
    np.testing.assert_allclose(turned, turn @ rotations, atol=1e-9)


def test_atoms_on_a_line_have_no_frame():
    line = np.arange(3.0)[:, None] * np.ones(3)
    with pytest.raises(LatentError, match="N, CA and C on one line in residue 0"):
        residue_frames(*line[:, None])


def ensemble(n_frames, seed=1, n=8, tumbling=True):
    """Return Cα of a random structure, its covariance without rigid motions, and frames drawn from them."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=(n, 3))
    mean -= mean.mean(axis=0)
    shifts = np.tile(np.eye(3), (n, 1))
    turns = np.stack([np.cross(axis, mean).reshape(-1) for axis in np.eye(3)], axis=1)
    rigid = np.linalg.qr(np.concatenate([shifts, turns], axis=1))[0]
    projector = np.eye(3 * n) - rigid @ rigid.T
    root = projector @ rng.normal(size=(3 * n, 3 * n)) * 0.003
    frames = mean + (rng.normal(size=(n_frames, 3 * n)) @ root.T).reshape(-1, n, 3)
    if tumbling:
        frames = frames @ Rotation.random(n_frames, random_state=seed).as_matrix() + rng.normal(size=(n_frames, 1, 3))
    return mean, root @ root.T, frames


def test_covariance_is_that_of_the_ensemble_whatever_its_pose():
    """20 000 frames: entries of a covariance are right to 1 %, so a relative error of 5 % has a chance below 1e-6."""
    mean, covariance, frames = ensemble(20_000)
    found = fluctuations([frames[:15_000], frames[15_000:]])
    assert found.n_frames == 20_000
    moved = found.mean.T @ mean  # turn the result back on the structure that made the frames
    left, _, right = np.linalg.svd(moved)
    turn = np.kron(np.eye(len(mean)), (left @ right).T)
    joint = turn @ found.joint @ turn.T
    assert np.linalg.norm(joint - covariance) < 0.05 * np.linalg.norm(covariance)
    assert np.linalg.eigvalsh(found.joint)[:6].max() < 1e-3 * np.linalg.eigvalsh(found.joint)[6]


def test_covariance_divides_by_one_less_than_the_frames():
    _, _, frames = ensemble(40, tumbling=False)
    found = fluctuations([frames])
    from openmm_latent.geometry import superpose

    apart = (superpose(frames, found.mean) - found.mean).reshape(40, -1)
    np.testing.assert_allclose(found.joint, apart.T @ apart / 39, atol=1e-8)
    np.testing.assert_allclose(apart.mean(axis=0), 0.0, atol=1e-5)


def test_nearest_frame_is_found_in_its_trajectory():
    mean, _, frames = ensemble(30)
    frames[22] = mean
    found = fluctuations([frames[:12], frames[12:]])
    assert found.nearest == (1, 10)


def whole_residues(n_frames, seed=1):
    """Return a topology of eight residues and frames of all its atoms, which move with their Cα."""
    _, _, ca = ensemble(n_frames, seed, tumbling=False)
    offsets = 0.1 * np.random.default_rng(seed + 5).normal(size=(8, 4, 3))
    offsets[:, 1] = 0.0
    return topology_of(RESIDUE_NAMES[:5], RESIDUE_NAMES[5:8]), (ca[:, :, None] + offsets).reshape(n_frames, 32, 3)


def tumbled(frames, seed=3):
    rng = np.random.default_rng(seed)
    return frames @ Rotation.random(len(frames), random_state=seed).as_matrix() + rng.normal(size=(len(frames), 1, 3))


def test_labels_do_not_depend_on_the_pose():
    topology, frames = whole_residues(200)
    here = protein_example(topology, [frames], structure=frames[0])
    there = protein_example(topology, [tumbled(frames)], structure=tumbled(frames[:1], 9)[0])
    np.testing.assert_allclose(there.marginal, here.marginal, atol=1e-9)
    np.testing.assert_allclose(there.coupling, here.coupling, atol=1e-9)
    assert there.chains.tolist() == [0] * 5 + [1] * 3


def test_marginals_coupling_and_joint_covariance_agree():
    topology, frames = whole_residues(100)
    example = protein_example(topology, [frames], keeps_joint=True, name="eight")
    blocks = example.joint.reshape(8, 3, 8, 3)
    for i in range(8):
        marginal = example.rotations[i].T @ blocks[i, :, i] @ example.rotations[i]
        np.testing.assert_allclose(example.marginal[i], marginal, atol=1e-12)
        for j in range(8):
            assert abs(example.coupling[i, j] - np.trace(blocks[i, :, j]) / 3) < 1e-12
    np.testing.assert_allclose(example.coupling.sum(axis=0), 0.0, atol=1e-9)  # no motion as a whole
    np.testing.assert_allclose(example.rmsf**2, 3 * np.diag(example.coupling))
    assert (example.name, len(example), example.n_frames) == ("eight", 8, 100)


def test_frames_of_some_atoms_give_the_same_example():
    topology, frames = whole_residues(50)
    backbone = read_backbone(topology)
    some = np.concatenate([backbone.atoms[::-1], [2, 6]])
    one = protein_example(topology, [frames[:20], frames[20:]])
    other = protein_example(topology, [frames[:20][:, some], frames[20:][:, some]], atoms=some)
    np.testing.assert_allclose(other.marginal, one.marginal)
    np.testing.assert_allclose(other.rotations, one.rotations)


def test_bad_trajectories_are_told():
    topology, frames = whole_residues(50)
    with pytest.raises(LatentError, match="at least 10 frames together, got 6"):
        protein_example(topology, [frames[:4], frames[:2]])
    with pytest.raises(LatentError, match=r"trajectory 1 of thing must have shape \(n_frames, n_atoms >= 32, 3\)"):
        protein_example(topology, [frames, frames[:, :20]], name="thing")
    with pytest.raises(LatentError, match="atoms lack 1 of the backbone's N, CA and C, such as"):
        protein_example(topology, [frames[:, 1:]], atoms=range(1, 32))
    with pytest.raises(LatentError, match="trajectories must hold at least one"):
        protein_example(topology, [])
    with pytest.raises(LatentError, match="of the same residues"):
        fluctuations([frames, frames[:, :5]])
    broken = frames.copy()
    broken[7] = np.nan
    with pytest.raises(LatentError, match="coordinates that are not numbers"):
        protein_example(topology, [broken])
    with pytest.raises(LatentError, match=r"positions must have shape \(\.\.\., n_atoms >= 32, 3\)"):
        protein_example(topology, [frames], structure=frames[0, :9])


def test_examples_come_from_a_folder(tmp_path):
    import mdtraj

    topology, frames = whole_residues(40)
    for name, seed in (("first", 1), ("second", 2)):
        frames = whole_residues(40, seed)[1]
        trajectory = mdtraj.Trajectory(frames, mdtraj.Topology.from_openmm(topology))
        (tmp_path / name).mkdir()
        trajectory[0].save(str(tmp_path / name / f"{name}.pdb"))
        for run in range(2):
            trajectory[20 * run : 20 * run + 20].save(str(tmp_path / name / f"{name}_{run}.xtc"))
    dataset = open_dataset(tmp_path, frame_spacing=1.0)
    examples = read_examples(dataset)
    assert [(example.name, len(example), example.n_frames) for example in examples] == [
        ("first", 8, 40),
        ("second", 8, 40),
    ]
    expected = protein_example(topology, [frames])
    np.testing.assert_allclose(examples[1].coupling, expected.coupling, atol=2e-5)  # XTC keeps 0.001 nm
    assert read_examples(dataset, ["second"], stride=2)[0].n_frames == 20


def test_backbones_are_plain_data():
    backbone = read_backbone(topology_of(["ALA"]))
    assert isinstance(backbone, Backbone)
    assert len(backbone) == 1
