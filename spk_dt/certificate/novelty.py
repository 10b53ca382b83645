r"""How new an atomic environment is to a model: its distance from known ones in the latent space of the model.

The novelty of an atom of element z is

.. math:: d_i = \sqrt{\tfrac{1}{n} (h_i - \mu_z)^\top C_z^{-1} (h_i - \mu_z)},

with mean and covariance over all atoms of this element in known frames, so that the root mean square over these is 1. It
needs no second model, and no reference method: it is large where the data say little about what the model should predict.
A small one is no proof that the model is right.

=============  ============================================================================
:math:`h_i`    the n features of atom i from which the energy is read out
:math:`\mu_z`  their mean
:math:`C_z`    their covariance, with eigenvalues of at least 1e-8 of the largest
=============  ============================================================================

Distances in the latent space as uncertainty: J. P. Janet et al., Chem. Sci. 10 (2019) 7913, doi 10.1039/C9SC02298H; with the
covariance of the features, as of the last layer of a neural network: F. Bigi et al., Mach. Learn.: Sci. Technol. 5 (2024)
045018, doi 10.1088/2632-2153/ad805f.
"""

import numpy as np

__all__ = ["NOVELTY", "N_KNOWN", "Environments"]

#: in `Atoms.info`: the largest novelty of an atom of a state
NOVELTY = "novelty"

#: frames of the data that a model is said to know
N_KNOWN = 200

_SMALLEST_EIGENVALUE = 1e-8


class Environments:
    """Known atomic environments, as a model describes them."""

    def __init__(self) -> None:
        self._sums: dict[int, tuple[int, np.ndarray, np.ndarray]] = {}

    def add(self, features: np.ndarray, numbers: np.ndarray) -> None:
        """Make environments known.

        Args:
            features: [n_atoms, n_features] of the model.
            numbers: [n_atoms] atomic numbers.
        """
        for z in map(int, np.unique(numbers)):
            own = features[numbers == z]
            count, total, squares = self._sums.get(z, (0, 0.0, 0.0))
            self._sums[z] = count + len(own), total + own.sum(axis=0), squares + own.T @ own

    def novelty(self, features: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """[n_atoms] distance of environments from the known ones; infinite for an element of which none are known.

        Args:
            features: see `add`.
            numbers: see `add`.
        """
        found = np.full(len(numbers), np.inf)
        for z in set(map(int, numbers)) & self._sums.keys():
            count, total, squares = self._sums[z]
            mean = total / count
            values, vectors = np.linalg.eigh(squares / count - np.outer(mean, mean))
            least = values[-1] * _SMALLEST_EIGENVALUE + np.finfo(float).tiny  # not zero if all are alike
            scale = np.sqrt(np.maximum(values, least) * len(mean))
            of_element = numbers == z
            found[of_element] = np.linalg.norm((features[of_element] - mean) @ (vectors / scale), axis=1)
        return found
