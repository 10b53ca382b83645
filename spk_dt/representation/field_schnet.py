"""SchNetPack's FieldSchNet with a cutoff that can be asked for."""

from typing import Any

import schnetpack.representation

__all__ = ["FieldSchNet"]


class FieldSchNet(schnetpack.representation.FieldSchNet):
    """FieldSchNet that tells its cutoff, as SchNetPack's other representations do.

    Training, molecular dynamics and ``spkdeploy`` read it for their neighbour lists; SchNetPack 2.2 keeps it in the cutoff
    function alone.

    Gastegger, Schütt, Müller: Machine learning of solvent effects on molecular spectra and reactions. Chem. Sci. 2021, 12,
    11473, doi 10.1039/D1SC02742E.

    Args:
        kwargs: arguments of `schnetpack.representation.FieldSchNet`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cutoff = self.cutoff_fn.cutoff
