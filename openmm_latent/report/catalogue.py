"""What each score of a report means: name, unit, kind, bins and definition, word for word as the page prints them."""

from __future__ import annotations

from dataclasses import dataclass

#: Kinds of scores: a distance (0 is equal), an agreement (1 is equal), or a number that both ensembles have of their
#: own and that is compared with the reference's.
DISTANCE, AGREEMENT, OWN = "distance", "agreement", "own"

#: Groups in the order of the page.
GROUPS = (
    "Torsions",
    "Slow processes",
    "Fluctuations",
    "Principal components",
    "Contacts",
    "Structure",
    "Ligand and pocket",
    "Runs from the same starts",
    "Rebuilt frames",
)


@dataclass(frozen=True)
class Definition:
    """What a score is.

    Attributes
    ----------
    group : str
    name : str
    unit : str
        "" for a pure number.
    kind : str
    text : str
        The definition in one or two sentences; `{trace}` is filled with the trace atoms.
    bins : str
        "" where nothing is binned.
    """

    group: str
    name: str
    unit: str
    kind: str
    text: str
    bins: str = ""


_TORSIONS, _SLOW, _FLUCTUATIONS, _COMPONENTS, _CONTACTS, _STRUCTURE, _COMPLEX, _STARTS, _REBUILT = GROUPS
_CIRCLE = "over (-180°, 180°)"

