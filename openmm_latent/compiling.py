"""Compile a bundle's methods ahead of time by AOTInductor: the same numbers, sooner.

A small network spends its time on calling operations, not on computing them; compiled, one method is one call. The
packages lie in the bundle beside its TorchScript module, under its manifest and its SHA-256, and run without Python.

| entry | in -> out |
|---|---|
| `jump` | positions, noise, state... -> positions, next state... |
| `slow` | positions -> slow coordinates |
| `slow_with_gradient` | positions, target, strengths -> slow coordinates, gradient of strengths/2 (slow - target)^2 |
| `propagate_slow` | positions, noise, state... -> slow coordinates, next state... |

Compiled code fits one version of torch and one kind of processor. `cpp/torch/CompiledRunner.cpp` looks at both and
leaves what does not fit to TorchScript.
"""

from __future__ import annotations

import logging
import platform
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from openmm_latent.bundle import Bundle, load_bundle, write_compiled
from openmm_latent.errors import LatentError, reason_of, require

#: Frames and noises on which compiled methods are compared with TorchScript.
_N_CHECKS = 8
#: How far the frames for it lie from the reference structure [nm].
_SPREAD = 0.01
#: Largest difference, as a share of the largest value (1 where that is smaller), that rounding may make.
_TOLERANCE = 1e-3
#: Instruction sets by the name that torch gives what the processor can do.
_MARCH = {"AVX2": "x86-64-v3", "AVX512": "x86-64-v4"}


@dataclass(frozen=True)
class _Method:
    """A function of tensors alone, and what it is called with."""

    name: str
    function: Callable[..., tuple[Tensor, ...]]
    draw: Callable[[torch.Generator], tuple[Tensor, ...]]  # inputs near the reference structure


def compile_bundle(path: str | Path, out: str | Path, device: str = "cpu") -> dict[str, float]:
    """Write a copy of a bundle that holds its methods compiled as well.

    Parameters
    ----------
    path : path-like
        A bundle.
    out : path-like
        The bundle to write; may be `path` itself. It appears whole or not at all.
    device : {"cpu", "cuda"}
        What the compiled methods will run on.

    Returns
    -------
    dict of str to float
        For each compiled method, the largest difference from TorchScript that was seen.

    Raises
    ------
    LatentError
        The bundle is bad, the device is absent, there is no C++ compiler, or a compiled method gives other numbers than
        TorchScript (a model that decides by the values of its input cannot be compiled).

    Source: torch.export and AOTInductor, of PyTorch.
    """
    require(device in ("cpu", "cuda"), f"device must be 'cpu' or 'cuda', got {device!r}")
    require(
        device == "cpu" or torch.cuda.is_available(),
        "device 'cuda' was asked for, but torch sees no CUDA device; compile on the machine that will run the bundle",
    )
    bundle = load_bundle(path)
    bundle.module.to(device)
    packages: dict[str, bytes] = {}
    differences: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="openmm-latent-") as folder:
        for method in _methods(bundle, device):
            package = Path(folder) / f"{method.name}.pt2"
            _compile(bundle.name, method, package)
            differences[method.name] = _compare(bundle.name, method, package)
            packages[method.name] = package.read_bytes()
    write_compiled(path, out, packages, made_for=made_for(device))
    return differences


def made_for(device: str) -> str:
    """Return what compiled methods run on, in the words that C++ compares."""
    version = torch.__version__.split("+")[0]
    return (
        f"torch {version} cuda"
        if device == "cuda"
        else f"torch {version} cpu {torch.backends.cpu.get_cpu_capability()}"
    )


