"""The heavy atoms of the 20 amino acids: what hangs on what, bonds, ideal lengths and angles, chi, chirality.

Every residue has 15 slots: N, CA, C, O, the side chain in the order of Greek letter and number (CB, CG1, CG2, CD1,
...), and OXT of a chain's end, always the last. A residue type is the place in `RESIDUE_NAMES`; `UNKNOWN` has a
backbone only.

Each atom is placed by its distance from a bonded atom, its angle with a second and its torsion with a third. Where a
sibling hangs on the same atom, the third is the sibling: so a chi moves all its branches, and the torsion between
siblings, like that of CB with C, is fixed by chemistry: its sign is the chirality.

The numbers at the end of this file are printed by `benchmarks/ideal_geometry.py`.
Source: connectivity of ff14SB in OpenMM, J. Maier et al., J. Chem. Theory Comput. 11, 3696 (2015); chi as IUPAC names
them; means of MD with amber14 and OBC2 at 300 K.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from openmm_latent.errors import require

#: The standard residues in alphabetical order of their names.
RESIDUE_NAMES = tuple("ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL".split())
#: The type of every other residue.
UNKNOWN = len(RESIDUE_NAMES)
N_SLOTS = 15
N, CA, C, O, CB, OXT = 0, 1, 2, 3, 4, 14  # noqa: E741  the atom's name
#: The type of cysteine, and the slot of its sulphur.
CYSTEINE, SG = RESIDUE_NAMES.index("CYS"), 5
#: Columns of internal coordinates: every slot but CA.
INTERNAL_SLOTS = tuple(slot for slot in range(N_SLOTS) if slot != CA)
#: Torsions of a residue in AlphaFold's order.
TORSION_NAMES = ("omega", "phi", "psi", "chi1", "chi2", "chi3", "chi4")
#: Atoms whose names may be exchanged; the last chi that ends in one of them means the same half a turn on.
SYMMETRIC_ATOMS = {
    "ARG": (("NH1", "NH2"),),
    "ASP": (("OD1", "OD2"),),
    "GLU": (("OE1", "OE2"),),
    "PHE": (("CD1", "CD2"), ("CE1", "CE2")),
    "TYR": (("CD1", "CD2"), ("CE1", "CE2")),
}


@dataclass(frozen=True)
class ResidueTables:
    """The geometry of all residue types, the first axis, (21,); slots are 0 to 14.

    Attributes
    ----------
    atom_names : tuple of tuple of str
        (21, 15), empty where there is no atom; OXT is named for all.
    has_atom : ndarray of bool
        (21, 15), OXT left out
    references : ndarray of int
        (21, 15, 3) slots of the atoms of bond, angle and torsion; -1 for N, CA and C, and where there is no atom
    ideal : ndarray
        (21, 15, 3) length [nm], angle and torsion [rad] on those; N and C have the distance from CA, and N the angle
        N-CA-C. A chi has a common rotamer, and O lies opposite to N.
    end : ndarray
        (15, 3) the same for O and OXT of a chain's end
    chi : ndarray of int
        (21, 15) 1 to 4 where the atom's torsion is that chi, else 0
    turns : ndarray of bool
        (21, 15) atoms whose torsion turns: the chi, and NH1 of ARG, whose chi5 is flat but flips
    is_half_turn : ndarray of bool
        (21, 4) chi that mean the same half a turn on
    renamed : ndarray of int
        (21, 15) slots after the exchange of `SYMMETRIC_ATOMS`
    centres : ndarray of int
        (21, 2, 4) the stereocentres CA, and CB of THR and ILE: centre and three neighbours; 0 where there is none
    handedness : ndarray of int
        (21, 2) sign of u . (v x w) in the L residue, the vectors from the centre to the neighbours; 0: none
    bonds : tuple of ndarray
        21 of (n_bonds, 2), slots; without OXT
    bond_lengths : tuple of ndarray
        21 of (n_bonds,) [nm]
    peptide : ndarray
        (3,) length of C-N [nm], angles CA-C-N and C-N-CA [rad]
    disulphide_length : float
        [nm]
    on_trace : dict
        (place, atom) -> (angle, torsion) [rad] of N, C and O on the Cα trace, see `internal_coordinates`; the place in
        the chain is "first", "inner" or "last". Means of an alpha helix and a beta strand: a start, no more.
    """

    atom_names: tuple[tuple[str, ...], ...]
    has_atom: np.ndarray
    references: np.ndarray
    ideal: np.ndarray
    end: np.ndarray
    chi: np.ndarray
    turns: np.ndarray
    is_half_turn: np.ndarray
    renamed: np.ndarray
    centres: np.ndarray
    handedness: np.ndarray
    bonds: tuple[np.ndarray, ...]
    bond_lengths: tuple[np.ndarray, ...]
    peptide: np.ndarray
    disulphide_length: float
    on_trace: dict[tuple[str, str], tuple[float, float]]


@lru_cache(maxsize=1)
def residue_tables() -> ResidueTables:
    """Return the tables of all residue types."""
    blocks, on_trace, single, end = _read(_NUMBERS)
    types = [_residue_type(name, blocks[name]) for name in RESIDUE_NAMES]
    types.append(_residue_type("", [blocks["GLY"][0]]))  # a residue of unknown type is a backbone
    return ResidueTables(
        atom_names=tuple(one["names"] for one in types),
        **{
            key: np.stack([one[key] for one in types])
            for key in "has_atom references ideal chi turns is_half_turn renamed centres handedness".split()
        },
        end=end,
        bonds=tuple(one["bonds"] for one in types),
        bond_lengths=tuple(one["bond_lengths"] for one in types),
        peptide=np.array(single["LINK"]),
        disulphide_length=single["DISULPHIDE"][0],
        on_trace=on_trace,
    )


def _read(text: str) -> tuple[dict, dict, dict, np.ndarray]:
    """Return the words of each residue's lines, and the numbers of the others by their first words."""
    blocks: dict[str, list[list[str]]] = {}
    on_trace, single, end, name = {}, {}, np.zeros((N_SLOTS, 3)), ""
    for line in text.strip().splitlines():
        words = line.split()
        if line.startswith(" "):
            blocks[name].append(words)
        elif words[0] == "TRACE":
            on_trace[words[1], words[2]] = (float(words[3]), float(words[4]))
        elif words[0] == "END":
            end[{"O": O, "OXT": OXT}[words[1]]] = [float(word) for word in words[2:]]
        elif words[0] in RESIDUE_NAMES:
            name = words[0]
            blocks[name] = [words]
        else:
            single[words[0]] = [float(word) for word in words[1:]]
    return blocks, on_trace, single, end


