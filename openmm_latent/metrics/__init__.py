"""Scores of an ensemble against a reference, in NumPy: arrays in, numbers out.

| file | what |
|---|---|
| divergence | Jensen-Shannon divergences of torsions, surfaces and coordinates [nats]; free-energy surfaces |
| ensembles | RMSF, RMWD, pairwise RMSD, symmetric KL of per-atom covariances |
| principal | principal components: W2, similarity, state recovery |
| contacts | contact frequencies, weak and transient contacts, the pocket of a ligand |
| targets | correlations over targets, global and per target |
| kinetics | TICA timescales, states, lagged pairs |
| motion | RMSD with time, changes from a start, residues in slow modes |
| backmapping | bond graphs (GED, GDR), bond lengths, diversity |
| violations | clashes, chirality, omega |
| sample_size | effective sample size, per second and per force evaluation |
| intervals | error bars by bootstrap, and floors |
| baselines | product of marginals, Gaussian |
| chunks | frames in pieces, which keep memory small |

Lengths are in nm, divergences in nats. A score means little without its floor, the same score between two halves (or
replicas) of the reference: `halves_floor` gives it. A score that is not defined for its input (a correlation where
nothing varies) raises `LatentError` with one sentence; in a dict of several scores such a one is NaN.
"""

from openmm_latent.geometry import superpose
from openmm_latent.metrics.backmapping import (
    BOND_SCALE,
    COVALENT_RADII,
    backmapping_rmsd,
    bond_graph,
    bond_graph_scores,
    covalent_radii,
    diversity,
    graph_edit_distance,
)
from openmm_latent.metrics.baselines import (
    cartesian_gaussian,
    product_of_marginals,
)
from openmm_latent.metrics.contacts import (
    CONTACT_CUTOFF,
    CONTACT_SEPARATION,
    CONTACT_SHARE,
    POCKET_CUTOFF,
    changed_contacts,
    contact_correlation,
    contact_frequencies,
    contact_pairs,
    pocket_atoms,
)
from openmm_latent.metrics.divergence import (
    COORDINATE_BINS,
    DIHEDRAL_BINS,
    GAS_CONSTANT,
    RAMACHANDRAN_BINS,
    coordinate_jsd,
    dihedral_counts,
    dihedral_jsd,
    free_energy,
    jsd,
    ramachandran_counts,
    ramachandran_jsd,
    row_jsd,
)
from openmm_latent.metrics.ensembles import (
    COVARIANCE_FLOOR,
    PAIRWISE_FRAMES,
    atom_moments,
    mean_pairwise_rmsd,
    pairwise_rmsds,
    rmsf,
    rmsf_of_covariances,
    rmwd,
    rmwd_of_moments,
    symmetric_kl,
    symmetric_kl_of_covariances,
)
from openmm_latent.metrics.intervals import (
    MAX_SPLITS,
    RESAMPLES,
    block_bootstrap_interval,
    bootstrap_interval,
    contiguous_blocks,
    core_states,
    halves_floor,
    two_state_interval,
)
from openmm_latent.metrics.kinetics import (
    assign_states,
    cluster_centres,
    fit_tica,
    lagged_covariances,
    lagged_pair_counts,
    lagged_pair_jsd,
    slow_cores,
    tica_timescales,
    timescale_along,
    timescale_curve,
    torsion_features,
)
from openmm_latent.metrics.motion import (
    mode_contributions,
    mode_correlation,
    multi_start_scores,
    path_changes,
    t_rmsd,
    t_rmsd_error,
)
from openmm_latent.metrics.principal import (
    PCA_FRAMES,
    STATE_BINS,
    W2_FRAMES,
    PrincipalComponents,
    pc_similarity,
    pca_w2,
    principal_components,
    state_recovery,
    wasserstein_2,
)
from openmm_latent.metrics.sample_size import (
    MAX_FLOORS,
    effective_sample_size,
    sample_size_per_cost,
)
from openmm_latent.metrics.targets import (
    pearson,
    profile_correlations,
    share_above,
)
from openmm_latent.metrics.violations import (
    CLASH_CUTOFF,
    CLOSE_CUTOFF,
    MAX_OMEGA_DEVIATION,
    NEIGHBOUR_CUTOFF,
    chirality_violations,
    clash_counts,
    close_fraction,
    omega_violations,
)

__all__ = [
    "BOND_SCALE",
    "CLASH_CUTOFF",
    "CLOSE_CUTOFF",
    "CONTACT_CUTOFF",
    "CONTACT_SEPARATION",
    "CONTACT_SHARE",
    "COORDINATE_BINS",
    "COVALENT_RADII",
    "COVARIANCE_FLOOR",
    "DIHEDRAL_BINS",
    "GAS_CONSTANT",
    "MAX_FLOORS",
    "MAX_OMEGA_DEVIATION",
    "MAX_SPLITS",
    "NEIGHBOUR_CUTOFF",
    "PAIRWISE_FRAMES",
    "PCA_FRAMES",
    "POCKET_CUTOFF",
    "RAMACHANDRAN_BINS",
    "RESAMPLES",
    "STATE_BINS",
    "W2_FRAMES",
    "PrincipalComponents",
    "assign_states",
    "atom_moments",
    "backmapping_rmsd",
    "block_bootstrap_interval",
    "bond_graph",
    "bond_graph_scores",
    "bootstrap_interval",
    "cartesian_gaussian",
    "changed_contacts",
    "chirality_violations",
    "clash_counts",
    "close_fraction",
    "cluster_centres",
    "contact_correlation",
    "contact_frequencies",
    "contact_pairs",
    "contiguous_blocks",
    "coordinate_jsd",
    "core_states",
    "covalent_radii",
    "dihedral_counts",
    "dihedral_jsd",
    "diversity",
    "effective_sample_size",
    "fit_tica",
    "free_energy",
    "graph_edit_distance",
    "halves_floor",
    "jsd",
    "lagged_covariances",
    "lagged_pair_counts",
    "lagged_pair_jsd",
    "mean_pairwise_rmsd",
    "mode_contributions",
    "mode_correlation",
    "multi_start_scores",
    "omega_violations",
    "pairwise_rmsds",
    "path_changes",
    "pc_similarity",
    "pca_w2",
    "pearson",
    "pocket_atoms",
    "principal_components",
    "product_of_marginals",
    "profile_correlations",
    "ramachandran_counts",
    "ramachandran_jsd",
    "rmsf",
    "rmsf_of_covariances",
    "rmwd",
    "rmwd_of_moments",
    "row_jsd",
    "sample_size_per_cost",
    "share_above",
    "slow_cores",
    "state_recovery",
    "superpose",
    "symmetric_kl",
    "symmetric_kl_of_covariances",
    "t_rmsd",
    "t_rmsd_error",
    "tica_timescales",
    "timescale_along",
    "timescale_curve",
    "torsion_features",
    "two_state_interval",
    "wasserstein_2",
]
