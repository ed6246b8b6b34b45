"""Small files in the true layouts of ATLAS, mdCATH and MISATO, of a chain of alanines."""

from __future__ import annotations

from pathlib import Path

import h5py
import mdtraj
import numpy as np

#: One alanine: name, element, place [Å] in a residue 3.8 Å long; bonds are of natural length.
ALANINE = [
    ("N", "N", (0.0, 0.0, 0.0)),
    ("H", "H", (0.0, 1.0, 0.0)),
    ("CA", "C", (1.2, 0.0, 0.0)),
    ("HA", "H", (1.2, 1.1, 0.0)),
    ("CB", "C", (1.2, 0.0, 1.5)),
    ("HB1", "H", (0.2, 0.0, 1.9)),
    ("HB2", "H", (1.7, 0.9, 1.9)),
    ("HB3", "H", (1.7, -0.9, 1.9)),
    ("C", "C", (2.5, 0.0, 0.0)),
    ("O", "O", (2.5, 1.2, 0.0)),
]
BONDS = [(0, 1), (0, 2), (2, 3), (2, 4), (4, 5), (4, 6), (4, 7), (2, 8), (8, 9)]
N_HEAVY = 5  # of one alanine


def alanines(n_residues: int) -> np.ndarray:
    """Return (n_atoms, 3) [Å]."""
    return np.array([np.add(place, (3.8 * i, 0, 0)) for i in range(n_residues) for _, _, place in ALANINE])


def alanines_pdb(n_residues: int) -> str:
    lines = []
    for i, place in enumerate(alanines(n_residues)):
        name, element, _ = ALANINE[i % len(ALANINE)]
        lines.append(
            f"ATOM  {i + 1:5d} {name:>3s}  ALA A{i // len(ALANINE) + 1:4d}    "
            f"{place[0]:8.3f}{place[1]:8.3f}{place[2]:8.3f}  1.00  0.00          {element:>2s}"
        )
    return "\n".join(lines) + "\n"


def frames(n_frames: int, n_residues: int, seed: int = 1) -> np.ndarray:
    """Return (n_frames, n_atoms, 3) [Å]; the chain moves 0.01 Å along z each frame, so frames tell their number."""
    jiggle = 0.005 * np.random.default_rng(seed).normal(size=(n_frames, n_residues * len(ALANINE), 3))
    jiggle[:, 0] = 0.0
    drift = 0.01 * np.arange(n_frames)[:, None, None] * np.array([0.0, 0.0, 1.0])
    return (alanines(n_residues) + jiggle + drift).astype(np.float32)


def frame_numbers(positions: np.ndarray) -> np.ndarray:
    """Return which frame each of (n, n_atoms, 3) [nm] was, by the first atom's z."""
    return np.round(positions[:, 0, 2] / 0.001).astype(int)


def write_xtc(path: Path, positions: np.ndarray, spacing: float, first_time: float = 0.0) -> None:
    """Write (n_frames, n_atoms, 3) [Å] as XTC."""
    with mdtraj.open(str(path), "w") as file:
        file.write(positions / 10, time=(first_time + spacing * np.arange(len(positions))).astype(np.float32))


