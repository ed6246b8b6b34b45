"""After one short minimisation: are samples of codlad_small.py as good as frames of MD?"""

import time
from pathlib import Path

import numpy as np
from atmos_replicas import run_again
from codlad_scores import topology_of
from openmm import app
from small_proteins import OUT as PROTEINS_OUT

from openmm_latent.data.residue_slots import ProteinFrames, protein_frames
from openmm_latent.data.restrained import RestrainedMinimiser

#: Of the minimisation, the same for all.
N_ITERATIONS = 200
#: Frames of a run of MD, 0.5 ps apart: of n, the next one lies within their range with (n - 1) / (n + 1).
N_REFERENCES = 200


def reference_run(name: str, folder: Path) -> ProteinFrames:
    """Return MD of one of small_proteins.py's proteins from its first frame on, with other velocities; run once."""
    path = folder / f"{name} run again.npy"
    if not path.exists():
        np.save(path, run_again(name, N_REFERENCES)[1:])
    topology = app.PDBFile(str(PROTEINS_OUT / name / f"{name}.pdb")).topology
    return protein_frames(topology, [np.load(path)], name=name)


class Judge:
    """Minimises frames of one protein, all in one way, and knows the energies that these frames of MD come to."""

    def __init__(self, example: ProteinFrames):
        self.has_atom = example.residues.has_atom
        frames = example.positions
        first = frames[0][self.has_atom].astype(np.float64)
        self.minimiser = RestrainedMinimiser(topology_of(example), first, "obc2", "CPU", n_iterations=N_ITERATIONS)
        self.energies = self.minimised(frames)["energies"]

    def minimised(self, frames: np.ndarray) -> dict:
        """Minimise frames (n_frames, n_residues, 15, 3) [nm]; return energies [kJ/mol], seconds, heavy atoms [nm]."""
        energies, heavy, began = [], [], time.process_time()
        for frame in frames:
            positions, energy = self.minimiser(frame[self.has_atom].astype(np.float64))[:2]
            energies.append(float(energy))
            built = frame.copy()
            built[self.has_atom] = positions[self.minimiser.heavy]
            heavy.append(built)
        seconds = (time.process_time() - began) / max(1, len(frames))
        return {"energies": energies, "seconds": seconds, "heavy": np.stack(heavy)}

    def shares(self, energies: list[float]) -> dict[str, float]:
        """Return the share [%] of energies within the range of MD, and not above it, and how they lie to its median.

        `floor` is the share of MD's own frames within the range of the others: that of a perfect sampler.
        """
        found, known = np.array(energies), np.array(self.energies)
        n = len(known)
        return {
            "within": 100.0 * float(((found >= known.min()) & (found <= known.max())).mean()),
            "not_above": 100.0 * float((found <= known.max()).mean()),
            "floor_within": 100.0 * (n - 1) / (n + 1),
            "floor_not_above": 100.0 * n / (n + 1),
            "median_above_md": float(np.median(found) - np.median(known)),
            "md_range": float(known.max() - known.min()),
            "n_samples": len(found),
            "n_md": n,
        }