def _methods(bundle: Bundle, device: str) -> list[_Method]:
    """Return what can be compiled of a bundle."""
    module, manifest = bundle.module, bundle.manifest
    reference = torch.tensor(manifest.reference_positions, dtype=torch.float32, device=device)[None]  # (1, n_atoms, 3)
    n_noise, n_propagate = manifest.noise_sizes["jump"], manifest.noise_sizes.get("propagate", 0)
    periods = torch.tensor([manifest.slow_periods], device=device)  # (1, n_slow)
    turns = torch.where(periods > 0, 1.0 / periods, torch.zeros_like(periods))

    def near(generator: torch.Generator) -> Tensor:
        return reference + _SPREAD * torch.randn(reference.shape, generator=generator).to(device)

    def noise(size: int, generator: torch.Generator) -> Tensor:
        return torch.randn(1, size, generator=generator).to(device)

    def jump(positions: Tensor, given: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        moved, following = module.jump(positions, list(state), given)
        return (moved, *following)

    def slow_with_gradient(positions: Tensor, target: Tensor, strengths: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            followed = positions.detach().requires_grad_(True)
            (coordinates,) = slow(followed)
            away = coordinates.detach() - target
            pull = strengths * (away - periods * torch.round(away * turns))  # the short way round
            return coordinates.detach(), torch.autograd.grad([coordinates], [followed], [pull])[0]

    def propagate_slow(positions: Tensor, given: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        latent, following = module.propagate(module.encode(positions), list(state), given)
        return (module.slow(latent), *following)

    def positions_noise_state(size: int) -> Callable[[torch.Generator], tuple[Tensor, ...]]:
        def draw(generator: torch.Generator) -> tuple[Tensor, ...]:
            positions = near(generator)
            with torch.no_grad():
                state = module.initial_state(positions)
            return (positions, noise(size, generator), *state)

        return draw

    methods = [_Method("jump", jump, positions_noise_state(n_noise))]
    if "slow" in manifest.capabilities:

        def draw_pull(generator: torch.Generator) -> tuple[Tensor, ...]:
            size = manifest.n_slow
            return near(generator), noise(size, generator), 1.0 + noise(size, generator) ** 2

        slow = _needed_part(lambda positions: (module.slow(module.encode(positions)),), reference)
        methods += [
            _Method("slow", slow, lambda generator: (near(generator),)),
            _Method("slow_with_gradient", slow_with_gradient, draw_pull),
        ]
        if "propagate" in manifest.capabilities:
            methods.append(_Method("propagate_slow", propagate_slow, positions_noise_state(n_propagate)))
    return methods


def _needed_part(function: Callable[..., Any], example: Tensor) -> Callable[..., Any]:
    """Return a function of positions less what its result does not depend on, still differentiable.

    Slow coordinates may read a part of the latent alone. What makes the other part is left out before gradients are
    taken: afterwards it would be multiplied by zeros, but it would be computed.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.enable_grad():  # a module may leave out what only gradients need
        graph = make_fx(function)(example.clone().requires_grad_(True))
    for node in list(graph.graph.nodes):
        if node.target is torch.ops.aten.slice.Tensor and (taken := _taken_out(node)) is not node:
            node.replace_all_uses_with(taken)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _taken_out(node: Any) -> Any:
    """Return what a slice takes out: all of its input, whole inputs of a concatenation, or else the slice itself."""
    defaults: tuple[Any, ...] = (None, 0, None, None, 1)
    source, dim, *bounds = tuple(node.args) + defaults[len(node.args) :]
    width = source.meta["val"].shape[dim]
    start, end, step = slice(*bounds).indices(width)
    if (start, end, step) == (0, width, 1):
        return source
    if source.target is torch.ops.aten.cat.default and (*source.args, 0)[1] == dim and step == 1:
        sizes = [part.meta["val"].shape[dim] for part in source.args[0]]
        edges = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        if start in edges and end in edges:
            with node.graph.inserting_before(node):
                parts = source.args[0][edges.index(start) : edges.index(end)]
                shorter = node.graph.call_function(torch.ops.aten.cat.default, (parts, dim))
            shorter.meta.update(node.meta)
            return shorter
    return node


def _compile(name: str, method: _Method, package: Path) -> None:
    """Trace one method and write its package."""
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.utils import fresh_cache
    from torch.fx.experimental.proxy_tensor import make_fx

    inputs = method.draw(torch.Generator().manual_seed(1))
    march = _MARCH.get(torch.backends.cpu.get_cpu_capability()) if platform.machine() == "x86_64" else None
    chatter = logging.getLogger("torch._inductor")
    level = chatter.level
    try:
        chatter.setLevel(logging.ERROR)  # and no warnings: both are about torch's own internals
        with warnings.catch_warnings(), fresh_cache(), torch.no_grad(), _code_for(march) as options:
            warnings.simplefilter("ignore")
            traced = make_fx(method.function, decomposition_table=_DECOMPOSITIONS)(*inputs)
            program = torch.export.export(traced, inputs)
            aoti_compile_and_package(program, package_path=str(package), inductor_configs=options)
    except Exception as error:  # whatever tracing, the compiler or the linker raise
        raise LatentError(
            f"bundle '{name}': {method.name} cannot be compiled ({reason_of(error, 300)}); it takes a C++ compiler "
            f"such as g++, and a model whose steps do not depend on the values of its input; without it the bundle "
            f"runs as it is"
        ) from error
    finally:
        chatter.setLevel(level)


@contextmanager
def _code_for(march: str | None) -> Iterator[dict[str, Any]]:
    """Give Inductor's options for a kind of processor, not for this very one, which may know more than others of it.

    torch 2.11 and older have no such option: there the compiler's flag is replaced.
    """
    from torch._inductor import config, cpp_builder

    if hasattr(config.cpp, "march"):
        yield {"cpp.march": march}
        return
    flags = cpp_builder._get_optimization_cflags

    def flags_of_the_kind(*arguments: Any, **named: Any) -> tuple[list[str], list[str]]:
        compiling, linking = flags(*arguments, **named)
        return [f"march={march}" if march and flag == "march=native" else flag for flag in compiling], linking

    with mock.patch.object(cpp_builder, "_get_optimization_cflags", flags_of_the_kind):
        yield {}


def _compare(name: str, method: _Method, package: Path) -> float:
    """Return the largest difference between the compiled method and TorchScript on frames it was not traced with."""
    from torch._inductor import aoti_load_package

    compiled: Any = aoti_load_package(str(package), run_single_threaded=True)
    generator = torch.Generator().manual_seed(2)
    largest = 0.0
    for _ in range(_N_CHECKS):
        inputs = method.draw(generator)
        with torch.no_grad():
            pairs = list(zip(compiled(*inputs), method.function(*inputs), strict=True))
        for found, expected in pairs:
            difference = float((found - expected).abs().max()) if expected.numel() else 0.0
            scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
            require(
                difference <= _TOLERANCE * scale,
                f"bundle '{name}': compiled, {method.name} differs by {difference:.3g} (of {scale:.3g}) from "
                f"TorchScript; a model whose steps depend on the values of its input cannot be compiled: use the "
                f"bundle as it is",
            )
            largest = max(largest, difference)
    return largest


# --- small matrices without a library call ---------------------------------------------------------------------------

#: Products of at most so many multiplications become loops of the compiled code, which a library call outlasts.
_SMALL_PRODUCT = 2**15


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply (m, k) by (k, n), in place of `mm`."""
    if a.numel() * b.shape[1] > _SMALL_PRODUCT:
        return NotImplemented
    return (a.unsqueeze(2) * b.unsqueeze(0)).sum(1)


def _product_and_sum(c: Tensor, a: Tensor, b: Tensor, beta: float = 1.0, alpha: float = 1.0) -> Tensor:
    """Return beta c + alpha a b, in place of `addmm`."""
    product = _product(a, b)
    return product if product is NotImplemented else beta * c + alpha * product


def _batch_of_products(a: Tensor, b: Tensor) -> Tensor:
    """Multiply (b, m, k) by (b, k, n), in place of `bmm`."""
    if a.numel() * b.shape[2] > _SMALL_PRODUCT:
        return NotImplemented
    return (a.unsqueeze(3) * b.unsqueeze(1)).sum(2)


def _inverse_of_three(matrix: Tensor, check_errors: bool = False) -> tuple[Tensor, Tensor]:
    """Invert (b, 3, 3) by cofactors, in place of `linalg_inv_ex`."""
    if matrix.shape[-2:] != (3, 3):
        return NotImplemented
    first, second, third = matrix.unbind(-2)
    cofactors = [_cross(second, third), _cross(third, first), _cross(first, second)]
    determinant = (first * cofactors[0]).sum(-1)
    inverse = torch.stack(cofactors, dim=-1) / determinant[..., None, None]
    return inverse, torch.zeros(matrix.shape[:-2], dtype=torch.int32, device=matrix.device)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    (x, y, z), (u, v, w) = a.unbind(-1), b.unbind(-1)
    return torch.stack([y * w - z * v, z * u - x * w, x * v - y * u], dim=-1)


#: What tracing replaces; NotImplemented leaves a call as it is.
_DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.mm.default: _product,
    torch.ops.aten.addmm.default: _product_and_sum,
    torch.ops.aten.bmm.default: _batch_of_products,
    torch.ops.aten.linalg_inv_ex.default: _inverse_of_three,
}
