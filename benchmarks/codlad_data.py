"""The structures and trajectories that codlad_small.py learns from and judges by.

Learned from: what may be used freely, so that the weights may be shipped. Kept apart:

| part | what |
|---|---|
| held-out frames | the last fifth of each trajectory that is learned from |
| held-out file | the closed to open transition of adenylate kinase, of which two crystal structures are learned from |
| unseen proteins, MD | six small proteins, MD as for those learned from; no model ever saw them |
| unseen proteins, others | NMR ensembles of three of these, and proteins simulated in other force fields |
"""

from dataclasses import dataclass, replace

import mdtraj
import numpy as np
from openmm import app, unit
from results import shared_data
from small_proteins import PROTEINS, trajectory

from openmm_latent.data.residue_slots import ProteinFrames, protein_frames

DURATION = 60.0  # [ps] of each small protein's MD
#: Small proteins that no model sees.
UNSEEN = ("trp_cage", "bba", "atlas_7lp1", "atlas_7jfl", "atlas_6okd", "ubiquitin")
#: Shares of a trajectory: learned from, judging training, held out; what lies between is dropped.
LEARNED, JUDGED, HELD_OUT = (0.0, 0.66), (0.70, 0.76), (0.80, 1.0)


@dataclass(frozen=True)
class Source:
    """A file of frames below ../shared/data and the structure that names its atoms."""

    name: str
    top: str
    frames: str = ""  # a trajectory; unless given all models of the structure
    stride: int = 1


#: Free, beside the small proteins' MD: MIT, or the Protein Data Bank's own.
LEARNED_SOURCES = (
    Source("1ake", "pdb/pdb1ake.pdb"),
    Source("4ake", "pdb/4akeA_alg_fixed.pdb"),
    Source("5dfr", "omm/5dfr_solv-cube_equil.pdb"),
    Source("thrombin", "thrombin/structure.pdb"),
    Source("1uao", "pdb/1uao.pdb"),
    Source("rhodopsin", "rhodopsin/md_1u19.pdb", "rhodopsin/md_1u19.xtc"),
    Source("bbflow60, 100 ns", "bbflow60/equilibrium.pdb", "bbflow60/MD_trajectory.xtc"),
    Source("NNQQ", "timewarp/implicit-2olx-traj-state0.pdb", "timewarp/implicit-2olx-traj-arrays.npz", 4),
)
HELD_OUT_FILES = (Source("AdK transition", "adk/adk_open.pdb", "adk/adk_dims2.dcd", 4),)
UNSEEN_SOURCES = (
    Source("trp_cage NMR 2JOF", "pdb/2JOF.pdb"),
    Source("bba NMR 1FME", "pdb/1FME.pdb"),
    Source("ubiquitin NMR 2K39", "pdb/2k39_insty.pdb"),
    Source("WLALL", "wlall/pentapeptide-impl-solv.pdb", "wlall/pentapeptide-00-500ns-impl-solv.xtc", 200),
    Source("PED00151", "ped/PED00151val.pdb", stride=3),
    Source("6j56", "atlas/6j56_A_start.pdb"),
    Source("MurD", "murd/MurD_test_topo.pdb", "murd/MurD_test.dcd", 4),
)


def read(source: Source) -> ProteinFrames:
    """Put the frames of a source into slots; caps and ligands are left out."""
    top = shared_data(source.top.split("/")[0]) / source.top.split("/")[1]
    structure = app.PDBFile(str(top))
    if source.frames.endswith(".npz"):
        frames = np.load(top.with_name(source.frames.split("/")[1]))["positions"]
    elif source.frames:
        named = mdtraj.Topology.from_openmm(structure.topology)
        frames = mdtraj.load(str(top.with_name(source.frames.split("/")[1])), top=named).xyz
    else:
        models = [structure.getPositions(asNumpy=True, frame=i) for i in range(structure.getNumFrames())]
        frames = np.stack([model.value_in_unit(unit.nanometer) for model in models])
    return protein_frames(structure.topology, [frames[:: source.stride]], name=source.name, others="leave out")


def simulated(name: str) -> ProteinFrames:
    """Put the MD of one of `small_proteins.PROTEINS` into slots."""
    protein = next(one for one in PROTEINS if one.name == name)
    top, files = trajectory(protein, DURATION)
    topology = app.PDBFile(str(top)).topology
    frames = mdtraj.load([str(file) for file in files], top=mdtraj.Topology.from_openmm(topology)).xyz
    return protein_frames(topology, [frames[: round(DURATION / 0.5)]], name=name)


def part(example: ProteinFrames, share: tuple[float, float]) -> ProteinFrames:
    """Return a share of the frames; a single structure is learned from."""
    first, last = (round(edge * len(example)) for edge in share)
    return replace(example, positions=example.positions[first:last])


@dataclass(frozen=True)
class Data:
    """All that the benchmark reads, in slots."""

    learned: list[ProteinFrames]
    judged: list[ProteinFrames]
    held_out_frames: list[ProteinFrames]
    held_out_files: list[ProteinFrames]
    unseen_md: list[ProteinFrames]
    unseen_others: list[ProteinFrames]


def load_data() -> Data:
    """Read everything."""
    free = [protein.name for protein in PROTEINS if protein.is_free and protein.name not in UNSEEN]
    known = [*(simulated(name) for name in free), *(read(source) for source in LEARNED_SOURCES)]
    long = [example for example in known if len(example) > 10]
    static = [example for example in known if len(example) <= 10]
    return Data(
        learned=[*(part(example, LEARNED) for example in long), *static],
        judged=[part(example, JUDGED) for example in long],
        held_out_frames=[part(example, HELD_OUT) for example in long],
        held_out_files=[read(source) for source in HELD_OUT_FILES],
        unseen_md=[simulated(name) for name in UNSEEN],
        unseen_others=[read(source) for source in UNSEEN_SOURCES],
    )
