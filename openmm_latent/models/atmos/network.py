"""The state space network: context, geometric encoder, transition and decoder, and the steps they make together.

| symbol | variable |
|---|---|
| h_t = (S_t, Z_t) | `state`: [single, pair] |
| u_t | `forcing` |
| Delta t; remaining time | `time_step`, `remaining` [ps] |
| A h + B u + time embedding | the start of `Transition.forward` |

Source: ATMOS, section 3.3 and A.2.
"""

from __future__ import annotations

from typing import List  # noqa: UP035  TorchScript reads these annotations

import torch
from torch import Tensor, nn

from openmm_latent.errors import require
from openmm_latent.models.atmos.chemistry import Chemistry, Context, ContextEmbedding
from openmm_latent.models.atmos.config import ATMOSConfig
from openmm_latent.models.atmos.decoder import Decoder
from openmm_latent.models.atmos.geometry import GeometricEncoder
from openmm_latent.models.atmos.times import TimeEmbedding
from openmm_latent.nn.pairformer import PairformerBlock


class StateTransition(nn.Module):
    """From one state and what the frame adds to the next state.

    Parameters
    ----------
    config : ATMOSConfig

    Source: ATMOS, equations 7 and 8, algorithm 2. DISCREPANCY(ATMOS, equation 8): the state before enters through layer
    norms, without which it grows with every frame that is added to it.
    """

    def __init__(self, config: ATMOSConfig):
        super().__init__()
        n_single, n_pair = config.n_single, config.n_pair
        self.of_single = nn.Sequential(nn.LayerNorm(n_single), nn.Linear(n_single, n_single))
        self.of_pair = nn.Sequential(nn.LayerNorm(n_pair), nn.Linear(n_pair, n_pair))
        self.blocks = nn.ModuleList(
            PairformerBlock(
                n_single,
                n_pair,
                config.n_heads,
                config.n_triangle_heads,
                config.triangle_head_width,
                config.transition_factor,
                config.dropout,
                n_condition=config.n_time,
            )
            for _ in range(config.n_transition_blocks)
        )

    def forward(self, state: List[Tensor], single: Tensor, pair: Tensor, times: Tensor) -> List[Tensor]:  # noqa: UP006
        """Advance (b, n, n_single) and (b, n, n, n_pair) by forcings of the same shapes; times (b, n_time)."""
        single = self.of_single(state[0]) + single
        pair = self.of_pair(state[1]) + pair
        mask = torch.ones([single.shape[0], single.shape[1]], dtype=torch.bool, device=single.device)
        for block in self.blocks:
            single, pair = block(single, pair, mask, times)
        return [single, pair]


class StateSpaceNetwork(nn.Module):
    """One network: the key-frame generator, or with `is_interpolator` one that knows where it is to arrive.

    Parameters
    ----------
    config : ATMOSConfig
    is_interpolator : bool

    A frame that is not given (`is_blank`) is a learned forcing: what is then drawn depends on no frame before.
    DISCREPANCY(ATMOS): there single structures of the PDB teach a model that sees chemistry alone; so does this.
    """

    def __init__(self, config: ATMOSConfig, is_interpolator: bool = False):
        super().__init__()
        self.is_interpolator, self.predicts_shift = is_interpolator, config.predicts_shift
        n_single, n_pair = config.n_single, config.n_pair
        self.context = ContextEmbedding(config)
        self.encoder = GeometricEncoder(config)
        self.times = TimeEmbedding(config.n_time)
        self.transition = StateTransition(config)
        self.decoder = Decoder(config, config.fine_data_scale if is_interpolator else config.data_scale)
        self.blank_single = nn.Parameter(torch.zeros(n_single))
        self.blank_pair = nn.Parameter(torch.zeros(n_pair))
        self.end_single = nn.Linear(n_single, n_single) if is_interpolator else nn.Identity()
        self.end_pair = nn.Linear(n_pair, n_pair) if is_interpolator else nn.Identity()
        self.remaining = TimeEmbedding(config.n_time) if is_interpolator else nn.Identity()
        self.to_distogram = nn.Linear(n_pair, config.n_distogram_bins)

    def initial_state(self, context: Context, n_batch: int) -> List[Tensor]:  # noqa: UP006
        """Return the state before any frame: the embedded chemistry."""
        single, pair = context.single, context.pair
        return [
            single.expand(n_batch, -1, -1).contiguous(),
            pair.expand(n_batch, -1, -1, -1).contiguous(),
        ]

    def advance(
        self,
        state: List[Tensor],  # noqa: UP006
        positions: Tensor,
        time_step: Tensor,
        chemistry: Chemistry,
        context: Context,
    ) -> List[Tensor]:  # noqa: UP006
        """Take a frame in and return the next state.

        Parameters
        ----------
        state : list of Tensor
            (b, n, n_single), (b, n, n, n_pair)
        positions : Tensor
            (b, n_atoms, 3) [nm], near the origin
        time_step : Tensor
            (b,) [ps]
        chemistry : Chemistry
        context : Context
        """
        single, pair = self.encoder(positions, chemistry, context)
        return self.transition(state, single, pair, self.times(time_step))

    def advance_blank(self, state: List[Tensor], time_step: Tensor) -> List[Tensor]:  # noqa: UP006
        """Return the next state where no frame is given."""
        single = self.blank_single.expand(state[0].shape)
        pair = self.blank_pair.expand(state[1].shape)
        return self.transition(state, single, pair, self.times(time_step))

    def advance_towards(
        self,
        state: List[Tensor],  # noqa: UP006
        positions: Tensor,
        end: Tensor,
        time_step: Tensor,
        remaining: Tensor,
        chemistry: Chemistry,
        context: Context,
    ) -> List[Tensor]:  # noqa: UP006
        """Take a frame in, and the frame that is to be reached; see `advance`.

        Parameters
        ----------
        end : Tensor
            (b, n_atoms, 3) [nm], near the origin
        remaining : Tensor
            (b,) [ps] from `positions` to `end`
        """
        single, pair = self.encoder(positions, chemistry, context)
        end_single, end_pair = self.encoder(end, chemistry, context)
        single, pair = single + self.end_single(end_single), pair + self.end_pair(end_pair)
        return self.transition(state, single, pair, self.times(time_step) + self.remaining(remaining))

    def distogram(self, pair: Tensor) -> Tensor:
        """Return logits of the next frame's distances, (..., n, n, n_bins), the same both ways."""
        return self.to_distogram(pair + pair.transpose(-2, -3))


class ATMOS(nn.Module):
    """A trained model, of any complex: the key-frame network and, where there is one, the interpolator.

    Parameters
    ----------
    config : ATMOSConfig
    key_time, fine_time : float
        [ps] that a step of each network covers; `fine_time` 0 is no interpolator.
    """

    def __init__(self, config: ATMOSConfig, key_time: float, fine_time: float = 0.0):
        super().__init__()
        require(key_time > 0, f"key_time must be a positive time in ps, got {key_time}")
        require(
            fine_time == 0.0 or abs(key_time / fine_time - config.upsampling) < 1e-6 * config.upsampling,
            f"fine_time must be 0 or the key time of {key_time:g} ps over upsampling={config.upsampling}, got "
            f"{fine_time:g} ps",
        )
        self.config, self.key_time, self.fine_time = config, float(key_time), float(fine_time)
        self.keyframes = StateSpaceNetwork(config)
        self.interpolator = StateSpaceNetwork(config, is_interpolator=True) if fine_time > 0 else None


def count_parameters(network: nn.Module) -> int:
    """Return how many numbers a network learns."""
    return sum(parameter.numel() for parameter in network.parameters())
