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
    cysteine = RESIDUE_NAMES.index("CYS")
    for pair in bridges.tolist():
        require(
            all(0 <= place < len(residues) and residues.types[place] == cysteine for place in pair),
            f"disulphides must join two CYS residues, got {pair}; count residues from 0",
        )
    pairs = [
        *(tables.bonds[kind] + N_SLOTS * place for place, kind in enumerate(residues.types)),
        np.stack([ends + OXT, ends + C], axis=1),
        np.stack([links - N_SLOTS + C, links + N], axis=1),
        N_SLOTS * bridges + tables.atom_names[cysteine].index("SG"),
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
ALA 0.14692 0.15493 1.9780 0.12359 2.1065
  CB CA N C 0 0.15363 1.8867 -2.1723
ARG 0.14798 0.15397 1.9766 0.12360 2.1058
  CB CA N C 0 0.15473 1.9329 -2.2331
  CG CB CA N 1 0.15443 2.0445 -1.0472
  CD CG CB CA 2 0.15369 1.9941 3.1416
  NE CD CG CB 3 0.14801 1.9444 3.1416
  CZ NE CD CG 4 0.13254 2.2174 3.1416
  NH1 CZ NE CD 0 0.13075 2.1390 0.0000
  NH2 CZ NE NH1 0 0.13044 2.0964 3.1416
ASN 0.14720 0.15487 1.9628 0.12365 2.1090
  CB CA N C 0 0.15457 1.9100 -2.1741
  CG CB CA N 1 0.15235 1.9928 -1.0472
  OD1 CG CB CA 2 0.12283 2.1298 1.5708
  ND2 CG CB OD1 0 0.13159 2.0699 3.1416
ASP 0.14753 0.15490 1.9923 0.12363 2.0997
  CB CA N C 0 0.15422 1.9197 -2.2124
  CG CB CA N 1 0.15435 2.0252 -1.0472
  OD1 CG CB CA 2 0.12544 2.0683 1.5708
  OD2 CG CB OD1 0 0.12548 2.0965 3.1416
CYS 0.14708 0.15490 1.9726 0.12377 2.1068
  CB CA N C 0 0.15405 1.9023 -2.1657
  SG CB CA N 1 0.18221 1.9407 -1.0472
GLN 0.14738 0.15470 1.9622 0.12369 2.1039
  CB CA N C 0 0.15445 1.9135 -2.1766
  CG CB CA N 1 0.15424 1.9947 -1.0472
  CD CG CB CA 2 0.15306 1.9929 3.1416
  OE1 CD CG CB 3 0.12288 2.1421 1.5708
  NE2 CD CG OE1 0 0.13172 2.0707 3.1416
GLU 0.14758 0.15472 1.9745 0.12381 2.1040
  CB CA N C 0 0.15433 1.9107 -2.1641
  CG CB CA N 1 0.15397 1.9959 -1.0472
  CD CG CB CA 2 0.15465 1.9770 3.1416
  OE1 CD CG CB 3 0.12565 2.0786 1.5708
  OE2 CD CG OE1 0 0.12578 2.0864 3.1416
GLY 0.14718 0.15393 1.9968 0.12373 2.1011
HIS 0.14741 0.15476 1.9869 0.12370 2.0970
  CB CA N C 0 0.15405 1.9063 -2.1809
  CG CB CA N 1 0.15127 1.9969 -1.0472
  ND1 CG CB CA 2 0.13780 2.1980 1.5708
  CD2 CG CB ND1 0 0.13709 2.2081 3.1416
  CE1 ND1 CG CB 0 0.13446 1.8883 3.1416
  NE2 CD2 CG CB 0 0.14040 1.8838 3.1416
  ring NE2 CE1 0.13469
ILE 0.14758 0.15436 1.9194 0.12373 2.1082
  CB CA N C 0 0.15542 1.9289 -2.1879
  CG1 CB CA N 1 0.15523 1.9441 -1.0472
  CG2 CB CA CG1 0 0.15434 1.9527 -2.1528
  CD1 CG1 CB CA 2 0.15358 2.0004 3.1416
LEU 0.14727 0.15468 1.9678 0.12372 2.1054
  CB CA N C 0 0.15462 1.9055 -2.1710
  CG CB CA N 1 0.15467 2.0242 -1.0472
  CD1 CG CB CA 2 0.15333 1.9346 3.1416
  CD2 CG CB CD1 0 0.15325 1.9474 2.1052
LYS 0.14798 0.15413 1.9656 0.12362 2.0993
  CB CA N C 0 0.15456 1.9175 -2.1757
  CG CB CA N 1 0.15409 1.9866 -1.0472
  CD CG CB CA 2 0.15396 1.9731 3.1416
  CE CD CG CB 3 0.15375 1.9452 3.1416
  NZ CE CD CG 4 0.14885 1.9575 3.1416
MET 0.14747 0.15438 1.9715 0.12359 2.1061
  CB CA N C 0 0.15427 1.9212 -2.1694
  CG CB CA N 1 0.15381 1.9800 -1.0472
  SD CG CB CA 2 0.18187 2.0183 3.1416
  CE SD CG CB 3 0.18159 1.7571 3.1416
PHE 0.14710 0.15470 1.9587 0.12385 2.1082
  CB CA N C 0 0.15416 1.8995 -2.1774
  CG CB CA N 1 0.15222 2.0055 -1.0472
  CD1 CG CB CA 2 0.14099 2.0998 1.5708
  CD2 CG CB CD1 0 0.14094 2.0920 3.1416
  CE1 CD1 CG CB 0 0.14066 2.0949 3.1416
  CE2 CD2 CG CB 0 0.14068 2.0948 3.1416
  CZ CE1 CD1 CG 0 0.14069 2.0934 0.0000
  ring CZ CE2 0.14068
PRO 0.14669 0.15444 1.9830 0.12358 2.1208
  CB CA N C 0 0.15338 1.8329 -2.1364
  CG CB CA N 1 0.15281 1.8092 0.4947
  CD CG CB CA 2 0.15275 1.7981 -0.5575
  ring CD N 0.14592
SER 0.14743 0.15434 1.9554 0.12375 2.1068
  CB CA N C 0 0.15369 1.9102 -2.1614
  OG CB CA N 1 0.14196 1.9473 -1.0472
THR 0.14791 0.15392 1.9383 0.12367 2.1008
  CB CA N C 0 0.15454 1.9290 -2.1561
  OG1 CB CA N 1 0.14161 1.9216 -1.0472
  CG2 CB CA OG1 0 0.15326 1.9956 -2.0772
TRP 0.14716 0.15451 1.9609 0.12375 2.1090
  CB CA N C 0 0.15396 1.9052 -2.1774
  CG CB CA N 1 0.15014 2.0184 -1.0472
  CD1 CG CB CA 2 0.13543 2.1874 1.5708
  CD2 CG CB CD1 0 0.14630 2.2446 3.1416
  NE1 CD1 CG CB 0 0.13826 1.9135 3.1416
  CE2 CD2 CG CB 0 0.14299 1.8891 3.1416
  CE3 CD2 CG CE2 0 0.14142 2.3485 3.1416
  CZ2 CE2 CD2 CG 0 0.14040 2.1343 3.1416
  CZ3 CE3 CD2 CG 0 0.14106 2.1081 3.1416
  CH2 CZ2 CE2 CD2 0 0.14059 2.0783 0.0000
  ring CE2 NE1 0.13798
  ring CH2 CZ3 0.14079
TYR 0.14732 0.15465 1.9737 0.12381 2.1066
  CB CA N C 0 0.15417 1.9127 -2.1689
  CG CB CA N 1 0.15215 2.0107 -1.0472
  CD1 CG CB CA 2 0.14103 2.0952 1.5708
  CD2 CG CB CD1 0 0.14096 2.0953 3.1416
  CE1 CD1 CG CB 0 0.14099 2.0961 3.1416
  CE2 CD2 CG CB 0 0.14083 2.0971 3.1416
  CZ CE1 CD1 CG 0 0.14111 2.0934 0.0000
  OH CZ CE1 CD1 0 0.13605 2.0926 3.1416
  ring CZ CE2 0.14113
VAL 0.14791 0.15386 1.9334 0.12355 2.1053
  CB CA N C 0 0.15495 1.9365 -2.1744
  CG1 CB CA N 1 0.15372 1.9712 -1.0472
  CG2 CB CA CG1 0 0.15392 1.9486 2.1180
LINK 0.13373 2.0452 2.1783
DISULPHIDE 0.20380
END O 0.12550 2.0703 3.1416
END OXT 0.12549 2.0759 3.1416
TRACE first N 1.9458 2.3960
TRACE first C 0.3656 -1.4528
TRACE first O 2.1065 3.1416
TRACE inner N 0.2325 -1.6888
TRACE inner C 0.3656 2.6915
TRACE inner O 2.1065 3.1416
TRACE last N 0.2325 0.4501
TRACE last C 1.9743 2.0836
TRACE last O 2.1065 -2.6061
"""
