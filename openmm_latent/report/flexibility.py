"""What DynaProt says of a protein, as files: RMSF, ellipsoids and couplings of its residues."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from openmm import unit
from openmm.app import PDBFile, Residue, Topology

from openmm_latent.data.backbone import Backbone
from openmm_latent.errors import require

_ANGSTROM_PER_NM = 10.0
#: B = 8 pi^2 / 3 <u^2> of an atom that fluctuates by <u^2> in all three directions together.
_B_FACTOR = 8.0 * np.pi**2 / 3.0
#: What the column of B-factors can hold [Å^2].
_LARGEST_B = 999.99


@dataclass(frozen=True)
class Flexibility:
    """The fluctuations of one structure's Cα atoms.

    Attributes
    ----------
    topology : openmm.app.Topology
    positions : ndarray
        (n_atoms, 3) [nm], the structure they were predicted from.
    backbone : Backbone
    marginals : ndarray
        (n_residues, 3, 3) [nm^2], covariances in the axes of `positions`.
    couplings : ndarray
        (n_residues, n_residues), from -1 to 1.
    """

    topology: Topology
    positions: np.ndarray
    backbone: Backbone
    marginals: np.ndarray
    couplings: np.ndarray

    @property
    def rmsf(self) -> np.ndarray:
        """(n_residues,) [nm]."""
        return np.sqrt(np.trace(self.marginals, axis1=1, axis2=2))

    @property
    def axes(self) -> np.ndarray:
        """(n_residues, 3) [nm], standard deviations along the axes of each ellipsoid, longest first."""
        return np.sqrt(np.clip(np.linalg.eigvalsh(self.marginals)[:, ::-1], 0.0, None))

    @property
    def residues(self) -> list[Residue]:
        """The residues of the backbone, in its order."""
        everyone = list(self.topology.residues())
        return [everyone[index] for index in self.backbone.residue_index]

    def write(self, out: str | Path) -> list[Path]:
        """Write OUT.csv, OUT.pdb, OUT.couplings.csv and OUT.svg.

        | file | what |
        |---|---|
        | OUT.csv | a line a residue: chain, number, name, RMSF and the ellipsoid's axes [nm] |
        | OUT.pdb | the structure; B-factors 8 pi^2 / 3 RMSF^2 [Å^2], the residue's for each atom; ANISOU of each Cα |
        | OUT.couplings.csv | couplings, a line and a column a residue |
        | OUT.svg | both drawn |

        Returns
        -------
        list of Path

        Raises
        ------
        LatentError
            The folder does not exist.
        """
        out = Path(out)
        require(out.parent.is_dir(), f"out: the folder '{out.parent}' does not exist; create it first")
        texts = {".csv": self._table(), ".pdb": self._structure(), ".couplings.csv": self._coupling_table()}
        paths = []
        for suffix, text in texts.items():
            paths.append(out.with_name(out.name + suffix))
            paths[-1].write_text(text)
        paths.append(out.with_name(out.name + ".svg"))
        self._draw(paths[-1])
        return paths

    def _names(self) -> list[str]:
        return [f"{one.chain.id}:{one.name}{one.id}" for one in self.residues]

    def _table(self) -> str:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow("chain residue name rmsf_nm axis_1_nm axis_2_nm axis_3_nm".split())
        for one, rmsf, axes in zip(self.residues, self.rmsf, self.axes, strict=True):
            numbers = [f"{value:.5f}" for value in (rmsf, *axes)]
            writer.writerow([one.chain.id, one.id, one.name, *numbers])
        return buffer.getvalue()

    def _coupling_table(self) -> str:
        names = self._names()
        lines = [",".join(["residue", *names])]
        for name, row in zip(names, self.couplings, strict=True):
            lines.append(",".join([name, *(f"{value:.4f}" for value in row)]))
        return "\n".join(lines) + "\n"

    def _structure(self) -> str:
        """Return the PDB file; its coordinates are the structure's own, so that the ellipsoids' axes are, too."""
        of_residue = np.zeros(self.topology.getNumResidues())
        of_residue[self.backbone.residue_index] = np.minimum(
            _B_FACTOR * (self.rmsf * _ANGSTROM_PER_NM) ** 2, _LARGEST_B
        )
        buffer = io.StringIO()
        PDBFile.writeFile(self.topology, self.positions * unit.nanometer, buffer, keepIds=True)
        atoms = list(self.topology.atoms())
        tensors = dict(zip(self.backbone.ca, self.marginals * _ANGSTROM_PER_NM**2, strict=True))
        lines, number = [], 0
        for line in buffer.getvalue().splitlines():
            if line.startswith(("ATOM", "HETATM")):
                lines.append(f"{line[:60]}{of_residue[atoms[number].residue.index]:6.2f}{line[66:]}")
                if number in tensors:
                    lines.append(_anisou(line, tensors[number]))
                number += 1
            else:
                lines.append(line)
        return "\n".join(lines) + "\n"

    def _draw(self, path: Path) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(11, 4), layout="constrained")
        profile, map_of = figure.subplots(1, 2, width_ratios=(3, 2))
        place = np.arange(1, len(self.rmsf) + 1)
        profile.plot(place, self.rmsf, marker="o", markersize=3)
        for start in np.flatnonzero(np.diff(self.backbone.chains)) + 1:
            profile.axvline(start + 0.5, linestyle=":", color="black")
        profile.set(xlabel="residue, in order", ylabel="RMSF / nm", xlim=(0.5, len(place) + 0.5))
        profile.set_ylim(bottom=0.0)
        edges = (0.5, len(place) + 0.5)
        drawn = map_of.imshow(self.couplings, origin="lower", extent=(*edges, *edges), cmap="RdBu_r", vmin=-1, vmax=1)
        map_of.set(xlabel="residue", ylabel="residue")
        figure.colorbar(drawn, ax=map_of, label="coupling")
        figure.savefig(path)


def _anisou(line: str, tensor: np.ndarray) -> str:
    """Return the ANISOU record of an ATOM line: U11 U22 U33 U12 U13 U23 [1e-4 Å^2], seven columns each."""
    numbers = np.rint(1e4 * tensor[(0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]).astype(int)
    return f"ANISOU{line[6:28]}{''.join(f'{value:7d}' for value in numbers)}  {line[72:80]}"
