"""A device for machines without one: tensors that say they lie elsewhere and are computed on the processor.

What a GPU refuses (tensors on two devices), rounds (autocast to bfloat16) and makes the host wait for (values read back, copies that do not
run beside it) shows so. torch can hold one such device a process and then takes it for its accelerator: scripts alone may use it, in a
process of their own.
"""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

import medssl

NAME = "elsewhere"

# What autocast on CUDA casts, as far as medssl meets it; there avg_pool3d takes bfloat16, for which the processor has no kernel.
_ROUNDED = (
    "linear matmul mm bmm addmm baddbmm conv2d conv3d conv_transpose2d.input conv_transpose3d.input prelu scaled_dot_product_attention"
)
_EXACT = (
    "layer_norm group_norm softmax.int log_softmax.int logsumexp exp log log1p pow.Tensor_Scalar pow.Tensor_Tensor rsqrt reciprocal "
    "norm.ScalarOpt_dim cosine_similarity mse_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy_with_logits cumsum prod sum "
    "sum.dim_IntList avg_pool3d"
)
_MIXED = {"index", "index_put", "index_put_", "_index_put_impl_"}  # take indices and values of the processor
_READ = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "unique_dim", "_unique2", "_linalg_check_errors"}
_PACKAGE = Path(medssl.__file__).parent
_LIBRARIES: list[torch.library.Library] = []


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def register() -> torch.device:
    """Tell torch of the device, for the rest of the process."""
    _setup_privateuseone_for_python_backend(NAME, _Backend())
    others, casts = (torch.library.Library(space, "IMPL", "AutocastPrivateUse1") for space in ("_", "aten"))
    others.fallback(torch.library.fallthrough_kernel)
    for names, dtype in ((_ROUNDED, torch.bfloat16), (_EXACT, torch.float32)):
        for name in names.split():
            operation, _, overload = name.partition(".")
            casts.impl(name, _cast(getattr(getattr(torch.ops.aten, operation), overload or "default"), dtype))
    _LIBRARIES.extend((others, casts))  # they are undone where they are forgotten
    return torch.device(NAME, 0)


def _cast(operation: Callable[..., Any], dtype: torch.dtype) -> Callable[..., Any]:
    def cast(value: Any) -> Any:  # noqa: ANN401
        moves = isinstance(value, Tensor) and value.device.type == NAME and value.dtype in (torch.float32, torch.bfloat16)
        return value.to(dtype) if moves else value

    def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)):
            return operation(*tree_map(cast, args), **tree_map(cast, kwargs))

    return run


class Elsewhere(Tensor):
    """A tensor of the device; `here` holds its values."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "Elsewhere":
        shape, layout = here.size(), {"strides": here.stride(), "storage_offset": here.storage_offset()}
        made = Tensor._make_wrapper_subclass(cls, shape, **layout, dtype=here.dtype, device=torch.device(NAME, 0))
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        raise RuntimeError(f"{func}: the device is left")

    def tolist(self) -> Any:  # noqa: ANN401
        """The values, as any device gives them; torch refuses it for subclasses."""
        return self.cpu().tolist()


def brought(value: Any) -> Any:  # noqa: ANN401
    """Values of the device as the processor's."""
    return value.here if isinstance(value, Elsewhere) else value


class Device(TorchDispatchMode):
    """Where the device is at work.

    Attributes:
        waits: What it was waited for, with the place in our code.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __enter__(self) -> "Device":
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor` copies where it can be seen
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        torch._C._set_only_lift_cpu_tensors(False)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        name, kwargs = func._opname, kwargs or {}
        wanted = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.device)), None)
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        far = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
        first_far = bool(tensors) and isinstance(tensors[0], Elsewhere)
        near = any(tensor.ndim for tensor in tensors if not isinstance(tensor, Elsewhere))
        if far and near and name != "copy_" and not (first_far and name in _MIXED):
            raise RuntimeError(f"{name}: tensors on two devices")
        if self._waits(name, tensors, wanted, args, kwargs) and (place := _place()):
            self.waits.append(f"{name} at {place}")
        result = func(*tree_map(_here, args), **tree_map(_here, kwargs))
        lies_far = wanted.type == NAME if wanted is not None else first_far or (bool(far) and name != "copy_")
        known = {id(tensor.here): tensor for tensor in far}  # what is changed in place stays the tensor that it was

        def there(value: Any) -> Any:  # noqa: ANN401
            return known.get(id(value), Elsewhere(value) if lies_far else value) if isinstance(value, Tensor) else value

        return tree_map(there, result)

    @staticmethod
    def _waits(name: str, tensors: list[Tensor], wanted: torch.device | None, args: Any, kwargs: Any) -> bool:  # noqa: ANN401
        far = [isinstance(tensor, Elsewhere) for tensor in tensors]
        if name == "_to_copy" and wanted is not None and not kwargs.get("non_blocking"):
            return far[0] != (wanted.type == NAME)
        if name == "copy_":
            return far[0] != far[1] and not any(args[2:])
        if name == "index":
            return far[0] and any(tensor.dtype in (torch.bool, torch.uint8) for tensor in tensors[1:])
        return any(far) and name in _READ


def _here(value: Any) -> Any:  # noqa: ANN401
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == NAME else brought(value)


def _place() -> str:
    """The line of the package that is at work; empty in a test."""
    lines = [line for line in traceback.extract_stack() if _PACKAGE in Path(line.filename).parents]
    return f"{Path(lines[-1].filename).name}:{lines[-1].lineno}" if lines else ""
