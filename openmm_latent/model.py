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
| `slow(latent)` | (b, n_latent) -> (b, n_slow) |

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
    "backmap",
    "propose",
    "log_density",
)

#: Raised whenever the meaning of a method or a manifest field changes.
CONTRACT_VERSION = 1


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
    n_propagate_noise, n_decode_noise : int
        Standard normal numbers that one `propagate` or `decode` call takes.
    """

    n_atoms: int
    n_latent: int
    n_slow: int
    n_propagate_noise: int
    n_decode_noise: int

    def noise_sizes(self) -> dict[str, int]:
        """Numbers of standard normals that each random method takes; `jump` is the only one every family has."""
        return {"jump": self.n_propagate_noise + self.n_decode_noise}

    def slow_periods(self) -> list[float]:
        """Period of each slow coordinate; 0.0 where it is not an angle."""
        return [0.0] * self.n_slow


class ExplicitLatentModule(LatentModule):
    """A family with an explicit latent: `jump` is decode(propagate(encode(x))), written here once."""

    def noise_sizes(self) -> dict[str, int]:
        """Numbers of standard normals for `jump` (propagate, then decode), `propagate` and `decode`."""
        return {
            "jump": self.n_propagate_noise + self.n_decode_noise,
            "propagate": self.n_propagate_noise,
            "decode": self.n_decode_noise,
        }

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
            if hasattr(module, "slow"):
                slow = module.slow(latent)
                require(
                    slow.shape == (n_batch, module.n_slow),
                    f"slow of {type(module).__name__} must return {(n_batch, module.n_slow)}, got {tuple(slow.shape)}",
                )
