"""The exported contract: what every family's module promises to the simulation side.

A bundle (see `bundle.py`) holds one scripted `LatentModule`. C++ and `simulation.py` know the methods below and
nothing of any family. Everything is batch first, float32, positions in nm at any place and orientation; randomness
enters only through `noise`, standard normal, made by the integrator.

| method | in -> out |
|---|---|
| `jump(positions, state, noise)` | (b, n, 3), tensors, (b, n_noise) -> (b, n, 3), tensors |
| `initial_state(positions)` | (b, n, 3) -> tensors, batch first, fixed shapes |
| `encode(positions)` | (b, n, 3) -> (b, n_latent), invariant to rotation and translation |
| `decode(latent, positions, noise)` | (b, n_latent), (b, n, 3), (b, n_decode_noise) -> (b, n, 3) on that frame |
| `propagate(latent, state, noise)` | (b, n_latent), tensors, (b, n_propagate_noise) -> (b, n_latent), tensors |
| `sample(noise)` | (b, n_sample_noise) -> (b, n, 3), independent of one another |
| `interpolate(start, end, remaining, noise)` | (b, n, 3) twice, (b,) steps left, (b, n_noise) -> (b, n, 3), the next |
| `fill(start, end, noise)` | (b, n, 3) twice, a jump apart, (b, n_noise) -> (b, n_between, n, 3), all between them |
| `backmap(trace, noise)` | (b, n_residues, 3), (b, n_backmap_noise) -> (b, n, 3); Cα in the order of the model atoms |
| `slow(latent)` | (b, n_latent) -> (b, n_slow) |
| `propose(slow, noise)` | (b, n_slow), (b, n_propose_noise) -> (b, n_slow), a draw from q(. given slow) |
| `log_density(to, start)` | (b, n_slow), (b, n_slow) -> (b,), ln q(to given start): that of `propose`, normalised |

A module with `propose` is a mixture of proposal kernels: its float32 buffer `proposal_weights`, (n_kernels,), holds
their shares (not negative; only their ratios count), which the simulation may replace, and `proposal_names()` names
them. Where a slow coordinate is an angle, `propose` returns it in (-period/2, period/2].

TorchScript compiles these methods, so their bodies stay within its subset: no keyword-only arguments, no `**kwargs`,
configuration scalars as plain attributes set in `__init__`.
"""

from typing import List, Tuple  # noqa: UP035  TorchScript reads these annotations

import torch
from torch import Tensor, nn

#: Contract methods, in the order in which the manifest lists them.
CONTRACT_METHODS = (
    "jump",
    "initial_state",
    "encode",
    "decode",
    "propagate",
    "slow",
    "sample",
    "interpolate",
    "fill",
    "backmap",
    "propose",
    "log_density",
)

#: Raised whenever the meaning of a method or a manifest field changes.
#: 2: proposal kernels (`proposals` in the manifest).
CONTRACT_VERSION = 2


class LatentModule(nn.Module):
    """Base class of what a bundle holds.

    A subclass sets the sizes below in `__init__` and defines the methods it has; a method that it does not define
    (`slow` of a family without slow coordinates, say) is simply absent from the bundle's capabilities.

    Attributes
    ----------
    n_atoms : int
        Model atoms, in manifest order.
    n_latent : int
        Width of the latent; 0 for a family without an explicit latent.
    n_slow : int
        Number of slow coordinates; 0 when `slow` is absent.
    n_propagate_noise, n_decode_noise, n_propose_noise : int
        Standard normal numbers that one `propagate`, `decode` or `propose` call takes; the last is 0 for a module
        that cannot propose.
    """

    n_atoms: int
    n_latent: int
    n_slow: int
    n_propagate_noise: int
    n_decode_noise: int
    n_propose_noise: int = 0

    def noise_sizes(self) -> dict[str, int]:
        """Numbers of standard normals that each random method takes; `jump` is the only one every family has."""
        sizes = {"jump": self.n_propagate_noise + self.n_decode_noise}
        return {**sizes, "propose": self.n_propose_noise} if self.n_propose_noise > 0 else sizes

    def slow_periods(self) -> list[float]:
        """Period of each slow coordinate; 0.0 where it is not an angle."""
        return [0.0] * self.n_slow

    def proposal_names(self) -> list[str]:
        """Names of the proposal kernels, in the order of `proposal_weights`; none without `propose`."""
        return []

    def capabilities(self) -> list[str]:
        """Contract methods that the module offers: those of its class, as far as its sizes let them work."""
        absent = set() if self.n_slow > 0 else {"slow"}
        absent |= set() if self.n_propose_noise > 0 else {"propose", "log_density"}
        return [name for name in CONTRACT_METHODS if hasattr(self, name) and name not in absent]


