"""Small ATMOS models that have learned nothing, on the complex of `complexes`."""

import torch

from complexes import complex_system, load_complex
from openmm_latent.data.complex_tokens import read_tokens
from openmm_latent.models.atmos import ATMOS, ATMOSConfig
from openmm_latent.models.atmos.module import BoundComplex

TOPOLOGY, POSITIONS = load_complex()
TOKENS = read_tokens(TOPOLOGY, complex_system(TOPOLOGY))
REFERENCE = POSITIONS[TOKENS.atoms]
SIZES = {
    "n_single": 16, "n_pair": 8, "n_distance_bins": 8, "n_atom_distance_bins": 4, "n_atom": 16, "n_atom_pair": 4,
    "n_atom_blocks": 1, "n_atom_heads": 2, "n_transition_blocks": 1, "n_heads": 2, "n_triangle_heads": 1,
    "triangle_head_width": 8, "n_time": 8, "n_token": 16, "n_token_blocks": 1, "n_token_heads": 2,
}  # fmt: skip


def small_config(**changes):
    return ATMOSConfig(
        **{**SIZES, "data_scale": 0.05, "fine_data_scale": 0.03, "n_sampling_steps": 4, "n_sweeps": 0, **changes}
    )


def random_model(seed=1, key_time=10.0, fine_time=2.0, **changes):
    """Return a model with random weights, those that start at zero included, so that every path counts."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ATMOS(small_config(**changes), key_time, fine_time)
        for parameter in model.parameters():
            if float(parameter.detach().abs().max()) == 0.0:
                torch.nn.init.normal_(parameter, 0.0, 0.3)
    return model.eval()


def bound(model=None, **options):
    return BoundComplex(model or random_model(), TOKENS, REFERENCE, **options).eval()


def frames(n, seed=1, size=0.01):
    """Return the reference with every atom moved by `size` [nm] a coordinate: (n, n_atoms, 3)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor(REFERENCE).float() + size * torch.randn(n, *REFERENCE.shape, generator=generator)


def normals(module, n, seed=2, method="jump"):
    return torch.randn(n, module.noise_sizes()[method], generator=torch.Generator().manual_seed(seed))
