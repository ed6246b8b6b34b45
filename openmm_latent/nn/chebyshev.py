"""Chebyshev graph convolutions on a fixed graph, written for TorchScript.

Source: Defferrard, Bresson and Vandergheynst, "Convolutional neural networks on graphs with fast localized spectral
filtering", NeurIPS 2016, equation 4.

| symbol | variable |
|---|---|
| L | graph Laplacian, 1 - D^(-1/2) A D^(-1/2) |
| L~ | `scaled_laplacian`, 2 L / lambda_max - 1 |
| T_k | Chebyshev polynomials, `n_terms` of them |
| theta_k | rows of `weight` |
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from scipy.spatial import cKDTree
from torch import Tensor, nn

from openmm_latent.errors import require

#: Up to this many atoms all T_k(L~) are kept as one dense matrix: a single product a layer.
LARGEST_DENSE = 256


def nearest_neighbour_graph(positions: np.ndarray, n_neighbours: int) -> sparse.csr_array:
    """Connect each atom with its nearest neighbours, both ways, without self loops; n log n in atoms.

    DISCREPANCY(LD-FPG, neighbour graph): the public code keeps the directed edges and rebuilds them per frame; here an
    edge counts in both directions, so that the Laplacian is symmetric, and the graph is that of one structure.

    Parameters
    ----------
    positions : ndarray
        (n_atoms, 3) [nm]
    n_neighbours : int
        Neighbours an atom; all others where there are fewer atoms.

    Returns
    -------
    sparse array
        (n_atoms, n_atoms) of bool, symmetric, nothing on the diagonal
    """
    n_atoms = len(positions)
    require(n_atoms >= 2, f"a neighbour graph needs at least 2 model atoms, got {n_atoms}; choose more atoms")
    n_neighbours = min(n_neighbours, n_atoms - 1)
    # An atom is its own nearest, but for others at the very same place.
    found = cKDTree(positions).query(positions, n_neighbours + 1)[1]  # (n_atoms, n_neighbours + 1)
    is_other = found != np.arange(n_atoms)[:, None]
    is_other[is_other.all(axis=1), -1] = False
    edges = np.repeat(np.arange(n_atoms), n_neighbours), found[is_other]
    graph = sparse.csr_array((np.ones(len(edges[0]), dtype=bool), edges), shape=(n_atoms, n_atoms))
    return (graph + graph.T).tocsr()


def scaled_laplacian(graph: sparse.csr_array) -> sparse.csr_array:
    """Return L~ = 2 L / lambda_max - 1 with lambda_max = 2, the bound of the symmetric normalised Laplacian.

    Parameters
    ----------
    graph : sparse array
        (n_atoms, n_atoms) of bool, symmetric

    Returns
    -------
    sparse array
        (n_atoms, n_atoms) of float64: minus the normalised adjacency matrix
    """
    degree = np.asarray(graph.sum(axis=1), dtype=float)
    scale = sparse.diags_array(1.0 / np.sqrt(np.maximum(degree, 1.0)))
    return (-(scale @ graph.astype(float) @ scale)).tocsr()


def padded_rows(matrix: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Return a sparse matrix as lists of equal length: what each row takes, and how much of it.

    Parameters
    ----------
    matrix : sparse array
        (n_rows, n_columns)

    Returns
    -------
    columns : ndarray of int
        (n_rows, longest row); short rows end in column 0 at weight zero.
    weights : ndarray
        (n_rows, longest row)
    """
    entries = matrix.tocoo()
    counts = np.bincount(entries.row, minlength=matrix.shape[0])
    order = np.argsort(entries.row, kind="stable")
    row, column, value = entries.row[order], entries.col[order], entries.data[order]
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = np.zeros((matrix.shape[0], int(counts.max())), dtype=np.int64)
    weights = np.zeros(columns.shape)
    columns[row, place], weights[row, place] = column, value
    return columns, weights


