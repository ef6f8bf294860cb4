"""The methods of `select-subset`: their names and parameters."""

from __future__ import annotations

from typing import Literal

from methods.select_subset.schema.base import FeatureKind, FromModel, Params
from methods.select_subset.schema.clustering import (
    CoincideParams,
    KMeansParams,
    PrototypesParams,
    S2LParams,
    SemDedupParams,
    XmasParams,
)
from methods.select_subset.schema.ranking import (
    AumParams,
    CcsParams,
    ClipParams,
    D2Params,
    DynamicsParams,
    ForgettingParams,
    GrandParams,
    HardScoreParams,
    IconsParams,
    IfdParams,
    InfluenceParams,
    LessParams,
    MiddleParams,
    PreselParams,
    RandomParams,
)

__all__ = [
    "PARAMS",
    "AnyParams",
    "AumParams",
    "CcsParams",
    "ClipParams",
    "CoincideParams",
    "D2Params",
    "DynamicsParams",
    "FeatureKind",
    "ForgettingParams",
    "FromModel",
    "GrandParams",
    "HardScoreParams",
    "IconsParams",
    "IfdParams",
    "InfluenceParams",
    "KMeansParams",
    "LessParams",
    "MethodName",
    "MiddleParams",
    "Params",
    "PreselParams",
    "PrototypesParams",
    "RandomParams",
    "S2LParams",
    "SemDedupParams",
    "XmasParams",
]

MethodName = Literal[
    "random",
    "stratified",
    "clip_score",
    "el2n",
    "loss",
    "perplexity",
    "middle_perplexity",
    "ifd",
    "aum",
    "forgetting",
    "grand",
    "semdedup",
    "prototypes",
    "d2",
    "ccs",
    "s2l",
    "coincide",
    "xmas",
    "less",
    "icons",
    "presel",
]

PARAMS: dict[str, type[Params]] = {
    "random": RandomParams,
    "stratified": RandomParams,
    "clip_score": ClipParams,
    "el2n": DynamicsParams,
    "loss": HardScoreParams,
    "perplexity": HardScoreParams,
    "middle_perplexity": MiddleParams,
    "ifd": IfdParams,
    "aum": AumParams,
    "forgetting": ForgettingParams,
    "grand": GrandParams,
    "semdedup": SemDedupParams,
    "prototypes": PrototypesParams,
    "d2": D2Params,
    "ccs": CcsParams,
    "s2l": S2LParams,
    "coincide": CoincideParams,
    "xmas": XmasParams,
    "less": LessParams,
    "icons": IconsParams,
    "presel": PreselParams,
}

AnyParams = (
    XmasParams
    | S2LParams
    | CoincideParams
    | SemDedupParams
    | PrototypesParams
    | D2Params
    | CcsParams
    | ClipParams
    | DynamicsParams
    | HardScoreParams
    | MiddleParams
    | IfdParams
    | AumParams
    | ForgettingParams
    | GrandParams
    | LessParams
    | IconsParams
    | PreselParams
    | RandomParams
)
