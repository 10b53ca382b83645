"""Weights of the code released with Dynamic Training as a model of SchNetPack, with the same energies and forces.

The network of https://github.com/IZugec/DTEGNN (``dtegnn/model/nn/networks.py``) is our `EGNN` but for three things, all of
which are kept: it has no envelope (`StepCutoff`), reads the energy from the sum over atoms (`ReadoutOfSum`), and draws the
frequencies of its Fourier features anew in each layer. The basis of the converted model has those of all layers, and the
weights of a layer are zero for the others'.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from ase.data import atomic_numbers
from omegaconf import OmegaConf
from schnetpack.atomistic import Forces, PairwiseDistances
from schnetpack.model import NeuralNetworkPotential
from schnetpack.transform import CastTo64
from torch import Tensor

from spk_dt.representation import EGNN, RandomFourierFeatures
from spk_dt.representation.released import ReadoutOfSum, StepCutoff
from spk_dt.training.released_settings import ReleasedSettings

__all__ = ["convert_weights", "read_released_weights", "write_converted"]


_REMEDY = (
    'In the environment of the released code write the weights alone: python -c "import torch; stored = '
    "torch.load('best_model_7', weights_only=False, map_location='cpu'); torch.save(stored.state_dict(), 'weights.pt')\" "
    "(of a checkpoint: torch.save(stored['model'], 'weights.pt')), and give weights.pt here."
)


def read_released_weights(file: str | Path) -> dict[str, Tensor]:
    """Weights by name, from a checkpoint or from a file with the weights alone. Nothing in the file is run.

    Args:
        file: ``checkpoint-N.pth.tar``, or a stored ``state_dict``.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it has something else.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file '{file}'; give a checkpoint-N.pth.tar or the stored weights.")
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:160]
        raise ValueError(f"'{file}' cannot be read as weights ({reason}). {_REMEDY}") from error
    if isinstance(found, Mapping) and isinstance(found.get("model"), Mapping):
        found = found["model"]
    if not isinstance(found, Mapping) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"'{file}' has no weights by name in it. {_REMEDY}")
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def convert_weights(weights: Mapping[str, Tensor], settings: ReleasedSettings) -> NeuralNetworkPotential:
    """A model with the energies and forces of the released one.

    Atoms of elements that it does not know have features that are not numbers, so that no energy comes of them.

    Args:
        weights: see `read_released_weights`.
        settings: its config.

    Returns:
        the model, in the precision of the weights; energies in eV, lengths in Å.

    Raises:
        ValueError: if a weight is missing, too many, or not of the shape that the config says.
    """
    n, depth, n_rbf = (int(settings[key]) for key in ("emb_dim", "depth", "RFF_dim"))
    if not settings.elements:
        settings["atom_types_map"]
    _compare(weights, _shapes(n, depth, n_rbf, len(settings.elements)), settings.file)
    per_layer = n_rbf // 2
    basis = RandomFourierFeatures(2 * per_layer * depth)
    basis.frequencies.copy_(torch.cat([weights[f"convs.{layer}.RFF.B"][:, 0] for layer in range(depth)]))
    representation = EGNN(n, depth, basis, StepCutoff(float(settings["cutoff"])))
    readout = ReadoutOfSum(n)
    for module in (representation, readout):
        module.to(weights["emb_in.bias"].dtype)
    with torch.no_grad():
        numbers = [atomic_numbers[symbol] for symbol in settings.elements]
        embedding = representation.embedding.get_parameter("weight")
        embedding.fill_(float("nan"))
        embedding[numbers] = weights["emb_in.weight"].T + weights["emb_in.bias"]
        for layer, interaction in enumerate(representation.interactions):
            names = [f"convs.{layer}.{one}" for one in _LAYER]
            for name, target in zip(names, interaction.parameters(), strict=True):
                source = weights[name]
                if name.endswith("mlp_msg.0.weight"):
                    source = _for_all_layers(source, n, layer, depth, per_layer)
                target.copy_(source)
        for name, target in readout.outnet.named_parameters():
            target.copy_(weights[f"pred.{name}"])
    return NeuralNetworkPotential(
        representation, [PairwiseDistances()], [readout, Forces()], postprocessors=[CastTo64()]
    ).eval()


