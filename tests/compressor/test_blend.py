"""Blending against `torch.lerp` and automatic differentiation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressor.blend import blend, channel_means


def example(axis: int, *, shared: bool) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (6, 5) if axis == -1 else (6, 5, 4, 3)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    mask = torch.rand(1 if shared else 6, 5, generator=generator, dtype=torch.float64)
    return x, mask.reshape(len(mask), 5, *(1,) * (len(shape) - 2)), channel_means(x, axis)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("with_mean", [True, False])
@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_lerp(
    axis: int, with_mean: bool, shared: bool, whole: bool, layout: torch.memory_format
) -> None:
    x, mask, mean = example(axis, shared=shared)
    if x.dim() == 4:
        x = x.contiguous(memory_format=layout)
    if whole:
        mask = torch.ones_like(mask)
    x.requires_grad_()
    mask.requires_grad_()
    found = blend(x, mask, mean if with_mean else None)
    expected = torch.lerp(mean if with_mean else torch.zeros_like(mean), x, mask)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    ours = torch.autograd.grad((found * weights).sum(), (x, mask))
    theirs = torch.autograd.grad((expected * weights).sum(), (x, mask))
    torch.testing.assert_close(ours, theirs)


def test_only_taught_images_have_a_mask_gradient() -> None:
    x, mask, mean = example(1, shared=False)
    mask.requires_grad_()
    x.requires_grad_()
    every = torch.autograd.grad(blend(x, mask, mean).square().sum(), (x, mask))
    some = torch.autograd.grad(blend(x, mask, mean, 2).square().sum(), (x, mask))
    torch.testing.assert_close(some[0], every[0])
    torch.testing.assert_close(some[1][:2], every[1][:2])
    assert not some[1][2:].any()
    assert every[1][2:].all()


def test_a_shared_mask_learns_from_all_images() -> None:
    x, mask, mean = example(1, shared=True)
    mask.requires_grad_()
    every, some = (
        torch.autograd.grad(blend(x, mask, mean, taught).square().sum(), mask)
        for taught in (None, 2)
    )
    torch.testing.assert_close(some, every)


def test_reduced_precision_stays_near() -> None:
    x, mask, mean = (t.bfloat16() for t in example(1, shared=False))
    wide = mask.float().requires_grad_()
    found = blend(x, wide, mean)
    assert found.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(found.float().sum(), wide)
    assert gradient.dtype == torch.float32
    expected = (x.float() - mean.float()).sum(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(gradient, expected, rtol=0.02, atol=0.05)


def test_means_are_those_of_the_whole_batch_where_it_is_small() -> None:
    x = torch.randn(40, 3, 8, 8)
    assert channel_means(x[:16], 1).flatten().tolist() == pytest.approx(
        x[:16].mean(dim=(0, 2, 3)).tolist(), abs=1e-6
    )
    assert channel_means(x, 1).shape == (1, 3, 1, 1)
    flat = torch.randn(40, 7)
    torch.testing.assert_close(channel_means(flat, -1), flat.mean(dim=0, keepdim=True))
    # 16 images have 16 x 4096 values here, enough of them
    large = torch.randn(40, 2, 64, 64)
    torch.testing.assert_close(
        channel_means(large, 1), large[:16].mean(dim=(0, 2, 3), keepdim=True)
    )