class ExplicitLatentModule(LatentModule):
    """A family with an explicit latent: `jump` is decode(propagate(encode(x))), written here once."""

    def noise_sizes(self) -> dict[str, int]:
        """Numbers of standard normals for `jump` (propagate, then decode), `propagate`, `decode` and `propose`."""
        sizes = {"propagate": self.n_propagate_noise, "decode": self.n_decode_noise}
        return {**super().noise_sizes(), **sizes}

    def initial_state(self, positions: Tensor) -> List[Tensor]:  # noqa: UP006
        """Return the memory of a model that has none: an empty list."""
        state: List[Tensor] = []  # noqa: UP006
        return state

    def jump(self, positions: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Encode, propagate by one lag time, and decode onto the current frame."""
        n_propagate = self.n_propagate_noise
        latent, next_state = self.propagate(self.encode(positions), state, noise[:, :n_propagate])
        return self.decode(latent, positions, noise[:, n_propagate:]), next_state


def check_module(module: LatentModule, positions: Tensor) -> None:
    """Run the contract's methods eagerly once and check every shape; used by export and by each family's tests.

    Parameters
    ----------
    module : LatentModule
        In evaluation mode.
    positions : Tensor
        (batch, n_atoms, 3) [nm]

    Raises
    ------
    LatentError
        A method returned another shape, dtype or a mutated input.
    """
    from openmm_latent.errors import require

    n_batch = positions.shape[0]
    sizes = module.noise_sizes()
    original = positions.clone()
    with torch.no_grad():
        state = module.initial_state(positions)
        noise = torch.zeros(n_batch, sizes["jump"])
        moved, next_state = module.jump(positions, state, noise)
        require(
            moved.shape == positions.shape and moved.dtype == torch.float32,
            f"jump of {type(module).__name__} must return float32 {tuple(positions.shape)}, "
            f"got {moved.dtype} {tuple(moved.shape)}",
        )
        require(
            [(s.shape, s.dtype) for s in state] == [(s.shape, s.dtype) for s in next_state],
            f"the state of {type(module).__name__} must keep its shapes and dtypes from jump to jump",
        )
        require(bool(torch.equal(original, positions)), f"jump of {type(module).__name__} changed its input in place")
        if hasattr(module, "encode"):
            latent = module.encode(positions)
            require(
                latent.shape == (n_batch, module.n_latent),
                f"encode of {type(module).__name__} must return {(n_batch, module.n_latent)}, "
                f"got {tuple(latent.shape)}",
            )
            if "slow" in module.capabilities():
                slow = module.slow(latent)
                require(
                    slow.shape == (n_batch, module.n_slow),
                    f"slow of {type(module).__name__} must return {(n_batch, module.n_slow)}, got {tuple(slow.shape)}",
                )
                if "propose" in module.capabilities():
                    _check_proposals(module, slow)


def _check_proposals(module: LatentModule, slow: Tensor) -> None:
    """Draw one proposal from each slow point, (b, n_slow), and look at its density; without gradients."""
    from openmm_latent.errors import require

    name, names = type(module).__name__, module.proposal_names()
    weights = getattr(module, "proposal_weights", None)
    require(
        isinstance(weights, Tensor) and weights.shape == (len(names),) and weights.dtype == torch.float32,
        f"{name} with propose needs a float32 buffer proposal_weights of shape (n_kernels={len(names)},), as many as "
        f"proposal_names gives, got {weights}",
    )
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(slow.shape[0], module.n_propose_noise, generator=generator)
    to = module.propose(slow, noise)
    require(
        to.shape == slow.shape and bool(torch.isfinite(to).all()),
        f"propose of {name} must return finite {tuple(slow.shape)}, got {tuple(to.shape)}: {to}",
    )
    for density in (module.log_density(to, slow), module.log_density(slow, to)):
        require(
            density.shape == slow.shape[:1] and bool(torch.isfinite(density).all()),
            f"log_density of {name} must return finite {tuple(slow.shape[:1])} for a proposed point and for its "
            f"reverse, got {tuple(density.shape)}: {density}",
        )
