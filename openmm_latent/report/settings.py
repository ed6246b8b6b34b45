"""What can be chosen about an evaluation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluationSettings:
    """All choices of an evaluation.

    Attributes
    ----------
    atoms : str
        Scored: "heavy", "all" (neither has water and ions) or "ca".
    stride : int
        Of all trajectories.
    frame_spacing, sample_frame_spacing : float or None
        [ps] between frames in the files of the reference and of the sample; None takes the time stamps.
    is_independent : bool
        The sample's frames are independent draws: no kinetics.
    lag_time : float or None
        [ps] of TICA; None takes the shortest run of the reference / 250.
    lag_times : tuple of float
        [ps] of lagged pairs and modes; empty takes 1, 5 and 25 times `lag_time` where they fit.
    temperature : float or None
        [K] of the free-energy surfaces; None takes the trajectories' own, and without one, kT.
    peers : tuple of str
        Among "anm", "gaussian", "md".
    ligand : tuple of str
        Names of the ligand's residues, for the scores of ligand and pocket.
    is_backmapping : bool
        The sample's frames are the reference's, rebuilt, in order.
    has_fine_surfaces : bool
        Torsion surfaces of 72 x 72 bins, too.
    cpu_seconds, force_evaluations : float or None
        What the whole sample cost, for the effective sample size per cost.
    name, reference_name : str
        What the page calls the two.
    seed : int
    """

    atoms: str = "heavy"
    stride: int = 1
    frame_spacing: float | None = None
    sample_frame_spacing: float | None = None
    is_independent: bool = False
    lag_time: float | None = None
    lag_times: tuple[float, ...] = ()
    temperature: float | None = None
    peers: tuple[str, ...] = ()
    ligand: tuple[str, ...] = ()
    is_backmapping: bool = False
    has_fine_surfaces: bool = False
    cpu_seconds: float | None = None
    force_evaluations: float | None = None
    name: str = "sample"
    reference_name: str = "reference"
    seed: int = 1
