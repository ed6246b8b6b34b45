"""Cut the shipped training data out of the long reference runs (kept outside the project, in ../shared/data/adp_md).

python examples/data/cut_adp.py [FOLDER]: writes adp_400K.xtc (every second frame of 30.7 ns), its provenance, and the
(phi, psi) counts of 70.2 ns at 300 K, against which the demo draws its hybrid run.
"""

import hashlib
import json
import sys
from pathlib import Path

import mdtraj
import numpy as np

HERE = Path(__file__).parent
SOURCE = Path(sys.argv[1] if len(sys.argv) > 1 else HERE.parents[2] / "shared" / "data" / "adp_md")
STRIDE = 2
N_BINS = 72


def main() -> None:
    if not (SOURCE / "adp_400K.xtc").exists():
        sys.exit(f"{SOURCE} has no adp_400K.xtc: the long runs are not part of the project; the cut is in {HERE}")
    hot = mdtraj.load(str(SOURCE / "adp_400K.xtc"), top=str(HERE / "adp.pdb"))
    cut = hot[::STRIDE]
    cut.save_xtc(str(HERE / "adp_400K.xtc"))
    facts = {
        "temperature": 400.0,
        "force_field": "amber14-all (ff14SB) + OBC2 (native GBSAOBCForce)",
        "solvent": "obc2",
        "integrator": "LangevinMiddleIntegrator",
        "timestep": 0.002,
        "friction": 1.0,
        "constraints": "HBonds",
        "frame_spacing": float(STRIDE),
        "n_frames": cut.n_frames,
        "topology": "adp.pdb",
        "made_by": "examples/data/cut_adp.py",
        "cut_from": "adp_400K.xtc, 30 700 frames of 1 ps: every second frame",
        "cut_from_sha256": digest(SOURCE / "adp_400K.xtc"),
        "licence": "free to use and to ship",
    }
    (HERE / "adp_400K.json").write_text(json.dumps(facts, indent=2) + "\n")
    cold = mdtraj.load(str(SOURCE / "adp_300K.xtc"), top=str(HERE / "adp.pdb"))
    edges = np.linspace(-np.pi, np.pi, N_BINS + 1)
    phi, psi = mdtraj.compute_phi(cold)[1][:, 0], mdtraj.compute_psi(cold)[1][:, 0]
    halves = np.array_split(np.arange(cold.n_frames), 2)
    counts = np.stack([np.histogram2d(phi[h], psi[h], bins=(edges, edges))[0] for h in halves])
    np.savez_compressed(HERE / "adp_300K_ramachandran.npz", counts=counts.astype(np.int32), edges=edges)


def digest(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


if __name__ == "__main__":
    main()