def _residue_type(name: str, lines: list[list[str]]) -> dict:
    """Return one residue's row of each table from its lines: the backbone's, the side chain's, the rings'."""
    n_ca, ca_c, n_ca_c, c_o, ca_c_o = (float(word) for word in lines[0][1:])
    atoms = [words for words in lines[1:] if words[0] != "ring"]
    names = ["N", "CA", "C", "O", *(words[0] for words in atoms)]
    slots = {atom: slot for slot, atom in enumerate(names)} | {"OXT": OXT}
    row: dict = {
        "names": (*names, *[""] * (N_SLOTS - 1 - len(names)), "OXT"),
        "has_atom": np.arange(N_SLOTS) < len(names),
        "references": np.full((N_SLOTS, 3), -1),
        "ideal": np.zeros((N_SLOTS, 3)),
        "chi": np.zeros(N_SLOTS, dtype=np.int64),
    }
    row["ideal"][N] = n_ca, n_ca_c, 0.0
    row["ideal"][C] = ca_c, 0.0, 0.0
    row["ideal"][O] = c_o, ca_c_o, 0.0
    row["references"][O] = C, CA, N
    row["references"][OXT] = C, CA, O
    for words in atoms:
        slot = slots[words[0]]
        row["references"][slot] = [slots[word] for word in words[1:4]]
        row["chi"][slot] = int(words[4])
        row["ideal"][slot] = [float(word) for word in words[5:]]
    row["turns"] = (row["chi"] > 0) | np.array([name == "ARG" and atom == "NH1" for atom in row["names"]])
    pairs = [(CA, N), (C, CA), (O, C)] + [(slots[words[0]], slots[words[1]]) for words in atoms]
    lengths = [row["ideal"][N, 0], *(row["ideal"][first, 0] for first, _ in pairs[1:])]
    rings = [words for words in lines[1:] if words[0] == "ring"]
    row["bonds"] = np.array(pairs + [(slots[words[1]], slots[words[2]]) for words in rings])
    row["bond_lengths"] = np.array(lengths + [float(words[3]) for words in rings])
    row |= _symmetry(name, slots, row["chi"]) | _chirality(name, slots, row["references"], row["ideal"])
    return row