CATALOGUE: dict[str, Definition] = {
    "backbone_jsd": Definition(
        _TORSIONS,
        "Backbone torsions, JSD",
        "nats",
        DISTANCE,
        "Jensen-Shannon divergence of each phi and psi, averaged over them.",
        f"100 {_CIRCLE}",
    ),
    "side_chain_jsd": Definition(
        _TORSIONS,
        "Side-chain torsions, JSD",
        "nats",
        DISTANCE,
        "Jensen-Shannon divergence of each chi1 to chi4, averaged over them.",
        f"100 {_CIRCLE}",
    ),
    "phi_psi_jsd": Definition(
        _TORSIONS,
        "(phi, psi) surface, JSD",
        "nats",
        DISTANCE,
        "Jensen-Shannon divergence of the joint (phi, psi) histogram of a residue, averaged over residues.",
        f"50 x 50 {_CIRCLE}",
    ),
    "phi_psi_jsd_72": Definition(
        _TORSIONS,
        "(phi, psi) surface, finer bins, JSD",
        "nats",
        DISTANCE,
        "The same of 72 x 72 bins, as LD-FPG has them; more of it is noise.",
        f"72 x 72 {_CIRCLE}",
    ),
    "chi1_chi2_jsd": Definition(
        _TORSIONS,
        "(chi1, chi2) surface, JSD",
        "nats",
        DISTANCE,
        "Jensen-Shannon divergence of the joint (chi1, chi2) histogram of a residue, averaged over residues.",
        f"50 x 50 {_CIRCLE}",
    ),
    "chi1_chi2_jsd_72": Definition(
        _TORSIONS,
        "(chi1, chi2) surface, finer bins, JSD",
        "nats",
        DISTANCE,
        "The same of 72 x 72 bins, as LD-FPG has them; more of it is noise.",
        f"72 x 72 {_CIRCLE}",
    ),
    "slow_population": Definition(
        _SLOW,
        "Population of the rarer slow state",
        "",
        OWN,
        "Share of frames in the rarer of two states: k-means with two centres on the reference's slowest TICA "
        "coordinate.",
    ),
    "slow_crossings": Definition(
        _SLOW,
        "Crossings of the slow states",
        "1/µs",
        OWN,
        "Passages from one slow state's core to the other's, either way, for each microsecond; a core is the third of "
        "the way between the two centres that is nearest to its own, and what lies beyond the centre.",
    ),
    "t1": Definition(
        _SLOW,
        "Slowest timescale t1, own fit",
        "ps",
        OWN,
        "-lag / ln|lambda1| of TICA (kinetic map) on {features}, fitted on each ensemble itself.",
    ),
    "slow_timescale": Definition(
        _SLOW,
        "Timescale along the reference's slow coordinate",
        "ps",
        OWN,
        "-lag / ln(autocorrelation) of the reference's slowest TICA coordinate: it cannot pick another coordinate that "
        "happens to be slow. 0 where no memory is left.",
    ),
    "lagged_pairs_jsd": Definition(
        _SLOW,
        "Lagged pairs, JSD",
        "nats",
        DISTANCE,
        "Jensen-Shannon divergence of the joint distributions of (state now, state one lag later) over 36 states, "
        "k-means on the reference's two slowest TICA coordinates. Independent draws of the right frames fail it.",
        "36 x 36 states",
    ),
    "mode_r": Definition(
        _SLOW,
        "Slow mode by residue, r",
        "",
        AGREEMENT,
        "Pearson correlation of the residues' shares in the slowest TICA mode of superposed {trace}.",
    ),
    "sample_size": Definition(
        _SLOW,
        "Effective sample size",
        "",
        OWN,
        "Frames / (-1 + 2 x summed autocorrelation of the reference's slowest TICA coordinate). 0 if one of the 36 "
        "states of the reference is never visited; left out where the (phi, psi) JSD is above two floors.",
    ),
    "coordinate_jsd": Definition(
        _FLUCTUATIONS,
        "Coordinates, JSD",
        "nats",
        DISTANCE,
        "Jensen-Shannon divergence of each Cartesian coordinate after superposition, averaged over all scored atoms.",
        "50 over the joint range",
    ),
    "rmsf_r": Definition(
        _FLUCTUATIONS,
        "RMSF, r",
        "",
        AGREEMENT,
        "Pearson correlation of root mean square fluctuations; {trace}.",
    ),
    "rmsf_r_heavy": Definition(
        _FLUCTUATIONS,
        "RMSF by heavy atom, r",
        "",
        AGREEMENT,
        "Pearson correlation of root mean square fluctuations of all heavy atoms, as AlphaFlow's code has it.",
    ),
    "rmwd": Definition(
        _FLUCTUATIONS,
        "Root mean Wasserstein distance",
        "nm",
        DISTANCE,
        "Of the Gaussians of each atom: sqrt(translation² + variance²); {trace}.",
    ),
    "rmwd_translation": Definition(
        _FLUCTUATIONS, "RMWD, translation", "nm", DISTANCE, "Root mean square distance of the mean positions; {trace}."
    ),
    "rmwd_variance": Definition(
        _FLUCTUATIONS, "RMWD, variance", "nm", DISTANCE, "The part of the RMWD that the covariances make; {trace}."
    ),
    "symmetric_kl": Definition(
        _FLUCTUATIONS,
        "Covariances, symmetric KL",
        "nats",
        DISTANCE,
        "Half the sum of both Kullback-Leibler divergences of 3 x 3 covariances at equal means, averaged; {trace}.",
    ),
    "pairwise_rmsd": Definition(
        _FLUCTUATIONS,
        "Mean pairwise RMSD",
        "nm",
        OWN,
        "Mean RMSD of all pairs of 500 frames as they lie on the structure; {trace}.",
    ),
    "pca_w2": Definition(
        _COMPONENTS,
        "PCA W2, reference's components",
        "nm",
        DISTANCE,
        "2-Wasserstein distance of the projections on the reference's first two principal components, 1000 frames "
        "each at most, / sqrt(atoms); {trace}.",
    ),
    "joint_pca_w2": Definition(
        _COMPONENTS,
        "PCA W2, joint components",
        "nm",
        DISTANCE,
        "The same on the components of both ensembles together, with equal weight; {trace}.",
    ),
    "pc_similarity": Definition(
        _COMPONENTS,
        "First component, |cosine|",
        "",
        AGREEMENT,
        "Absolute cosine of the two first principal components, which says little where the second is nearly as "
        "large; {trace}.",
    ),
    "state_jsd": Definition(
        _COMPONENTS,
        "States on two components, JSD",
        "nats",
        DISTANCE,
        "Jensen-Shannon divergence of the bins' populations on the reference's first two components; {trace}.",
        "10 x 10 over the reference's range, and one beyond each end",
    ),
    "state_precision": Definition(
        _COMPONENTS, "States, precision", "", AGREEMENT, "Share of the sample's occupied bins that the reference has."
    ),
    "state_recall": Definition(
        _COMPONENTS, "States, recall", "", AGREEMENT, "Share of the reference's occupied bins that the sample found."
    ),
    "state_f1": Definition(
        _COMPONENTS, "States, F1", "", AGREEMENT, "Harmonic mean of the states' precision and recall."
    ),
    "contact_r": Definition(
        _CONTACTS,
        "Contact frequencies, r",
        "",
        AGREEMENT,
        "Pearson correlation of Cα contact frequencies: closer than 0.8 nm, three or more apart in the sequence.",
    ),
    "weak_contacts": Definition(
        _CONTACTS,
        "Weak contacts, Jaccard",
        "",
        AGREEMENT,
        "Overlap of the sets of contacts that {structure} has and that are apart in more than 10 % of frames.",
    ),
    "transient_contacts": Definition(
        _CONTACTS,
        "Transient contacts, Jaccard",
        "",
        AGREEMENT,
        "Overlap of the sets of contacts that {structure} lacks and that are made in more than 10 % of frames.",
    ),
    "clashes": Definition(
        _STRUCTURE,
        "Clashes a frame",
        "",
        OWN,
        "Non-bonded pairs of heavy atoms closer than 0.11 nm, in {n_checked} frames at most.",
    ),
    "close_share": Definition(
        _STRUCTURE,
        "Close pairs",
        "",
        OWN,
        "Share of non-bonded heavy pairs within 0.5 nm that are closer than 0.12 nm, in {n_checked} frames at most.",
    ),
    "chirality": Definition(
        _STRUCTURE,
        "Wrong hands a frame",
        "",
        OWN,
        "Chiral centres with another hand than {structure}.",
    ),
    "omega_flipped": Definition(
        _STRUCTURE,
        "Flipped peptide bonds a frame",
        "",
        OWN,
        "Omega nearer to the other form, cis or trans, than {structure} has.",
    ),
    "omega_twisted": Definition(
        _STRUCTURE, "Twisted peptide bonds a frame", "", OWN, "Omega more than 60° from planar, in the right form."
    ),
    "complex_rmsf_r": Definition(
        _COMPLEX,
        "RMSF of ligand and pocket, r",
        "",
        AGREEMENT,
        "Pearson correlation of root mean square fluctuations over all scored atoms of the ligand and its pocket: the "
        "residues with a heavy atom within 1 nm of it in {structure}.",
    ),
    "complex_rmwd": Definition(
        _COMPLEX,
        "RMWD of ligand and pocket",
        "nm",
        DISTANCE,
        "Root mean Wasserstein distance over all scored atoms of ligand and pocket, superposed on {trace}.",
    ),
    "ligand_rmwd": Definition(
        _COMPLEX, "RMWD of the ligand", "nm", DISTANCE, "The same over the ligand's scored atoms alone."
    ),
    "complex_t_rmsd_error": Definition(
        _COMPLEX,
        "RMSD with time of ligand and pocket, error",
        "nm",
        DISTANCE,
        "Root mean square difference of the two series of RMSD to frame 0 over ligand and pocket, superposed on "
        "{trace}; averaged over pairs of runs from the same start.",
    ),
    "clashes_protein": Definition(
        _COMPLEX, "Clashes a frame within the protein", "", OWN, "The part of the clashes that lies within the protein."
    ),
    "clashes_ligand": Definition(
        _COMPLEX, "Clashes a frame within the ligand", "", OWN, "The part of the clashes that lies within the ligand."
    ),
    "clashes_between": Definition(
        _COMPLEX, "Clashes a frame between them", "", OWN, "The part of the clashes between protein and ligand."
    ),
    "t_rmsd_error": Definition(
        _STARTS,
        "RMSD with time, error",
        "nm",
        DISTANCE,
        "Root mean square difference of the two series of RMSD to frame 0, averaged over pairs of runs from the same "
        "start; {trace}.",
    ),
    "start_frame_r": Definition(
        _STARTS,
        "Change from the start, r",
        "",
        AGREEMENT,
        "Pearson correlation, over all frames of all pairs of runs from the same start, of how far a frame is from its "
        "start: the RMSD of {trace} as they lie.",
    ),
    "start_frame_mae": Definition(
        _STARTS, "Change from the start, mean error", "nm", DISTANCE, "Mean absolute difference of the same."
    ),
    "start_step_r": Definition(
        _STARTS, "Change a frame, r", "", AGREEMENT, "Correlation of the RMSD from each frame to the next."
    ),
    "start_step_mae": Definition(
        _STARTS, "Change a frame, mean error", "nm", DISTANCE, "Mean absolute difference of the same."
    ),
    "start_trajectory_r": Definition(
        _STARTS, "Length of the way, r", "", AGREEMENT, "Correlation over starts of the sum of the changes a frame."
    ),
    "start_trajectory_mae": Definition(
        _STARTS, "Length of the way, mean error", "nm", DISTANCE, "Mean absolute difference of the same."
    ),
    "rebuilt_rmsd_superposed": Definition(
        _REBUILT,
        "RMSD of rebuilt frames",
        "nm",
        DISTANCE,
        "Mean RMSD of heavy atoms to the reference's frame of the same number, each pair superposed; {n_checked} "
        "frames at most.",
    ),
    "rebuilt_rmsd_unsuperposed": Definition(
        _REBUILT, "RMSD of rebuilt frames as they lie", "nm", DISTANCE, "The same, both superposed on {structure} only."
    ),
    "ged": Definition(
        _REBUILT,
        "Graph edit distance",
        "edits a frame",
        DISTANCE,
        "Bonds that only one of the two has; bonded is closer than 1.3 sums of covalent radii.",
    ),
    "gdr": Definition(_REBUILT, "Graph difference ratio", "", DISTANCE, "Differing bonds over the reference's bonds."),
    "bond_mse": Definition(
        _REBUILT,
        "Bond lengths, mean square error",
        "nm²",
        DISTANCE,
        "Over the reference's bonds; what CODLAD's code prints as GED.",
    ),
    "diversity": Definition(
        _REBUILT,
        "DIV",
        "",
        DISTANCE,
        "1 - RMSD(rebuilt, their mean) / RMSD(rebuilt, reference), as CODLAD's code has it: 0 is as diverse as far "
        "off.",
    ),
    "diversity_ratio": Definition(
        _REBUILT,
        "1 - DIV",
        "",
        AGREEMENT,
        "The ratio itself, of which the paper's text says that higher is more diverse.",
    ),
}
