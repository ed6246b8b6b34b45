"""Reweighting of guarded and exploratory runs by a Markov model of their relaxations.

Relaxation between two accepted jumps is unbiased MD, once its first picoseconds are dropped. Where it starts is the
network's doing, and biased; how it goes on is physics. A reversible Markov model of many such segments gives the
equilibrium that they would reach, with the errors of what was seen, and refuses where too little was.
"""

from openmm_latent.analysis.results import Population, ReweightConfig, Reweighting
from openmm_latent.analysis.reweighting import reweight
from openmm_latent.analysis.segments import (
    Run,
    Segment,
    cut_at,
    find_runs,
    make_segments,
    read_hybrid_run,
    read_plain_md,
    require_one_ensemble,
    to_segments,
    trajectory_of,
)
from openmm_latent.analysis.settling import Settling, find_dropped_time
from openmm_latent.analysis.torsions import State, TorsionTable

__all__ = [
    "Population",
    "ReweightConfig",
    "Reweighting",
    "Run",
    "Segment",
    "Settling",
    "State",
    "TorsionTable",
    "cut_at",
    "find_dropped_time",
    "find_runs",
    "make_segments",
    "read_hybrid_run",
    "read_plain_md",
    "require_one_ensemble",
    "reweight",
    "to_segments",
    "trajectory_of",
]