def _symmetry(name: str, slots: dict[str, int], chi: np.ndarray) -> dict[str, np.ndarray]:
    """Return which chi mean the same half a turn on, (4,), and the slots after the exchange of names, (15,)."""
    renamed, is_half_turn = np.arange(N_SLOTS), np.zeros(4, dtype=bool)
    for first, second in SYMMETRIC_ATOMS.get(name, ()):
        renamed[[slots[first], slots[second]]] = slots[second], slots[first]
        if chi[slots[first]]:
            is_half_turn[chi[slots[first]] - 1] = True
    return {"renamed": renamed, "is_half_turn": is_half_turn}


def _chirality(name: str, slots: dict[str, int], references: np.ndarray, ideal: np.ndarray) -> dict[str, np.ndarray]:
    """Return the stereocentres with three neighbours, (2, 4), and their handedness, (2,)."""
    centres, handedness = np.zeros((2, 4), dtype=np.int64), np.zeros(2, dtype=np.int64)
    last = [("CB", 0)] if "CB" in slots else []
    last += [("CG2", 1)] if name in ("THR", "ILE") else []
    for atom, column in last:
        slot = slots[atom]
        centre, second, third = references[slot]
        centres[column] = centre, third, second, slot
        handedness[column] = int(np.sign(np.sin(ideal[slot, 2])))
    return {"centres": centres, "handedness": handedness}


