"""Precomputed features of a sequence: read, checked, and put into a model."""

import numpy as np
import pytest
import torch

from openmm_latent.errors import LatentError
from openmm_latent.models.confrover.features import LETTERS, read_features, sequence_of
from openmm_latent.nn.residue_geometry import RESIDUE_NAMES, UNKNOWN, describe_residues
from rovers import module_of, peptides, random_model

RESIDUES = describe_residues(np.array([7, 0, 19, 12]), np.array([0, 0, 1, 1]))
SINGLE, PAIR = np.arange(12.0).reshape(4, 3), np.arange(32.0).reshape(4, 4, 2)


def written(path, **changes):
    np.savez(path, **({"sequence": "GA:VM", "single": SINGLE, "pair": PAIR} | changes))
    return path


def test_letters_are_those_of_the_residues():
    known = "ALA:A ARG:R ASN:N ASP:D CYS:C GLN:Q GLU:E GLY:G HIS:H ILE:I LEU:L LYS:K MET:M PHE:F PRO:P SER:S THR:T"
    expected = dict(pair.split(":") for pair in f"{known} TRP:W TYR:Y VAL:V".split())
    assert {name: LETTERS[number] for number, name in enumerate(RESIDUE_NAMES)} == expected
    assert LETTERS[UNKNOWN] == "X"
    assert sequence_of(RESIDUES) == "GA:VM"


def test_a_file_gives_what_was_written(tmp_path):
    single, pair = read_features(written(tmp_path / "a.npz"), RESIDUES)
    assert single.dtype == pair.dtype == torch.float32
    np.testing.assert_array_equal(single, SINGLE)
    np.testing.assert_array_equal(pair, PAIR)


def test_features_reach_the_frames_of_a_module(tmp_path):
    found = peptides()[2]
    n = len(found.residues)
    rng = np.random.default_rng(1)
    model = random_model(embedding="features", n_feature_single=3, n_feature_pair=2)
    modules = []
    for number in range(2):
        path = tmp_path / f"{number}.npz"
        np.savez(
            path, sequence=sequence_of(found.residues), single=rng.normal(size=(n, 3)), pair=rng.normal(size=(n, n, 2))
        )
        modules.append(module_of(model, features=read_features(path, found.residues)))
    noise = torch.randn(1, modules[0].n_noise, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        first, second = (module.sample(noise) for module in modules)
    assert float((first - second).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"sequence": "GA:VL"},
            r"another protein: its sequence has 'L' at place 5 \(length 5\), the structure 'M'",
        ),
        ({"sequence": "GAVM"}, r"has 'VM' at place 3 \(length 4\), the structure ':VM' \(length 5\); compute features"),
        ({"sequence": "GA:VMA"}, r"has 'A' at place 6 \(length 6\), the structure 'its end'"),
        (
            {"single": SINGLE[:3]},
            r"single \(n_residues=4, n_feature_single\) and .* got \(3, 3\) and \(4, 4, 2\)",
        ),
        ({"pair": PAIR[0]}, r"and pair \(4, 4, n_feature_pair\), got \(4, 3\) and \(4, 2\); write the representations"),
        ({"pair": PAIR * np.nan}, "holds numbers that are not finite; compute them anew"),
    ],
)
def test_features_that_do_not_fit_are_refused(tmp_path, changes, sentence):
    with pytest.raises(LatentError, match=sentence):
        read_features(written(tmp_path / "a.npz", **changes), RESIDUES)


def test_what_is_no_file_of_features_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(LatentError, match=r"features: .*a.npz does not exist; write sequence, single and pair"):
        read_features(path, RESIDUES)
    path.write_bytes(b"PK no archive")
    with pytest.raises(LatentError, match=r"is no .npz archive of arrays .*; write it by numpy.savez"):
        read_features(path, RESIDUES)
    np.savez(path, sequence="GA:VM", single=SINGLE)
    with pytest.raises(LatentError, match=r"lacks pair; write sequence, single and pair by numpy.savez"):
        read_features(path, RESIDUES)
