"""Torsions by name, features made of them, and states written as expressions such as `phi>0 and psi<60`."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openmm_latent.data.readers import read_chunks
from openmm_latent.data.trajectories import load_topology
from openmm_latent.errors import LatentError, require
from openmm_latent.geometry import dihedrals, torsion_quadruples
from openmm_latent.metrics import torsion_features
from openmm_latent.topology import describe_atoms

KINDS = ("phi", "psi", "omega", "chi1", "chi2", "chi3", "chi4")
#: Torsions that features are made of by default; omega is left out, as it hardly moves.
FEATURES = ("phi", "psi", "chi1", "chi2", "chi3", "chi4")


@dataclass(frozen=True)
class TorsionTable:
    """All torsions of a topology by name.

    Attributes
    ----------
    names : list of str
        `phi[2]` is phi of residue 2 as the structure file numbers it; with several chains `phi[A:2]`.
    quadruples : np.ndarray
        (n_torsions, 4) atom indices.
    n_atoms : int
    topology : mdtraj.Topology
    """

    names: list[str]
    quadruples: np.ndarray
    n_atoms: int
    topology: object

    @classmethod
    def from_topology(cls, top: Path) -> TorsionTable:
        """Find the torsions of a structure file's topology."""
        import mdtraj

        topology, _ = load_topology(top)
        atoms = list(topology.atoms())
        records = describe_atoms(topology, range(len(atoms)))
        has_chains = sum(1 for chain in topology.chains() if any(a.name == "CA" for a in chain.atoms())) > 1
        names, found = [], []
        for kind in KINDS:
            for quadruple in torsion_quadruples(records, kind):
                residue = atoms[quadruple[1 if kind == "phi" else 0]].residue  # phi starts in the residue before
                chain = f"{residue.chain.id}:" if has_chains else ""
                names.append(f"{kind}[{chain}{residue.id}]")
                found.append(quadruple)
        require(len(found) > 0, f"topology {top} has no protein torsions; give features of your own from Python")
        return cls(names, np.array(found), len(atoms), mdtraj.Topology.from_openmm(topology))

    def index(self, name: str) -> int:
        """Return the column of a torsion; a bare kind will do where one residue has it.

        Raises
        ------
        LatentError
            The name is unknown, or several residues have such a torsion.
        """
        if name in self.names:
            return self.names.index(name)
        same = [known for known in self.names if known.split("[")[0] == name]
        require(len(same) < 2, f"torsion {name!r} is not unique: write one of {', '.join(same[:8])}")
        require(len(same) == 1, f"torsion {name!r} is unknown; this molecule has {', '.join(self.names[:12])}")
        return self.names.index(same[0])

    def features(self, angles: np.ndarray) -> np.ndarray:
        """Return cosines and sines of all torsions but omega: (n_frames, n_torsions) -> (n_frames, n_features)."""
        return torsion_features(angles[:, [name.split("[")[0] in FEATURES for name in self.names]])

    def measure(
        self, trajectory: Path, function: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Stream a trajectory file.

        Returns
        -------
        angles : np.ndarray
            (n_frames, n_torsions) [rad]
        features : np.ndarray or None
            (n_frames, n_features) of `function`, which takes (n_frames, n_atoms, 3) [nm].
        """
        angles, features = [], []
        for chunk in read_chunks(trajectory, self.topology, np.arange(self.n_atoms)):
            angles.append(dihedrals(chunk.positions, self.quadruples))
            if function is not None:
                features.append(np.asarray(function(chunk.positions), dtype=np.float64))
        require(len(angles) > 0, f"trajectory file {trajectory} holds no frames; leave it out")
        return np.concatenate(angles), np.concatenate(features) if features else None

    def frame_spacing(self, trajectory: Path) -> float | None:
        """Return the spacing of a trajectory's time stamps [ps], None where it stores none."""
        first = next(read_chunks(trajectory, self.topology, np.arange(1)))
        if first.times is None or len(first.times) < 2 or first.times[1] <= first.times[0]:
            return None
        return round(float(first.times[-1] - first.times[0]) / (len(first.times) - 1), 6)


_COMPARISONS = {ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge}


@dataclass(frozen=True)
class State:
    """A named set of conformations.

    Attributes
    ----------
    name : str
    expression : str
        Comparisons of torsions with numbers, in degrees from -180 to 180, joined by `and`, `or`, `not` and
        parentheses: `phi>0`, `-100 < phi[2] < -30 and psi[2] < 50`.
    """

    name: str
    expression: str

    @classmethod
    def parse(cls, text: str) -> State:
        """Read `NAME=EXPRESSION`, or an expression that is its own name."""
        head, equals, tail = text.partition("=")
        if equals and head.strip().replace("_", "").replace("-", "").isalnum() and not tail.startswith("="):
            state = cls(head.strip(), tail.strip())
        else:
            state = cls(text.strip(), text.strip())
        _check(_tree(state.expression), state.expression)
        return state

    def require_known(self, torsions: TorsionTable) -> None:
        """Raise `LatentError` if the molecule has no such torsion, or several."""
        self.holds(torsions, np.zeros((1, len(torsions.names))))

    def holds(self, torsions: TorsionTable, angles: np.ndarray) -> np.ndarray:
        """Return which frames are in the state: (n_frames, n_torsions) [rad] -> (n_frames,) bool."""
        degrees = np.degrees(angles)
        found = _evaluate(_tree(self.expression), lambda name: degrees[:, torsions.index(name)])
        return np.broadcast_to(np.asarray(found, dtype=bool), (len(angles),))


def _tree(expression: str) -> ast.expr:
    try:
        return ast.parse(expression, mode="eval").body
    except SyntaxError as error:
        raise LatentError(_refusal(expression, "it cannot be read")) from error


def _refusal(expression: str, why: str) -> str:
    return (
        f"state (--state) {expression!r} is not understood: {why}; compare torsions with degrees, "
        f"e.g. 'phi>0' or 'helix=-100<phi[2]<-30 and psi[2]<50'"
    )


def _check(node: ast.expr, expression: str) -> None:
    """Refuse all but comparisons of torsions with numbers: nothing else of Python is ever run."""
    if isinstance(node, ast.BoolOp):
        for value in node.values:
            _check(value, expression)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        _check(node.operand, expression)
    elif isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        names = [_torsion_name(side) for side in sides]
        numbers = [_number(side) for side in sides]
        require(all(type(op) in _COMPARISONS for op in node.ops), _refusal(expression, "only <, <=, >, >= compare"))
        require(
            all((name is None) != (number is None) for name, number in zip(names, numbers, strict=True))
            and sum(name is not None for name in names) == 1,
            _refusal(expression, "a comparison has one torsion and otherwise numbers"),
        )
    else:
        raise LatentError(_refusal(expression, f"{ast.unparse(node)!r} is no comparison"))


def _torsion_name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name) and node.id in KINDS:
        return node.id
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in KINDS:
        inside = node.slice
        if isinstance(inside, ast.Constant) and isinstance(inside.value, int | str):
            return f"{node.value.id}[{inside.value}]"
        if isinstance(inside, ast.Slice) and inside.lower is not None and inside.upper is not None and not inside.step:
            return f"{node.value.id}[{ast.unparse(inside.lower)}:{ast.unparse(inside.upper)}]"  # phi[A:2]
    return None


def _number(node: ast.expr) -> float | None:
    sign = 1.0
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        sign, node = -1.0 if isinstance(node.op, ast.USub) else 1.0, node.operand
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return sign * float(node.value)
    return None


def _evaluate(node: ast.expr, angle: Callable[[str], np.ndarray]) -> np.ndarray:
    if isinstance(node, ast.BoolOp):
        parts = [_evaluate(value, angle) for value in node.values]
        return np.logical_and.reduce(parts) if isinstance(node.op, ast.And) else np.logical_or.reduce(parts)
    if isinstance(node, ast.UnaryOp):
        return ~_evaluate(node.operand, angle)
    assert isinstance(node, ast.Compare)  # `parse` has let nothing else pass
    values = []
    for side in [node.left, *node.comparators]:
        name, number = _torsion_name(side), _number(side)
        values.append(angle(name) if name is not None else np.float64(number if number is not None else np.nan))
    pairs = zip(values[:-1], node.ops, values[1:], strict=True)
    return np.logical_and.reduce([_COMPARISONS[type(op)](left, right) for left, op, right in pairs])