class ChebyshevBasis(nn.Module):
    """T_0(L~) X, ..., T_(n_terms - 1)(L~) X side by side, for one fixed graph.

    Small graphs multiply by the dense stack of all T_k(L~); large ones follow the recursion over padded lists of
    neighbours, whose cost grows with the atoms and not with their square.

    Parameters
    ----------
    laplacian : sparse array
        (n_atoms, n_atoms), as `scaled_laplacian` returns
    n_terms : int
        Chebyshev terms (the papers' K)
    """

    def __init__(self, laplacian: sparse.csr_array, n_terms: int):
        super().__init__()
        require(n_terms >= 1, f"n_terms must be at least 1, got {n_terms}")
        n_atoms = laplacian.shape[0]
        self.n_terms = n_terms
        self.uses_dense = n_atoms <= LARGEST_DENSE
        if self.uses_dense:
            dense = laplacian.toarray()
            terms = [np.eye(n_atoms), dense]
            while len(terms) < n_terms:
                terms.append(2.0 * dense @ terms[-1] - terms[-2])
            # (n_atoms, n_terms * n_atoms): row i holds T_0[i, :], T_1[i, :], ...
            stack = np.stack(terms[:n_terms], axis=0).reshape(n_terms * n_atoms, n_atoms)
            self.register_buffer("polynomials", torch.tensor(stack, dtype=torch.float32))
            self.register_buffer("neighbours", torch.zeros(0, 0, dtype=torch.int64))
            self.register_buffer("weights", torch.zeros(0, 0))
        else:
            neighbours, weights = padded_rows(laplacian)
            self.register_buffer("polynomials", torch.zeros(0, 0))
            self.register_buffer("neighbours", torch.tensor(neighbours))
            self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))

    def _apply_laplacian(self, features: Tensor) -> Tensor:
        gathered = features[:, self.neighbours]  # (batch, n_atoms, n_neighbours, n_in)
        return torch.einsum("bnkf,nk->bnf", gathered, self.weights)

    def forward(self, features: Tensor) -> Tensor:
        """Expand node features.

        Parameters
        ----------
        features : Tensor
            (batch, n_atoms, n_in)

        Returns
        -------
        Tensor
            (batch, n_atoms, n_terms * n_in)
        """
        n_batch, n_atoms, n_in = features.shape
        if self.uses_dense:
            # one large product is faster than one a frame
            flat = features.transpose(0, 1).reshape(n_atoms, n_batch * n_in)
            expanded = torch.mm(self.polynomials, flat).reshape(self.n_terms, n_atoms, n_batch, n_in)
            return expanded.permute(2, 1, 0, 3).reshape(n_batch, n_atoms, self.n_terms * n_in)
        terms = [features]
        if self.n_terms > 1:
            terms.append(self._apply_laplacian(features))
        for _ in range(2, self.n_terms):
            terms.append(2.0 * self._apply_laplacian(terms[-1]) - terms[-2])
        return torch.cat(terms, dim=2)


class ChebyshevConvolution(nn.Module):
    """sum_k T_k(L~) X theta_k + bias on a graph that `ChebyshevBasis` holds.

    Parameters
    ----------
    basis : ChebyshevBasis
        Shared by the layers of a network.
    n_in, n_out : int
        Features an atom.
    """

    def __init__(self, basis: ChebyshevBasis, n_in: int, n_out: int):
        super().__init__()
        self.basis = basis
        self.linear = nn.Linear(basis.n_terms * n_in, n_out)

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, n_atoms, n_in) to (batch, n_atoms, n_out)."""
        return self.linear(self.basis(features))

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return theta (n_in, n_terms * n_out) and T (n_atoms, n_atoms * n_terms) of a dense basis.

        For one frame X, (n_atoms, n_in), `T @ (X @ theta).view(n_atoms * n_terms, n_out)` is the convolution without
        its bias: two small products that copy nothing.
        """
        require(self.basis.uses_dense, "factors of a Chebyshev convolution exist for small graphs only")
        n_terms, n_out = self.basis.n_terms, self.linear.out_features
        theta = self.linear.weight.detach().view(n_out, n_terms, -1).permute(2, 1, 0).reshape(-1, n_terms * n_out)
        polynomials = self.basis.polynomials
        n_atoms = polynomials.shape[1]
        return theta, polynomials.view(n_terms, n_atoms, n_atoms).permute(1, 2, 0).reshape(n_atoms, -1)
