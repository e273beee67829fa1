"""Recipes for ai-edge-quantizer, by the board's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boards import TfliteRules

EVERYTHING = ".*"  # names of layers
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE")
LINEAR = ("FULLY_CONNECTED", "BATCH_MATMUL")


def static_recipe(rules: TfliteRules, activation_bits: int = 8) -> list[dict[str, Any]]:
    """int8 weights and integer activations, whose ranges are known beforehand.

    Args:
        activation_bits: 8 or 16; 16-bit activations are symmetric, whatever the rules say.
    """
    from ai_edge_quantizer import qtyping, recipe_manager

    manager = recipe_manager.RecipeManager()

    def add(operation: str, granularity: str) -> None:
        manager.add_static_config(
            EVERYTHING,
            qtyping.TFLOperationName[operation],
            activation_num_bits=activation_bits,
            weight_num_bits=8,
            weight_granularity=qtyping.QuantGranularity[granularity],
        )

    add("ALL_SUPPORTED", "CHANNELWISE")
    for operation in () if rules.per_channel_conv else CONVOLUTIONS:
        add(operation, "TENSORWISE")
    for operation in () if rules.per_channel_linear else LINEAR:
        add(operation, "TENSORWISE")
    recipe: list[dict[str, Any]] = manager.get_quantization_recipe()
    if activation_bits == 8:
        for entry in recipe:
            symmetric = rules.activation_symmetric
            entry["op_config"]["activation_tensor_config"]["symmetric"] = symmetric
    return recipe
