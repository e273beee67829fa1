"""Recipes for ai-edge-quantizer, by the board's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boards import TfliteRules

EVERYTHING = ".*"  # names of layers
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE")
LINEAR = ("FULLY_CONNECTED", "BATCH_MATMUL")


def dynamic_recipe(rules: TfliteRules) -> list[dict[str, Any]]:
    """int8 weights; activations stay float between layers, which round them as they come."""
    return _weights_recipe(rules, bits=8, explicit=False)


def weights_recipe(rules: TfliteRules | None, bits: int) -> list[dict[str, Any]]:
    """Weights of 8, 4 or 2 bits that are expanded before use; all arithmetic in float.

    ai-edge-quantizer's own policy knows no depthwise layers in 4 bits and nothing in 2, although
    LiteRT's DEQUANTIZE reads all of them: its checks are skipped. (Without a DEQUANTIZE, LiteRT 2.3
    takes convolutions of 2 bits, too, and returns NaN.)

    Args:
        rules: which layers have a scale for each output; None for all.
    """
    return _weights_recipe(rules, bits=bits, explicit=True)


def _weights_recipe(
    rules: TfliteRules | None, *, bits: int, explicit: bool
) -> list[dict[str, Any]]:
    from ai_edge_quantizer import qtyping, recipe_manager

    manager = recipe_manager.RecipeManager()
    for operations, per_channel in (
        (CONVOLUTIONS, rules is None or rules.per_channel_conv),
        (LINEAR, rules is None or rules.per_channel_linear),
    ):
        granularity = qtyping.QuantGranularity["CHANNELWISE" if per_channel else "TENSORWISE"]
        weights = qtyping.TensorQuantizationConfig(num_bits=bits, granularity=granularity)
        precision = qtyping.ComputePrecision
        for operation in operations:
            manager.add_quantization_config(
                EVERYTHING,
                qtyping.TFLOperationName[operation],
                qtyping.OpQuantizationConfig(
                    weight_tensor_config=weights,
                    compute_precision=precision.FLOAT if explicit else precision.INTEGER,
                    explicit_dequantize=explicit,
                    skip_checks=explicit,
                ),
            )
    recipe: list[dict[str, Any]] = manager.get_quantization_recipe()
    return recipe


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