@dataclass(frozen=True)
class Residues:
    """Which residues a protein has and how they hang together; see `describe_residues`.

    Attributes
    ----------
    types : ndarray of int
        (n_residues,) places in `RESIDUE_NAMES`
    chains : ndarray of int
        (n_residues,)
    is_joined : ndarray of bool
        (n_residues,) whether a peptide bond leads to the residue before
    has_oxt : ndarray of bool
        (n_residues,)
    """

    types: np.ndarray
    chains: np.ndarray
    is_joined: np.ndarray
    has_oxt: np.ndarray

    def __len__(self) -> int:
        """Return the number of residues."""
        return len(self.types)

    @property
    def has_atom(self) -> np.ndarray:
        """(n_residues, 15) which slots hold an atom."""
        flags = residue_tables().has_atom[self.types]
        flags[:, OXT] = self.has_oxt
        return flags

    @property
    def atom_names(self) -> list[tuple[str, ...]]:
        """Names of the atoms of each residue by slot, empty where it has none."""
        names, has_atom = residue_tables().atom_names, self.has_atom
        return [
            tuple(name if there else "" for name, there in zip(names[kind], flags, strict=True))
            for kind, flags in zip(self.types, has_atom, strict=True)
        ]

    def checked_slots(self, slots: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return slots, (n_atoms,), if they are those of all heavy atoms, each once, counted as 15 residue + slot."""
        given = np.asarray(slots, dtype=np.int64)
        known = np.flatnonzero(self.has_atom)
        require(
            given.ndim == 1 and np.array_equal(np.sort(given), known),
            f"slots must name each of the {len(known)} heavy atoms of the residues once, counted as {N_SLOTS} residue "
            f"+ slot, got {given.size} numbers; take them from read_residue_slots",
        )
        return given


def describe_residues(
    types: np.ndarray,
    chains: np.ndarray | None = None,
    is_joined: np.ndarray | None = None,
    has_oxt: np.ndarray | None = None,
) -> Residues:
    """Describe one or more chains.

    Parameters
    ----------
    types : ndarray of int
        (n_residues,) each residue's place in `RESIDUE_NAMES`, or `UNKNOWN`
    chains : ndarray of int, optional
        (n_residues,) any numbers, one a chain, whose residues follow one another; one chain unless given
    is_joined : ndarray of bool, optional
        (n_residues,) false where a chain is broken before a residue; chains are whole unless given
    has_oxt : ndarray of bool, optional
        (n_residues,) by default true for the last residue of each chain; give false for capped ones

    Raises
    ------
    LatentError
        The arrays disagree in shape, a type is not between 0 and 20, a chain is scattered, or a first residue joined.
    """
    given = np.asarray(types)
    require(
        given.ndim == 1 and len(given) > 0 and np.issubdtype(given.dtype, np.integer),
        f"types must be integers of shape (n_residues,), got {given.dtype} of shape {given.shape}; give each residue's "
        f"place in RESIDUE_NAMES",
    )
    require(
        given.min() >= 0 and given.max() <= UNKNOWN,
        f"types must lie between 0 and {UNKNOWN}, got {given.min()} to {given.max()}; give each residue's place in "
        f"RESIDUE_NAMES, and {UNKNOWN} for others",
    )
    chain = np.zeros(len(given), dtype=np.int64) if chains is None else np.asarray(chains)
    _require_length("chains", chain, len(given))
    starts = np.concatenate([[True], chain[1:] != chain[:-1]])
    require(
        int(starts.sum()) == len(np.unique(chain)),
        f"chains must name the residues of a chain one after another, got {len(np.unique(chain))} chains in "
        f"{int(starts.sum())} pieces; sort the residues by chain",
    )
    joined = ~starts if is_joined is None else np.asarray(is_joined, dtype=bool)
    oxt = np.roll(starts, -1) if has_oxt is None else np.asarray(has_oxt, dtype=bool)
    _require_length("is_joined", joined, len(given))
    _require_length("has_oxt", oxt, len(given))
    wrong = np.flatnonzero(joined & starts)
    require(
        len(wrong) == 0,
        f"is_joined must be false for the first residue of each chain, got true for residue {wrong[:1]}; a peptide "
        f"bond leads to a residue of the same chain",
    )
    return Residues(given.astype(np.int64), chain, joined, oxt)


def _require_length(name: str, values: np.ndarray, n_residues: int) -> None:
    require(
        values.shape == (n_residues,),
        f"{name} must have shape (n_residues={n_residues},), got {values.shape}; give one value a residue",
    )


def bond_pairs(residues: Residues, disulphides: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return all bonds between heavy atoms, and their ideal lengths.

    Parameters
    ----------
    residues : Residues
    disulphides : ndarray of int, optional
        (n_disulphides, 2) residues whose SG are bonded

    Returns
    -------
    pairs : ndarray of int
        (n_bonds, 2) atoms, counted as 15 residue + slot
    lengths : ndarray
        (n_bonds,) [nm]

    Raises
    ------
    LatentError
        A disulphide ends at a residue that is no cysteine.
    """
    tables = residue_tables()
    ends, links = N_SLOTS * np.flatnonzero(residues.has_oxt), N_SLOTS * np.flatnonzero(residues.is_joined)
    bridges = np.asarray([] if disulphides is None else disulphides, dtype=np.int64).reshape(-1, 2)
    for pair in bridges.tolist():
        require(
            all(0 <= place < len(residues) and residues.types[place] == CYSTEINE for place in pair),
            f"disulphides must join two CYS residues, got {pair}; count residues from 0",
        )
    pairs = [
        *(tables.bonds[kind] + N_SLOTS * place for place, kind in enumerate(residues.types)),
        np.stack([ends + OXT, ends + C], axis=1),
        np.stack([links - N_SLOTS + C, links + N], axis=1),
        N_SLOTS * bridges + SG,
    ]
    lengths = [
        *(tables.bond_lengths[kind] for kind in residues.types),
        np.full(len(ends), tables.end[OXT, 0]),
        np.full(len(links), tables.peptide[0]),
        np.full(len(bridges), tables.disulphide_length),
    ]
    return np.concatenate(pairs), np.concatenate(lengths)


def angle_pairs(bonds: np.ndarray) -> np.ndarray:
    """Return pairs of atoms with a common bonded neighbour, (n_pairs, 2), bonded ones left out.

    Parameters
    ----------
    bonds : ndarray of int
        (n_bonds, 2)
    """
    near: dict[int, set[int]] = {}
    for first, second in np.asarray(bonds).tolist():
        near.setdefault(first, set()).add(second)
        near.setdefault(second, set()).add(first)
    found = {(a, b) for atoms in near.values() for a in atoms for b in atoms if a < b and b not in near[a]}
    return np.array(sorted(found), dtype=np.int64).reshape(-1, 2)


#: A residue's first line: N-CA, CA-C, angle N-CA-C, C-O, angle CA-C-O. Then its side chain: atom, atoms of bond, angle
#: and torsion, chi (0: fixed), length [nm], angle, torsion [rad]; and bonds closing a ring. LINK: C-N, CA-C-N, C-N-CA.
_NUMBERS = """
ALA 0.14675 0.15495 1.9766 0.12373 2.1051
  CB CA N C 0 0.15370 1.8871 -2.1726
ARG 0.14798 0.15390 1.9572 0.12359 2.1066
  CB CA N C 0 0.15461 1.9234 -2.1775
  CG CB CA N 1 0.15407 2.0090 -1.0472
  CD CG CB CA 2 0.15365 1.9626 3.1416
  NE CD CG CB 3 0.14794 1.9421 3.1416
  CZ NE CD CG 4 0.13231 2.2216 3.1416
  NH1 CZ NE CD 0 0.13047 2.1390 0.0000
  NH2 CZ NE NH1 0 0.13031 2.0963 3.1416
ASN 0.14699 0.15497 1.9596 0.12368 2.1126
  CB CA N C 0 0.15464 1.9017 -2.1818
  CG CB CA N 1 0.15241 1.9926 -1.0472
  OD1 CG CB CA 2 0.12263 2.1348 1.5708
  ND2 CG CB OD1 0 0.13160 2.0634 3.1416
ASP 0.14735 0.15470 1.9728 0.12392 2.1096
  CB CA N C 0 0.15414 1.9168 -2.1827
  CG CB CA N 1 0.15443 2.0066 -1.0472
  OD1 CG CB CA 2 0.12556 2.0798 1.5708
  OD2 CG CB OD1 0 0.12555 2.0782 3.1416
CYS 0.14699 0.15477 1.9643 0.12371 2.1137
  CB CA N C 0 0.15407 1.8988 -2.1759
  SG CB CA N 1 0.18203 1.9486 -1.0472
GLN 0.14744 0.15497 1.9815 0.12373 2.1163
  CB CA N C 0 0.15478 1.9220 -2.2425
  CG CB CA N 1 0.15433 2.0225 -1.0472
  CD CG CB CA 2 0.15308 1.9839 3.1416
  OE1 CD CG CB 3 0.12286 2.1409 1.5708
  NE2 CD CG OE1 0 0.13183 2.0734 3.1416
GLU 0.14725 0.15462 1.9569 0.12376 2.1102
  CB CA N C 0 0.15449 1.9097 -2.1871
  CG CB CA N 1 0.15405 2.0140 -1.0472
  CD CG CB CA 2 0.15447 1.9839 3.1416
  OE1 CD CG CB 3 0.12573 2.0791 1.5708
  OE2 CD CG OE1 0 0.12567 2.0852 3.1416
GLY 0.14713 0.15394 1.9966 0.12363 2.1035
HIS 0.14709 0.15471 1.9651 0.12384 2.1178
  CB CA N C 0 0.15426 1.9125 -2.1854
  CG CB CA N 1 0.15138 2.0102 -1.0472
  ND1 CG CB CA 2 0.13794 2.2032 1.5708
  CD2 CG CB ND1 0 0.13717 2.2054 3.1416
  CE1 ND1 CG CB 0 0.13446 1.8892 3.1416
  NE2 CD2 CG CB 0 0.14038 1.8858 3.1416
  ring NE2 CE1 0.13464
ILE 0.14769 0.15460 1.9423 0.12358 2.1116
  CB CA N C 0 0.15547 1.9297 -2.2032
  CG1 CB CA N 1 0.15503 1.9673 -1.0472
  CG2 CB CA CG1 0 0.15413 1.9510 -2.1784
  CD1 CG1 CB CA 2 0.15364 1.9934 3.1416
LEU 0.14714 0.15442 1.9588 0.12378 2.1110
  CB CA N C 0 0.15464 1.9103 -2.1864
  CG CB CA N 1 0.15498 2.0308 -1.0472
  CD1 CG CB CA 2 0.15308 1.9328 3.1416
  CD2 CG CB CD1 0 0.15328 1.9543 2.1069
LYS 0.14790 0.15409 1.9704 0.12368 2.1066
  CB CA N C 0 0.15445 1.9199 -2.1874
  CG CB CA N 1 0.15434 1.9831 -1.0472
  CD CG CB CA 2 0.15395 1.9396 3.1416
  CE CD CG CB 3 0.15370 1.9483 3.1416
  NZ CE CD CG 4 0.14890 1.9620 3.1416
MET 0.14734 0.15455 1.9566 0.12374 2.1113
  CB CA N C 0 0.15433 1.9161 -2.1765
  CG CB CA N 1 0.15389 1.9977 -1.0472
  SD CG CB CA 2 0.18188 2.0232 3.1416
  CE SD CG CB 3 0.18172 1.7570 3.1416
PHE 0.14724 0.15455 1.9608 0.12379 2.1114
  CB CA N C 0 0.15420 1.9082 -2.1753
  CG CB CA N 1 0.15219 2.0133 -1.0472
  CD1 CG CB CA 2 0.14095 2.0982 1.5708
  CD2 CG CB CD1 0 0.14095 2.0964 3.1416
  CE1 CD1 CG CB 0 0.14071 2.0968 3.1416
  CE2 CD2 CG CB 0 0.14074 2.0961 3.1416
  CZ CE1 CD1 CG 0 0.14055 2.0931 0.0000
  ring CZ CE2 0.14058
PRO 0.14678 0.15448 1.9786 0.12379 2.1219
  CB CA N C 0 0.15343 1.8323 -2.1359
  CG CB CA N 1 0.15284 1.8104 0.4864
  CD CG CB CA 2 0.15294 1.7972 -0.6046
  ring CD N 0.14589
SER 0.14750 0.15438 1.9677 0.12368 2.1069
  CB CA N C 0 0.15371 1.9104 -2.1675
  OG CB CA N 1 0.14203 1.9509 -1.0472
THR 0.14794 0.15429 1.9509 0.12373 2.1046
  CB CA N C 0 0.15464 1.9331 -2.1763
  OG1 CB CA N 1 0.14168 1.9362 -1.0472
  CG2 CB CA OG1 0 0.15315 1.9860 -2.1085
TRP 0.14738 0.15457 1.9788 0.12382 2.1109
  CB CA N C 0 0.15401 1.9174 -2.2173
  CG CB CA N 1 0.15035 2.0269 -1.0472
  CD1 CG CB CA 2 0.13543 2.1847 1.5708
  CD2 CG CB CD1 0 0.14643 2.2505 3.1416
  NE1 CD1 CG CB 0 0.13820 1.9139 3.1416
  CE2 CD2 CG CB 0 0.14288 1.8908 3.1416
  CE3 CD2 CG CE2 0 0.14146 2.3493 3.1416
  CZ2 CE2 CD2 CG 0 0.14037 2.1366 3.1416
  CZ3 CE3 CD2 CG 0 0.14101 2.1117 3.1416
  CH2 CZ2 CE2 CD2 0 0.14059 2.0770 0.0000
  ring CE2 NE1 0.13785
  ring CH2 CZ3 0.14085
TYR 0.14720 0.15456 1.9610 0.12379 2.1147
  CB CA N C 0 0.15420 1.9110 -2.1750
  CG CB CA N 1 0.15214 2.0124 -1.0472
  CD1 CG CB CA 2 0.14100 2.0918 1.5708
  CD2 CG CB CD1 0 0.14102 2.0978 3.1416
  CE1 CD1 CG CB 0 0.14091 2.0958 3.1416
  CE2 CD2 CG CB 0 0.14099 2.0968 3.1416
  CZ CE1 CD1 CG 0 0.14117 2.0941 0.0000
  OH CZ CE1 CD1 0 0.13614 2.0906 3.1416
  ring CZ CE2 0.14129
VAL 0.14788 0.15409 1.9527 0.12364 2.1093
  CB CA N C 0 0.15485 1.9371 -2.1950
  CG1 CB CA N 1 0.15384 1.9680 -1.0472
  CG2 CB CA CG1 0 0.15379 1.9663 2.1528
LINK 0.13380 2.0432 2.1776
DISULPHIDE 0.20380
END O 0.12553 2.0793 3.1416
END OXT 0.12544 2.0678 3.1416
TRACE first N 1.9443 2.3955
TRACE first C 0.3668 -1.4531
TRACE first O 2.1051 3.1416
TRACE inner N 0.2324 -1.6885
TRACE inner C 0.3668 2.6915
TRACE inner O 2.1051 3.1416
TRACE last N 0.2324 0.4500
TRACE last C 1.9729 2.0832
TRACE last O 2.1051 -2.6058
"""
