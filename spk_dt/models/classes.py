"""The classes that a model file may name, and the arguments with which each is made.

The file of a model names classes by the keys of `KNOWN`, and nothing else is ever made from one. Each class has a function
that reads the arguments of its constructor from a module. What a constructor draws at random or computes is replaced by the
stored tensors. Nothing is forgotten: when a file is written, the model is made from it and compared.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from schnetpack import atomistic, representation, transform
from schnetpack.model import NeuralNetworkPotential
from schnetpack.nn import activations, cutoff, embedding, radial
from torch import nn

from spk_dt.representation import EGNN, RandomFourierFeatures

__all__ = ["FUNCTIONS", "KNOWN", "Known"]

#: activation functions
FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    **{name: getattr(F, name) for name in ("elu", "gelu", "leaky_relu", "mish", "relu", "selu", "silu", "softplus")},
    "shifted_softplus": activations.shifted_softplus,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


@dataclass(frozen=True)
class Known:
    """A class that a file may name.

    Args:
        kind: the class.
        arguments: those of the constructor, from a module.
        shaped: buffers whose shape is that of the file, since data determine it.
        attributes: set after construction, where a module has them.
    """

    kind: type[nn.Module]
    arguments: Callable[[Any], dict[str, Any]]
    shaped: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()


def _same(*names: str, **renamed: str) -> Callable[[Any], dict[str, Any]]:
    """Arguments that modules keep under their names, or under others."""
    return lambda m: {argument: getattr(m, name) for argument, name in ({n: n for n in names} | renamed).items()}


def _shared(modules: nn.ModuleList) -> bool:
    return len(modules) > 1 and modules[0] is modules[1]


def _embedding(module: Any, n_atom_basis: int) -> nn.Module | None:
    """None where it is the one that representations make for themselves."""
    own = type(module) is nn.Embedding and (module.num_embeddings, module.embedding_dim) == (100, n_atom_basis)
    return None if own else module


def _of_atoms(m: Any) -> dict[str, Any]:
    """What representations that go by pairs have in common."""
    return {
        "n_atom_basis": m.n_atom_basis,
        "n_interactions": len(m.interactions if hasattr(m, "interactions") else m.so3convs),
        "radial_basis": m.radial_basis,
        "cutoff_fn": m.cutoff_fn,
        "nuclear_embedding": _embedding(m.embedding, m.n_atom_basis),
        "electronic_embeddings": list(m.electronic_embeddings),
    }


def _egnn(m: Any) -> dict[str, Any]:
    fast = m.interactions[0].fast if len(m.interactions) else m._series is not None
    return _of_atoms(m) | {"coordinate_channel": len(m.coordinates) > 0, "fast": fast}


def _painn(m: Any) -> dict[str, Any]:
    return _of_atoms(m) | {
        "activation": m.interactions[0].interatomic_context_net[0].activation,
        "shared_interactions": _shared(m.interactions),
        "shared_filters": m.share_filters,
        "epsilon": m.mixing[0].epsilon,
    }


def _schnet(m: Any) -> dict[str, Any]:
    return _of_atoms(m) | {
        "n_filters": m.n_filters,
        "shared_interactions": _shared(m.interactions),
        "activation": m.interactions[0].f2out[0].activation,
    }


def _so3net(m: Any) -> dict[str, Any]:
    return _of_atoms(m) | {
        "lmax": m.lmax,
        "shared_interactions": _shared(m.so3convs),
        "return_vector_representation": m.return_vector_representation,
        "activation": m.activation,
    }


def _field_schnet(m: Any) -> dict[str, Any]:
    return {
        "n_atom_basis": m.n_atom_basis,
        "n_interactions": len(m.interactions),
        "radial_basis": m.radial_basis,
        "cutoff_fn": m.cutoff_fn,
        "external_fields": list(m.external_fields),
        "activation": m.interactions[0].f2out[0].activation,
        "n_filters": m.n_filters,
        "shared_interactions": _shared(m.interactions),
        "max_z": m.embedding.num_embeddings,
    }


def _layers(outnet: nn.Sequential) -> dict[str, Any]:
    """Sizes and activation of a network of `schnetpack.nn.build_mlp`."""
    return {
        "n_in": outnet[0].in_features,
        "n_hidden": [layer.out_features for layer in outnet][:-1],
        "n_layers": len(outnet),
        "activation": outnet[0].activation if len(outnet) > 1 else F.silu,
    }


def _atomwise(m: Any) -> dict[str, Any]:
    names = _same("n_out", "aggregation_mode", "output_key", "per_atom_output_key")
    return _layers(m.outnet) | names(m)


def _dipole(m: Any) -> dict[str, Any]:
    names = _same("predict_magnitude", "return_charges", "dipole_key", "charges_key", "correct_charges")
    return _layers(m.outnet) | names(m)


def _offsets(m: Any) -> dict[str, Any]:
    return _same("add_mean", "add_atomrefs", "is_extensive", property="_property")(m)


def _scale(m: Any) -> dict[str, Any]:
    return _same("input_key", "output_key", target_key="_target_key", scale_by_mean="_scale_by_mean")(m)


def _gaussian(m: Any) -> dict[str, Any]:
    ends = m.offsets[0].item(), m.offsets[-1].item()
    if type(m) is radial.GaussianRBFCentered:
        ends = m.widths[0].item(), m.widths[-1].item()
    return {
        "n_rbf": m.n_rbf,
        "start": ends[0],
        "cutoff": ends[1],
        "trainable": isinstance(m.widths, nn.Parameter),
    }


def _electronic(m: Any) -> dict[str, Any]:
    return _same("property_key", "is_charged", "epsilon")(m) | {
        "num_features": m.linear_q.out_features,
        "num_residual": len(m.resblock.residual.stack),
        "activation": m.resblock.activation,
    }


KNOWN: Mapping[str, Known] = {
    "NeuralNetworkPotential": Known(
        NeuralNetworkPotential,
        lambda m: {
            "representation": m.representation,
            **{name: list(getattr(m, name)) for name in ("input_modules", "output_modules", "postprocessors")},
            **_same("input_dtype_str", "do_postprocessing")(m),
        },
    ),
    "EGNN": Known(EGNN, _egnn),
    "PaiNN": Known(representation.PaiNN, _painn),
    "SchNet": Known(representation.SchNet, _schnet),
    "SO3net": Known(representation.SO3net, _so3net),
    "FieldSchNet": Known(representation.FieldSchNet, _field_schnet),
    "GaussianRBF": Known(radial.GaussianRBF, _gaussian),
    "GaussianRBFCentered": Known(radial.GaussianRBFCentered, _gaussian),
    "BesselRBF": Known(radial.BesselRBF, lambda m: {"n_rbf": m.n_rbf, "cutoff": math.pi / float(m.freqs[0])}),
    "RandomFourierFeatures": Known(RandomFourierFeatures, _same("n_rbf")),
    "CosineCutoff": Known(cutoff.CosineCutoff, lambda m: {"cutoff": float(m.cutoff)}),
    "MollifierCutoff": Known(cutoff.MollifierCutoff, lambda m: {"cutoff": float(m.cutoff), "eps": float(m.eps)}),
    "Embedding": Known(nn.Embedding, _same("num_embeddings", "embedding_dim", "padding_idx")),
    "NuclearEmbedding": Known(
        embedding.NuclearEmbedding, lambda m: {"max_z": len(m.element_embedding), "num_features": m.num_features}
    ),
    "ElectronicEmbedding": Known(embedding.ElectronicEmbedding, _electronic),
    "PairwiseDistances": Known(atomistic.PairwiseDistances, _same()),
    "Strain": Known(atomistic.Strain, _same()),
    "StaticExternalFields": Known(
        atomistic.StaticExternalFields, lambda m: {"external_fields": sorted(m.external_fields)}
    ),
    "Atomwise": Known(atomistic.Atomwise, _atomwise),
    "DipoleMoment": Known(atomistic.DipoleMoment, _dipole),
    "Aggregation": Known(atomistic.Aggregation, _same("keys", "output_key")),
    "Forces": Known(atomistic.Forces, _same("calc_forces", "calc_stress", "energy_key", "force_key", "stress_key")),
    "Response": Known(atomistic.Response, _same("energy_key", "response_properties", "map_properties")),
    "AddOffsets": Known(transform.AddOffsets, _offsets, ("atomref", "mean"), ("to_zero_of_data",)),
    "ScaleProperty": Known(transform.ScaleProperty, _scale, ("scale",)),
    "CastTo32": Known(transform.CastTo32, _same()),
    "CastTo64": Known(transform.CastTo64, _same()),
    **{
        kind.__name__: Known(kind, _same())
        for kind in (nn.GELU, nn.Mish, nn.ReLU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Tanh)
    },
}