def write_atlas(folder: Path, name: str, *, n_residues: int = 3, n_frames: int = 20, n_replicas: int = 3) -> None:
    """Write a protein as ATLAS's archives have it; frames 10 ps apart."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.pdb").write_text(alanines_pdb(n_residues))
    for k in range(1, n_replicas + 1):
        write_xtc(folder / f"{name}_R{k}.xtc", frames(n_frames, n_residues, seed=k), 10.0)


def psf(n_residues: int, n_waters: int = 2) -> str:
    """Return a PSF of the chain and some water."""
    atoms, bonds = [], []
    for i in range(n_residues):
        first = len(atoms) + 1
        atoms += [("P0", i + 1, "ALA", name) for name, _, _ in ALANINE]
        bonds += [(first + a, first + b) for a, b in BONDS]
        if i:
            bonds.append((first - 2, first))
    for i in range(n_waters):
        first = len(atoms) + 1
        atoms += [("W0", i + 1, "TIP3", name) for name in ("OH2", "H1", "H2")]
        bonds += [(first, first + 1), (first, first + 2)]
    lines = ["PSF", "", "       1 !NTITLE", " REMARKS made for a test", "", f"{len(atoms):8d} !NATOM"]
    lines += [f"{i:8d} {s} {r} {n} {a} XX 0.0 12.0 0" for i, (s, r, n, a) in enumerate(atoms, start=1)]
    lines += ["", f"{len(bonds):8d} !NBOND: bonds"]
    flat = [str(number) for pair in bonds for number in pair]
    lines += ["".join(f"{n:>8s}" for n in flat[k : k + 8]) for k in range(0, len(flat), 8)]
    return "\n".join([*lines, "", "       0 !NTHETA: angles", ""])


def write_mdcath(
    path: Path,
    domain: str,
    *,
    n_residues: int = 3,
    n_frames: int = 12,
    temperatures: tuple[int, ...] = (320, 450),
    n_replicas: int = 2,
) -> None:
    """Write a domain with the layout of the mdCATH notebook `1_inspect_content`."""
    symbols = [element for _ in range(n_residues) for _, element, _ in ALANINE]
    names = {"H": 1, "C": 6, "N": 7, "O": 8}
    with h5py.File(path, "w") as store:
        store.attrs["layout"] = "mdcath-only-protein-v1.0"
        group = store.create_group(domain)
        group.attrs.update({"numProteinAtoms": len(symbols), "numResidues": n_residues, "numChains": 1})
        for key, text in {"pdb": alanines_pdb(n_residues), "pdbProteinAtoms": alanines_pdb(n_residues)}.items():
            group[key] = text.encode()
        group["psf"] = psf(n_residues).encode()
        group["z"] = np.array([names[symbol] for symbol in symbols])
        group["element"] = [symbol.encode() for symbol in symbols]
        group["resname"] = [b"ALA"] * len(symbols)
        group["chain"] = [b"A"] * len(symbols)
        group["resid"] = np.repeat(np.arange(1, n_residues + 1), len(ALANINE))
        for temperature in temperatures:
            for replica in range(n_replicas):
                run = group.create_group(f"{temperature}/{replica}")
                run.attrs["numFrames"] = n_frames
                run["coords"] = frames(n_frames, n_residues, seed=temperature + replica)
                run["coords"].attrs["unit"] = "Angstrom"
                run["forces"] = np.zeros((n_frames, len(symbols), 3), np.float32)
                run["box"] = 9.0 * np.eye(3)
                run["rmsd"] = np.zeros(n_frames)


#: A peptide in Amber's order, written by hand: residue kind, elements.
PEPTIDE = [
    (18, "N H H H C H C H H O H C O"),  # SER, first of the chain
    (7, "N H C H C H H S C O"),  # CYX
    (12, "N H C H C H C H H H C H H C H H H C O"),  # ILE
    (11, "N H C H C H H C N C H N H C H C O"),  # HIE
    (7, "N H C H C H H S C O"),  # CYX
    (10, "N H C H H C O O"),  # GLY, last of the chain
]
#: Ethanol as a ligand: elements and places [Å].
LIGAND = [("C", (0, 0, 0)), ("C", (1.5, 0, 0)), ("O", (2.0, 1.3, 0))] + [
    ("H", place) for place in [(-0.4, 1.0, 0), (-0.4, -0.5, 0.9), (-0.4, -0.5, -0.9), (1.9, -0.6, 0.9)]
] + [("H", (1.9, -0.6, -0.9)), ("H", (2.95, 1.3, 0))]  # fmt: skip


def write_misato(path: Path, names: tuple[str, ...] = ("1A28", "2B3C"), *, n_frames: int = 10) -> None:
    """Write complexes of PEPTIDE and LIGAND with the layout of MD.hdf5; sulfurs 2 Å apart, other atoms 3 Å."""
    numbers = {"H": 1, "C": 6, "N": 7, "O": 8, "S": 16}
    symbols = [symbol for _, elements in PEPTIDE for symbol in elements.split()]
    n_protein = len(symbols)
    symbols += [symbol for symbol, _ in LIGAND]
    kinds = [kind for kind, elements in PEPTIDE for _ in elements.split()] + [0] * len(LIGAND)
    places = np.zeros((len(symbols), 3))
    places[:n_protein, 0] = 3.0 * np.arange(n_protein)
    sulfurs = [i for i, symbol in enumerate(symbols) if symbol == "S"]
    places[sulfurs[1]] = places[sulfurs[0]] + (0, 2.0, 0)
    places[n_protein:] = np.add([place for _, place in LIGAND], (0, 20.0, 0))
    drift = 0.01 * np.arange(n_frames)[:, None, None] * np.array([0.0, 0.0, 1.0])
    with h5py.File(path, "w") as store:
        for name in names:
            group = store.create_group(name)
            group["atoms_number"] = np.array([numbers[symbol] for symbol in symbols])
            group["atoms_element"] = np.array([{"H": 1, "C": 2, "N": 3, "O": 4, "S": 7}[s] for s in symbols])
            group["atoms_residue"] = np.array(kinds)
            group["atoms_type"] = np.zeros(len(symbols), int)
            group["molecules_begin_atom_index"] = np.array([0, n_protein])
            group.create_dataset("trajectory_coordinates", data=places + drift, chunks=(4, 20, 1), compression="gzip")
            group["frames_rmsd_ligand"] = np.zeros(n_frames)
