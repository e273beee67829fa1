"""All methods by name; catalogue.py says what each of them is."""

from __future__ import annotations

from collections.abc import Mapping

from compressor.methods import one_shot
from compressor.methods.catalogue import MethodName
from compressor.methods.evolution import Evolution
from compressor.methods.exact import dead_only
from compressor.methods.hard_concrete import HardConcrete
from compressor.methods.learned import Decore, Paper
from compressor.methods.method import Method
from compressor.methods.sparse_scale import SparseScale

METHODS: Mapping[MethodName, Method] = {
    "decore": Decore(),
    "paper": Paper(),
    "hard-concrete": HardConcrete(),
    "bn-sparse": SparseScale(),
    "evolution": Evolution(),
    "taylor": one_shot.globally(one_shot.taylor),
    "l1": one_shot.globally(one_shot.l1),
    "l2": one_shot.globally(one_shot.l2),
    "uniform": one_shot.uniformly(one_shot.l2),
    "bn-scale": one_shot.globally(one_shot.norm_scale),
    "random": one_shot.uniformly(one_shot.random),
    "dead": dead_only,
}
