import pytest
import torch
from flmm.refiners.sam import products
from flmm.refiners.sam.products import linear, matmul


@pytest.fixture(params=["faster", "bmm"])
def library(request, monkeypatch):
    if request.param == "bmm":
        monkeypatch.setattr(products, "_onednn", lambda: None)


@pytest.mark.parametrize("phrases", [1, 2])
@pytest.mark.parametrize("gradients", [False, True])
def test_products_of_strided_matrices_equal_those_in_double_precision(library, phrases, gradients):
    a, b, plus = (
        torch.randn(phrases, 40, 60),
        torch.randn(phrases, 30, 50),
        torch.randn(phrases, 25, 20),
    )
    left, right = (
        a[:, 5:30, 10:40],
        b.transpose(1, 2)[:, 15:35].transpose(1, 2),
    )  # (N, 25, 30) @ (N, 30, 20)
    with torch.set_grad_enabled(gradients):
        exact = left.double() @ right.double()
        torch.testing.assert_close(matmul(left, right).double(), exact, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            matmul(left, right, plus=plus).double(), exact + plus, atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("gradients", [False, True])
def test_linear_layers(library, gradients):
    x, weight, bias, plus = (
        torch.randn(2, 7, 4, 30),
        torch.randn(20, 30),
        torch.randn(20),
        torch.randn(2, 7, 4, 20),
    )
    exact = x.double() @ weight.T.double()
    with torch.set_grad_enabled(gradients):
        for given, wanted in (
            ({}, exact),
            ({"bias": bias}, exact + bias),
            ({"plus": plus}, exact + plus),
            ({"bias": bias, "plus": plus[:1]}, exact + bias + plus[:1]),
        ):
            torch.testing.assert_close(
                linear(x, weight, **given).double(), wanted, atol=1e-5, rtol=1e-5
            )


def test_gradients_flow_and_autocast_is_obeyed():
    x, weight = torch.randn(1, 5, 8, requires_grad=True), torch.randn(6, 8, requires_grad=True)
    (matmul(x, weight.T[None]).sum() + linear(x, weight).sum()).backward()
    torch.testing.assert_close(x.grad, 2 * weight.detach().sum(0).expand(1, 5, 8))
    torch.testing.assert_close(weight.grad, 2 * x.detach()[0].sum(0).expand(6, 8))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert matmul(x, x.transpose(1, 2)).dtype is linear(x, weight).dtype is torch.bfloat16


def _takes_no_text(*args):
    raise RuntimeError("_linear_pointwise() expected 5 arguments")


@pytest.mark.parametrize("operator", [_takes_no_text, lambda x, *_: x, None])
def test_an_operator_that_is_not_as_known_is_left_alone(operator, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", operator, raising=False)
    assert products._onednn.__wrapped__() is None
