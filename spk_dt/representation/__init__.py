from spk_dt.representation.egnn import EGNN, EGNNCoordinates, EGNNInteraction
from spk_dt.representation.radial import RandomFourierFeatures

__all__ = ["EGNN", "EGNNCoordinates", "EGNNInteraction", "RandomFourierFeatures"]
