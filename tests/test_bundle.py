"""A bundle is the module that was exported, and says what it is."""

import json
import zipfile

import numpy as np
import pytest
import torch

import toys
from openmm_latent import LatentError, __version__
from openmm_latent.bundle import inspect_bundle, load_bundle
from openmm_latent.model import CONTRACT_VERSION, check_module
from openmm_latent.topology import describe_atoms, heavy_atoms


@pytest.fixture
def adp():
    return toys.load_adp()


@pytest.mark.parametrize("module", [toys.Identity(10), toys.Counter(10, 0.01)], ids=lambda m: type(m).__name__)
def test_the_reloaded_module_equals_the_eager_one(module, adp, tmp_path):
    bundle = load_bundle(toys.export_toy(module, tmp_path / "toy.latent.pt", *adp))
    generator = torch.Generator().manual_seed(2)
    positions = torch.randn(3, 10, 3, generator=generator)
    noise = torch.randn(3, bundle.manifest.noise_sizes["jump"], generator=generator)
    eager, eager_state = module.jump(positions, module.initial_state(positions), noise)
    loaded, loaded_state = bundle.module.jump(positions, bundle.module.initial_state(positions), noise)
    torch.testing.assert_close(loaded, eager)
    torch.testing.assert_close(loaded_state, eager_state)
    single, _ = bundle.module.jump(positions[:1], bundle.module.initial_state(positions[:1]), noise[:1])
    torch.testing.assert_close(single, loaded[:1])


def test_the_manifest_says_what_was_exported(adp, tmp_path):
    topology, positions = adp
    heavy = heavy_atoms(topology)
    manifest = load_bundle(toys.export_toy(toys.Identity(10), tmp_path / "toy.latent.pt", *adp)).manifest
    assert manifest.contract_version == CONTRACT_VERSION
    assert manifest.atoms == describe_atoms(topology, heavy)
    assert manifest.capabilities == ["jump", "initial_state", "encode", "decode", "propagate", "slow"]
    assert manifest.noise_sizes == {"jump": 1, "propagate": 1, "decode": 0}
    assert (manifest.n_latent, manifest.n_slow, manifest.slow_periods) == (1, 1, [0.0])
    assert manifest.proposals == []
    assert manifest.code_version == __version__
    assert manifest.temperature == 300.0
    np.testing.assert_allclose(manifest.reference_positions, positions[heavy], atol=1e-6)
    assert inspect_bundle(tmp_path / "toy.latent.pt")["sha256"] == manifest.sha256


def test_a_family_without_an_explicit_latent_has_only_what_it_has(adp, tmp_path):
    manifest = load_bundle(toys.export_toy(toys.Rotate(10), tmp_path / "toy.latent.pt", *adp)).manifest
    assert manifest.capabilities == ["jump", "initial_state"]


class Mutating(toys.Rotate):
    def jump(self, positions, state, noise):
        return positions.mul_(1.1), state


class Flat(toys.Rotate):
    def jump(self, positions, state, noise):
        return positions[:, :, :2], state


class Growing(toys.Counter):
    def jump(self, positions, state, noise):
        return positions, [*state, positions]


class Walking(toys.Identity):
    """Proposes a Gaussian step of its only slow coordinate."""

    def __init__(self, n_atoms):
        super().__init__(n_atoms)
        self.n_propose_noise = 1
        self.register_buffer("proposal_weights", torch.ones(1))

    def proposal_names(self):
        return ["walk"]

    def propose(self, slow: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return slow + noise

    def log_density(self, to: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        return -0.5 * ((to - start) * (to - start) + 1.8378770664093453).sum(dim=1)


class TwoNames(Walking):
    def proposal_names(self):
        return ["walk", "run"]


class Lost(Walking):
    def propose(self, slow: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return slow * float("nan")


class Impossible(Walking):
    def log_density(self, to: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        return torch.where(to > start, 0.0, -float("inf")).sum(dim=1)


def test_a_module_with_proposals_says_so(adp, tmp_path):
    bundle = load_bundle(toys.export_toy(Walking(10), tmp_path / "walking.latent.pt", *adp))
    assert bundle.manifest.proposals == ["walk"]
    assert bundle.manifest.capabilities[-2:] == ["propose", "log_density"]
    assert bundle.manifest.noise_sizes == {"jump": 1, "propagate": 1, "decode": 0, "propose": 1}
    slow, noise = torch.zeros(2, 1), torch.ones(2, 1)
    assert torch.equal(bundle.module.propose(slow, noise), torch.ones(2, 1))
    assert bundle.module.log_density(noise, slow).shape == (2,)


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (TwoNames(10), r"needs a float32 buffer proposal_weights of shape \(n_kernels=2,\)"),
        (Lost(10), r"propose of Lost must return finite \(2, 1\)"),
        (
            Impossible(10),
            r"log_density of Impossible must return finite \(2,\) for a proposed point and for its reverse",
        ),
        (Mutating(10), "jump of Mutating changed its input in place"),
        (Flat(10), "jump of Flat must return float32"),
        (Growing(10, 0.1), "the state of Growing must keep its shapes"),
    ],
    ids=["two names", "lost", "no way back", "mutates", "wrong shape", "growing state"],
)
def test_a_module_that_breaks_the_contract_is_not_exported(module, sentence, adp, tmp_path):
    with pytest.raises(LatentError, match=sentence):
        check_module(module, torch.randn(2, 10, 3, generator=torch.Generator().manual_seed(1)))
    with pytest.raises(LatentError):
        toys.export_toy(module, tmp_path / "toy.latent.pt", *adp)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_of_the_first_contract_is_refused_in_a_sentence(adp, tmp_path):
    path = toys.export_toy(toys.Identity(10), tmp_path / "old.latent.pt", *adp)
    with zipfile.ZipFile(path) as entries:
        contents = {name: entries.read(name) for name in entries.namelist()}
    with zipfile.ZipFile(path, "w") as entries:
        for name, content in contents.items():
            if name.endswith("manifest.json"):
                manifest = json.loads(content)
                del manifest["proposals"]
                content = json.dumps({**manifest, "contract_version": 1}).encode()
            entries.writestr(name, content)
    with pytest.raises(LatentError, match=r"follows contract version 1, this openmm_latent .* knows version 2; export"):
        load_bundle(path)
