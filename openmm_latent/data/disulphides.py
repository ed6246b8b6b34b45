"""Which cysteines are bonded: by a topology's bonds, near sulphurs, a PDB file's records, or a user's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from openmm import app

from openmm_latent.errors import require

#: SG nearer than this are bonded [nm].
_LONGEST = 0.25

#: Chain and number of a residue; a chain of "" is the only one.
Label = tuple[str, str]


def bonded_sulphurs(topology: app.Topology, sulphurs: Mapping[int, int], positions: np.ndarray) -> np.ndarray:
    """Return bridges: those that are bonds of the topology and then, of cysteines left, the nearest.

    Parameters
    ----------
    topology : openmm.app.Topology
    sulphurs : mapping of int to int
        Atom -> residue, of each SG.
    positions : ndarray
        (n_atoms, 3) [nm]

    Returns
    -------
    ndarray of int
        (n_disulphides, 2) residues, each in one bridge
    """
    bonds = [(a.index, b.index) for a, b in topology.bonds() if a.index in sulphurs and b.index in sulphurs]
    atoms = np.array(list(sulphurs), dtype=np.int64)
    places = np.asarray(positions, dtype=np.float64)[atoms].reshape(-1, 3)
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    near = np.argwhere(np.triu(apart < _LONGEST, 1))
    near = atoms[near[np.argsort(apart[near[:, 0], near[:, 1]])]]
    found: list[tuple[int, int]] = []
    taken: set[int] = set()
    for pair in [*bonds, *near.tolist()]:
        first, second = sorted(sulphurs[atom] for atom in pair)
        if not {first, second} & taken:
            found.append((first, second))
            taken |= {first, second}
    return np.array(sorted(found), dtype=np.int64).reshape(-1, 2)


def read_bridges(text: str) -> list[tuple[Label, Label]]:
    """Return the bridges that a user wrote: "A:3-A:40,A:14-A:26", or "3-40" where there is one chain.

    Raises
    ------
    LatentError
        The text is of another form.
    """
    found = []
    for word in filter(None, re.split(r"[,\s]+", text)):
        parts = re.fullmatch(r"(?:(\w+):)?(-?\d+\w?)-(?:(\w+):)?(-?\d+\w?)", word)
        require(
            parts is not None,
            f"disulphides must be pairs of residues such as A:3-A:40,A:14-A:26, got {word!r}; give chain and number as "
            f"the trace's file has them",
        )
        first, one, second, other = (part or "" for part in (parts or [""]).groups())
        found.append(((first, one), (second or first, other)))
    return found


def ssbond_records(path: str | Path) -> list[tuple[Label, Label]]:
    """Return the bridges that a PDB file's SSBOND records name."""
    with open(path) as lines:
        records = [line for line in lines if line.startswith("SSBOND")]
    return [((one[15], one[17:22].strip()), (one[29], one[31:36].strip())) for one in records]
