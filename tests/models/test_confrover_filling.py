"""The masked variant draws what is masked, and nothing else."""

import pytest
import torch
from scipy.spatial.transform import Rotation

from openmm_latent.errors import LatentError
from openmm_latent.models.confrover.filling import fill_masked
from openmm_latent.nn.frame_coordinates import FrameCoordinates, residue_frames
from rovers import CONFIG, KnownFrame, peptides, random_model

RESIDUES = peptides()[2].residues
FRAME = torch.tensor(peptides()[2].take(peptides()[1]), dtype=torch.float32)
MODEL = random_model(is_causal=False)
TIMES = torch.tensor([0.0, 10.0, 20.0, 40.0])
MASKED = torch.tensor([False, True, True, False])


def windows():
    """Return four frames, shaken by 5 pm and turned by one rotation: (4, 13, 15, 3) [nm]."""
    turn = torch.tensor(Rotation.random(random_state=2).as_matrix(), dtype=torch.float32)
    noise = 0.005 * torch.randn(4, *FRAME.shape, generator=torch.Generator().manual_seed(1))
    return (FRAME + noise) @ turn.T + 2.0


def filled(positions, masked=MASKED, model=MODEL, seed=3):
    return fill_masked(model, RESIDUES, positions, TIMES, masked, torch.Generator().manual_seed(seed))


def test_known_frames_stay_and_masked_ones_are_not_read():
    positions = windows()
    found = filled(positions)
    assert torch.equal(found[[0, 3]], positions[[0, 3]])
    other = positions.clone()
    other[1:3] = float("nan")
    assert torch.equal(filled(other), found)
    assert bool(torch.isfinite(found).all())


def test_each_frame_sees_the_known_ones_and_those_drawn_before():
    """A change of the last, known frame reaches both; other noise for the first reaches the second."""
    positions = windows()
    found, other = filled(positions), positions.clone()
    other[3] += 0.02 * torch.randn(FRAME.shape, generator=torch.Generator().manual_seed(5))
    changed = filled(other)
    assert float((changed[1] - found[1]).abs().max()) > 1e-4
    assert float((changed[2] - found[2]).abs().max()) > 1e-4
    swapped = positions.clone()
    swapped[1] = changed[1]
    kept = filled(swapped, torch.tensor([False, False, True, False]))
    again = positions.clone()
    again[1] = found[1]
    expected = filled(again, torch.tensor([False, False, True, False]))
    assert float((kept[2] - expected[2]).abs().max()) > 1e-5


def test_drawn_frames_lie_on_the_known_ones():
    model = random_model(is_causal=False)
    rotations, ca = residue_frames(FRAME[None])
    torsions = FrameCoordinates(RESIDUES).torsions(FRAME[None])
    model.decoder = KnownFrame(CONFIG, rotations[0], ca[0], torsions[0])
    found = filled(windows(), model=model)
    has_atom = torch.tensor(RESIDUES.has_atom)
    assert float((found[1] - found[0])[has_atom].norm(dim=-1).square().mean().sqrt()) < 0.04
    nothing_known = filled(windows(), torch.ones(4, dtype=torch.bool), model)
    torch.testing.assert_close(nothing_known[0], nothing_known[3], atol=1e-5, rtol=0)


def test_a_causal_model_and_other_shapes_are_refused():
    with pytest.raises(LatentError, match="model is causal and cannot see frames to come; fill with one trained with"):
        filled(windows(), model=random_model())
    with pytest.raises(LatentError, match=r"must have shape \(n_frames=4, n_residues=13, 15, 3\) .* got \(3,"):
        filled(windows()[:3])
