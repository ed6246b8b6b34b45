"""Splits of a data set by protein: none of the proteins of one part is in another.

What must stay together: entries of one protein (`Entry.protein`: the PDB id in ATLAS, mdCATH and MISATO) and entries of
one cluster of the user's table, and whatever these two chain together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from openmm_latent.data.datasets import DataSet, some_of
from openmm_latent.errors import require

Clusters = str | Path | Mapping[str, str]


def split_at_random(
    dataset: DataSet, fractions: Sequence[float] = (0.8, 0.1, 0.1), *, seed: int = 1, clusters: Clusters | None = None
) -> tuple[DataSet, ...]:
    """Split by protein at random.

    Parameters
    ----------
    dataset : DataSet
    fractions : sequence of float
        Share of the entries in each part; they add up to 1. Groups are never cut, so shares are met as nearly as the
        groups' sizes allow.
    seed : int
        The same seed and names give the same split, whatever order the files were found in.
    clusters : path or mapping or None
        Entry -> cluster, e.g. of sequences or folds: a mapping, or a file with two columns (cluster, entry), tabs or
        commas between them, as MMseqs2 and Foldseek write.

    Returns
    -------
    tuple of DataSet
        One for each fraction.

    Raises
    ------
    LatentError
        The fractions do not add up, a part stays empty, or an entry is not in the table.
    """
    shares = np.asarray(fractions, dtype=float)
    require(
        len(shares) >= 2 and bool(np.all(shares > 0)) and abs(shares.sum() - 1) < 1e-6,
        f"fractions must be two or more positive shares that add up to 1, got {list(fractions)}",
    )
    groups = protein_groups(dataset, clusters)
    require(
        len(groups) >= len(shares),
        f"data set {dataset.path} has {len(groups)} groups of proteins, too few for {len(shares)} parts; use fewer "
        f"parts or more data",
    )
    # large groups first: a small one can still level out what a large one left uneven
    order = sorted(np.random.default_rng(seed).permutation(len(groups)), key=lambda i: -len(groups[i]))
    parts: list[list[str]] = [[] for _ in shares]
    for n_done, i in enumerate(order):
        room = shares * len(dataset) - [len(part) for part in parts]
        empty = [k for k, part in enumerate(parts) if not part]
        must_fill = len(empty) >= len(order) - n_done
        chosen = max(empty, key=lambda k: room[k]) if must_fill else int(np.argmax(room))
        parts[chosen] += groups[i]
    return tuple(dataset.subset(sorted(part)) for part in parts)


def split_by_names(
    dataset: DataSet,
    *lists: str | Path | Sequence[str],
    clusters: Clusters | None = None,
    skips_absent: bool = False,
) -> tuple[DataSet, ...]:
    """Split by lists of names, or by files with a name a line.

    Parameters
    ----------
    dataset : DataSet
    *lists : paths or sequences of str
        One for each part; entries in none of them are left out. Capitals count only where they tell entries apart.
    clusters : path or mapping or None
        See `split_at_random`.
    skips_absent : bool
        Leave out names that the data set has not, as when only a part of it was downloaded.

    Raises
    ------
    LatentError
        A name is unknown, or two parts share a protein or a cluster.
    """
    exact, folded = set(dataset.names), _folded(dataset.names)
    parts = []
    for names in (_names(part) for part in lists):
        known = [name if name in exact else folded.get(name.lower()) for name in names]
        absent = [name for name, found in zip(names, known, strict=True) if found is None]
        require(
            skips_absent or not absent,
            f"{len(absent)} names of the split are not in data set {dataset.path} ({some_of(absent)}); correct them, "
            f"or set skips_absent",
        )
        parts.append(sorted({name for name in known if name is not None}))
    owner = {name: k for k, part in enumerate(parts) for name in part}
    doubled = sorted({name for k, part in enumerate(parts) for name in part if owner[name] != k})
    require(not doubled, f"the parts of the split share {some_of(doubled)}; keep each name in one part")
    for group in protein_groups(dataset, clusters):
        inside = [name for name in group if name in owner]
        other = next((name for name in inside if owner[name] != owner[inside[0]]), None)
        require(
            other is None,
            f"parts {owner[inside[0]] + 1 if inside else 0} and {owner.get(other or '', 0) + 1} of the split share a "
            f"protein or cluster: {inside[0] if inside else None} and {other}; move one of them",
        )
    return tuple(dataset.subset(part) for part in parts)


def protein_groups(dataset: DataSet, clusters: Clusters | None = None) -> list[list[str]]:
    """Return the groups of entry names that must stay together, sorted by their first name.

    Raises
    ------
    LatentError
        An entry is not in the table of clusters.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    names = sorted(dataset.names)
    if not names:
        return []
    labels = [[f"protein {dataset[name].protein}"] for name in names]
    if clusters is not None:
        table = _table(clusters)
        absent = [name for name in names if name not in table]
        require(
            not absent,
            f"clusters name no cluster for {len(absent)} of {len(names)} entries ({some_of(absent)}); the table needs "
            f"two columns, cluster and entry",
        )
        for own, name in zip(labels, names, strict=True):
            own.append(f"cluster {table[name]}")
    number: dict[str, int] = {}
    pairs = [(i, number.setdefault(label, len(number))) for i, own in enumerate(labels) for label in own]
    rows, columns = np.array(pairs).T
    size = len(names) + len(number)
    graph = coo_matrix((np.ones(len(rows)), (rows, len(names) + columns)), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    groups: dict[int, list[str]] = {}
    for name, label in zip(names, component, strict=False):
        groups.setdefault(int(label), []).append(name)
    return sorted(groups.values())


def _table(clusters: Clusters) -> dict[str, str]:
    """Return entry -> cluster."""
    if isinstance(clusters, Mapping):
        return dict(clusters)
    path = Path(clusters)
    require(path.is_file(), f"clusters file {path} does not exist; give a table with the columns cluster and entry")
    table = {}
    for n, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        columns = line.replace(",", "\t").split("\t") if "\t" in line or "," in line else line.split()
        require(
            len(columns) == 2,
            f"clusters file {path} has {len(columns)} columns in line {n}, expected two: cluster and entry",
        )
        table[columns[1].strip()] = columns[0].strip()
    return table


def _names(part: str | Path | Sequence[str]) -> list[str]:
    """Return the names of a list, or of a file with a name a line."""
    if not isinstance(part, str | Path):
        return [str(name) for name in part]
    path = Path(part)
    require(path.is_file(), f"list {path} does not exist; give a file with a name a line, or a list of names")
    return [line.split()[0] for line in path.read_text().splitlines() if line.split() and not line.startswith("#")]


def _folded(names: Sequence[str]) -> dict[str, str]:
    """Return lower-case name -> name, where that is unique."""
    folded: dict[str, str] = {}
    doubled = set()
    for name in names:
        if name.lower() in folded:
            doubled.add(name.lower())
        folded[name.lower()] = name
    return {key: name for key, name in folded.items() if key not in doubled}
