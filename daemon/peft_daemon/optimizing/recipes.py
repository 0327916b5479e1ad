"""Which tensors of a model become what in a copy. Only types for which llama.cpp has fast kernels here are of use."""

from __future__ import annotations

from dataclasses import dataclass

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from peft_core.errors import NotFound
from peft_core.gguf.header import TensorInfo

Type = GGMLQuantizationType

_MLP = ("ffn_gate", "ffn_up")
_LAYERS = (*_MLP, "ffn_down", "attn_q", "attn_k", "attn_v", "attn_output")
_EXACT = frozenset({Type.F32, Type.F16, Type.BF16, Type.F64})
"""Tensors of these types are vectors, or a model nobody quantized, which is another trade."""


@dataclass(frozen=True)
class Recipe:
    """Linear layers whose names have one of ``parts`` are stored as ``type``; all else is copied byte by byte."""

    id: str
    summary: str
    parts: tuple[str, ...]
    type: Type

    def of(self, name: str, info: TensorInfo) -> Type:
        """The type of a tensor in the copy: its own where the recipe does not speak of it or it does not fit."""
        own = Type(info.type)
        kind = name.removesuffix(".weight").rpartition(".")[2]
        fits = len(info.shape) == 2 and info.shape[-1] % GGML_QUANT_SIZES[self.type][0] == 0
        return self.type if kind in self.parts and fits and own not in _EXACT else own


RECIPES = (
    Recipe("iq4_nl", "all linear layers as IQ4_NL", _LAYERS, Type.IQ4_NL),
    Recipe("iq4_nl-mlp", "the two wide layers of each block as IQ4_NL, the rest as it is", _MLP, Type.IQ4_NL),
    Recipe("q4_0", "all linear layers and the output as Q4_0", (*_LAYERS, "output"), Type.Q4_0),
    Recipe("q8_0", "all linear layers and the output as Q8_0", (*_LAYERS, "output"), Type.Q8_0),
)
TRIED = ("iq4_nl", "iq4_nl-mlp")
"""Those that are tried when nobody names one; q4_0 loses 10 % of perplexity on a 0.5B model, q8_0 gains no speed on
AVX2, but other models and processors may differ."""


def get(recipe_id: str) -> Recipe:
    """The recipe with this id; raises NotFound naming all."""
    for recipe in RECIPES:
        if recipe.id == recipe_id:
            return recipe
    raise NotFound(
        f"no recipe '{recipe_id}'", fix=f"Choose of {', '.join(recipe.id for recipe in RECIPES)} with `--candidate`"
    )