def write_converted(model: NeuralNetworkPotential, settings: ReleasedSettings, folder: str | Path) -> Path:
    """Write ``best_model`` and a ``config.yaml`` that tells its units, as of a run of ``spktrain``.

    Args:
        model: see `convert_weights`.
        settings: its config.
        folder: to write to; it must not hold a model.

    Returns:
        the file of the model.

    Raises:
        FileExistsError: if the folder holds one already.
    """
    folder = Path(folder)
    files = folder / "best_model", folder / "config.yaml"
    for file in files:
        if file.exists():
            raise FileExistsError(f"'{file}' is there already; choose another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "data": {"distance_unit": "Ang", "property_units": {"energy": "eV", "forces": "eV/Ang"}},
        "task": {"outputs": [{"name": "energy"}, {"name": "forces"}]},
        "globals": {"cutoff": float(settings["cutoff"])},
        "converted": {"from": str(settings.file), "elements": list(settings.elements)},
    }
    OmegaConf.save(OmegaConf.create(config), files[1])
    torch.save(model, files[0])
    return files[0]


#: parameters of a layer in the order of `EGNNInteraction`
_LAYER = [
    f"{network}.{place}.{kind}"
    for network in ("mlp_msg", "mlp_upd")
    for place in (0, 1, 3, 4)
    for kind in ("weight", "bias")
]


def _for_all_layers(weight: Tensor, n: int, layer: int, depth: int, per_layer: int) -> Tensor:
    """The first weights of the messages [n, 2 n + n_rbf], with zeros for the features of the other layers."""
    wide = weight.new_zeros(n, 2 * n + 2 * per_layer * depth)
    wide[:, : 2 * n] = weight[:, : 2 * n]
    sine, cosine = weight[:, 2 * n : 2 * n + per_layer], weight[:, 2 * n + per_layer :]
    begin = 2 * n + layer * per_layer
    wide[:, begin : begin + per_layer] = sine
    begin += depth * per_layer
    wide[:, begin : begin + per_layer] = cosine
    return wide


def _shapes(n: int, depth: int, n_rbf: int, n_types: int) -> dict[str, tuple[int, ...]]:
    """Weights that a config leads to."""
    shapes: dict[str, tuple[int, ...]] = {"emb_in.weight": (n, n_types), "emb_in.bias": (n,)}
    shapes |= {"pred.0.weight": (n, n), "pred.0.bias": (n,), "pred.2.weight": (1, n), "pred.2.bias": (1,)}
    inputs = {"mlp_msg.0.weight": (n, 2 * n + n_rbf), "mlp_upd.0.weight": (n, 2 * n)}
    inputs |= {"mlp_msg.3.weight": (n, n), "mlp_upd.3.weight": (n, n)}
    for layer in range(depth):
        shapes |= {f"convs.{layer}.{name}": inputs.get(name, (n,)) for name in _LAYER}
        shapes[f"convs.{layer}.RFF.B"] = (n_rbf // 2, 1)
    return shapes


def _compare(weights: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], file: Path) -> None:
    """Refuse weights of another model than that of the config."""
    known = ("depth", "emb_dim", "RFF_dim", "atom_types_map")
    hint = f"Is '{file}' the config of these weights? {', '.join(known)} decide their names and shapes."
    if missing := sorted(set(shapes) - set(weights)):
        raise ValueError(f"the weights lack {missing[0]} ({len(missing)} in all). {hint}")
    if more := sorted(set(weights) - set(shapes)):
        raise ValueError(f"the weights have {more[0]} ({len(more)} in all), which the config has no place for. {hint}")
    for name, shape in shapes.items():
        if tuple(weights[name].shape) != shape:
            raise ValueError(f"{name} has the shape {[*weights[name].shape]}, and by the config {[*shape]}. {hint}")
        if not torch.isfinite(weights[name]).all():
            raise ValueError(f"{name} has values that are not finite; take an earlier checkpoint.")
