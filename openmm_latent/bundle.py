"""Bundles: one file holding a scripted module and a manifest that says what it is.

A bundle is a TorchScript archive (a zip file) with one more entry, `manifest.json`. Its SHA-256 field covers every
other entry, code and weights alike, and the manifest's other fields; loading checks it before anything of the archive
runs. All of the project's Python calls to torch.jit are in this file.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openmm_latent.errors import LatentError, require
from openmm_latent.model import CONTRACT_METHODS, CONTRACT_VERSION, LatentModule, check_module
from openmm_latent.topology import AtomRecord
from openmm_latent.version import __version__

_MANIFEST = "manifest.json"
_COMPILED = "compiled"  # the folder of compiled methods; C++ reads it, too
_EXPECTED = "give a file that `openmm-latent train` or export_bundle wrote"


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself; every field is checked when it is loaded.

    Attributes
    ----------
    contract_version : int
        Of `model.py`.
    family, config : str, dict
        Family and configuration of the model.
    atoms : list of AtomRecord
        The model atoms, in the order of the module's input.
    masses : list of float
        Of the model atoms [amu].
    lag_time : float
        Physical time of one jump [ps].
    noise_sizes : dict
        Standard normal numbers that each random method takes.
    n_latent, n_slow : int
        Widths of the latent and of the slow coordinates.
    slow_periods : list of float
        Period of each slow coordinate; 0.0 where it is not an angle.
    proposals : list of str
        Names of the proposal kernels, in the order of the module's `proposal_weights`; empty without `propose`.
    capabilities : list of str
        The contract's methods that the module has.
    reference_positions : list
        (n_atoms, 3) [nm] of the structure on which the model superposes.
    training : dict
        temperature [K], force_field, digest (SHA-256), files, seed.
    compiled : dict
        Of the methods compiled ahead of time: their names, and what they were made_for; {} without any.
    licence, references, code_version : str, list of str, str
    sha256 : str
        Of the archive's other entries and of the fields above.
    """

    contract_version: int
    family: str
    config: dict[str, Any]
    atoms: list[AtomRecord]
    masses: list[float]
    lag_time: float
    noise_sizes: dict[str, int]
    n_latent: int
    n_slow: int
    slow_periods: list[float]
    proposals: list[str]
    capabilities: list[str]
    reference_positions: list[list[float]]
    training: dict[str, Any]
    compiled: dict[str, Any]
    licence: str
    references: list[str]
    code_version: str
    sha256: str

    @property
    def temperature(self) -> float | None:
        """Temperature of the training data [K]; None if it was not recorded."""
        return self.training.get("temperature")


@dataclass(frozen=True)
class Bundle:
    """A bundle that passed every check.

    Attributes
    ----------
    name : str
        The file's name, for messages.
    archive : bytes
        The whole file.
    manifest : Manifest
    module : torch.jit.ScriptModule
        On the CPU, in evaluation mode.
    """

    name: str
    archive: bytes
    manifest: Manifest
    module: Any


def training_facts(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of training, from what a file of weights tells of it; None for what that does not."""
    return {
        "temperature": known.get("temperature"),
        "force_field": known.get("force_field"),
        "digest": known.get("digest", ""),
        "files": list(known.get("files", [])),
        "seed": known.get("seed"),
    }


def export_bundle(
    module: LatentModule,
    path: str | Path,
    *,
    family: str,
    atoms: Sequence[AtomRecord],
    masses: Sequence[float],
    lag_time: float,
    config: Mapping[str, Any],
    training: Mapping[str, Any],
    reference_positions: np.ndarray,
    licence: str = "MIT",
    references: Sequence[str] = (),
) -> Path:
    """Script a module and write it with its manifest; the file appears whole or not at all.

    Parameters
    ----------
    module : LatentModule
        Put into evaluation mode; its contract methods are run once on `reference_positions` first.
    path : path-like
        Usually ending in `.latent.pt`.
    family, config, training, licence, references
        As in `Manifest`.
    atoms : sequence of AtomRecord
        (n_atoms,) in the order of the module's input.
    masses : sequence of float
        (n_atoms,) [amu]
    lag_time : float
        [ps]
    reference_positions : np.ndarray
        (n_atoms, 3) [nm]

    Raises
    ------
    LatentError
        Sizes that disagree, or a method that breaks the contract.
    """
    reference = np.asarray(reference_positions, dtype=np.float64)
    require(
        len(atoms) == module.n_atoms == len(masses) and reference.shape == (module.n_atoms, 3),
        f"atoms, masses and reference_positions must describe the module's {module.n_atoms} model atoms, got "
        f"{len(atoms)}, {len(masses)} and shape {reference.shape}",
    )
    require(lag_time > 0, f"lag_time must be a positive time in ps, got {lag_time}")
    module = module.to("cpu").eval()
    check_module(module, torch.from_numpy(reference).float().expand(2, -1, -1).clone())
    archive = _script(module)
    manifest = Manifest(
        contract_version=CONTRACT_VERSION,
        family=family,
        config=dict(config),
        atoms=list(atoms),
        masses=[float(mass) for mass in masses],
        lag_time=float(lag_time),
        noise_sizes=module.noise_sizes(),
        n_latent=module.n_latent,
        n_slow=module.n_slow,
        slow_periods=module.slow_periods(),
        proposals=module.proposal_names(),
        capabilities=module.capabilities(),
        reference_positions=reference.round(6).tolist(),
        training=dict(training),
        compiled={},
        licence=licence,
        references=list(references),
        code_version=__version__,
        sha256="",
    )
    return _write(path, archive, manifest)


def write_compiled(path: str | Path, out: str | Path, packages: Mapping[str, bytes], made_for: str) -> Path:
    """Write a copy of a bundle with other compiled methods beside its module (see `compiling.compile_bundle`).

    Parameters
    ----------
    path, out : path-like
        May be the same; `out` appears whole or not at all.
    packages : dict of str to bytes
        AOTInductor packages by method; they replace those the bundle has.
    made_for : str
        What they run on.

    Raises
    ------
    LatentError
        The bundle is bad, or the folder of `out` does not exist.
    """
    archive, manifest = _read(path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(buffer, "w") as new:
        root = old.namelist()[0].split("/", 1)[0]
        for entry in old.infolist():
            if not entry.filename.startswith((f"{root}/extra/{_MANIFEST}", f"{root}/extra/{_COMPILED}/")):
                new.writestr(entry, old.read(entry))
        for method, package in packages.items():
            new.writestr(f"{root}/extra/{_COMPILED}/{method}.pt2", package)
        new.writestr(f"{root}/extra/{_COMPILED}/made_for", made_for)
    manifest = replace(manifest, compiled={"methods": sorted(packages), "made_for": made_for})
    return _write(out, buffer.getvalue(), manifest)


def _write(path: str | Path, archive: bytes, manifest: Manifest) -> Path:
    """Sign the manifest and write the bundle, whole or not at all."""
    path = Path(path)
    require(path.parent.is_dir(), f"out: the folder '{path.parent}' does not exist; create it first")
    manifest = replace(manifest, sha256=_digest(archive, asdict(manifest)))
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(_with_manifest(archive, manifest))
    partial.replace(path)
    return path


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle, check all of it, and only then load its module.

    Raises
    ------
    LatentError
        The file is missing, truncated, altered, of another kind, or of another contract version.
    """
    archive, manifest = _read(path)
    name = Path(path).name
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.*deprecated", category=DeprecationWarning)
            module = torch.jit.load(io.BytesIO(archive), map_location="cpu")
    except RuntimeError as error:
        raise LatentError(
            f"bundle '{name}' cannot be loaded by torch {torch.__version__} ({str(error).splitlines()[0]}); {_EXPECTED}"
        ) from error
    missing = [method for method in manifest.capabilities if not hasattr(module, method)]
    require(not missing, f"bundle '{name}' promises {missing} but its module lacks them; {_EXPECTED}")
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)  # gradients flow to positions alone
    reference = torch.tensor(manifest.reference_positions, dtype=torch.float32)[None]  # (1, n_atoms, 3)
    try:
        with torch.inference_mode():
            moved, _ = module.jump(
                reference, module.initial_state(reference), torch.zeros(1, manifest.noise_sizes["jump"])
            )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise LatentError(
            f"bundle '{name}' fails in jump from its own reference structure ({reason}); export it again"
        ) from error
    require(
        moved.shape == reference.shape,
        f"bundle '{name}' moves {tuple(moved.shape)}, its manifest names {tuple(reference.shape)}; export it again",
    )
    return Bundle(name, archive, manifest, module)


def inspect_bundle(path: str | Path) -> dict[str, Any]:
    """Return the manifest of a checked bundle as plain data, without running anything of it."""
    return asdict(_read(path)[1])


def _script(module: LatentModule) -> bytes:
    """Compile the contract's methods of a module and return the archive."""
    for name in CONTRACT_METHODS:
        method = getattr(type(module), name, None)
        if method is not None:
            # the marks stay on the class: a method that this module does not offer may bear one of another module's
            (torch.jit.export if name in module.capabilities() else torch.jit.ignore)(method)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*deprecated", category=DeprecationWarning)
        scripted = torch.jit.script(module)
        buffer = io.BytesIO()
        torch.jit.save(scripted, buffer)
    return buffer.getvalue()


def _digest(archive: bytes, manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest's fields but `sha256`, and of the names and contents of all other entries."""
    digest = hashlib.sha256(json.dumps({**manifest, "sha256": ""}, sort_keys=True).encode())
    with zipfile.ZipFile(io.BytesIO(archive)) as entries:
        for name in sorted(entries.namelist()):
            # Inside the archive everything lies in a folder named after the file; the name after it is what counts.
            inner = name.split("/", 1)[-1]
            if inner == f"extra/{_MANIFEST}":
                continue
            content = entries.read(name)
            digest.update(f"{inner}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def _with_manifest(archive: bytes, manifest: Manifest) -> bytes:
    """Return the archive with the manifest as its last entry."""
    buffer = io.BytesIO(archive)
    with zipfile.ZipFile(buffer, "a") as entries:
        root = entries.namelist()[0].split("/", 1)[0]
        entries.writestr(f"{root}/extra/{_MANIFEST}", json.dumps(asdict(manifest), indent=1))
    return buffer.getvalue()


def _read(path: str | Path) -> tuple[bytes, Manifest]:
    """Read a file and check everything that can be checked without running it."""
    path = Path(path)
    require(path.is_file(), f"bundle '{path}' does not exist or is no file; {_EXPECTED}")
    name = path.name
    archive = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as entries:
            holders = [entry for entry in entries.namelist() if entry.endswith(f"/extra/{_MANIFEST}")]
            require(len(holders) == 1, f"'{name}' is no openmm-latent bundle: it has no manifest; {_EXPECTED}")
            content = json.loads(entries.read(holders[0]))
            require(isinstance(content, dict), f"bundle '{name}' has a manifest that is no JSON object; {_EXPECTED}")
        digest = _digest(archive, content)
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError) as error:
        raise LatentError(
            f"'{name}' is no openmm-latent bundle, or is truncated or damaged ({error}); {_EXPECTED}"
        ) from error
    except ValueError as error:
        if isinstance(error, LatentError):
            raise
        raise LatentError(f"bundle '{name}' has an unreadable manifest ({error}); {_EXPECTED}") from error
    manifest = _parse(content, name)
    require(
        digest == manifest.sha256,
        f"bundle '{name}' was altered: its contents have SHA-256 {digest[:12]}..., its manifest says "
        f"{manifest.sha256[:12]}...; get it again from where it was exported",
    )
    return archive, manifest


def _parse(content: Any, name: str) -> Manifest:
    """Turn JSON into a manifest, checking fields and the sizes that must agree."""
    expected = {entry.name for entry in fields(Manifest)}
    version = content.get("contract_version")
    require(
        version == CONTRACT_VERSION,
        f"bundle '{name}' follows contract version {version}, this openmm_latent {__version__} knows version "
        f"{CONTRACT_VERSION}; export it again, or install the release that wrote it",
    )
    content = {"compiled": {}, **content}  # absent from bundles written before methods could be compiled
    wrong = sorted(expected.symmetric_difference(content))
    require(not wrong, f"bundle '{name}' has a manifest with missing or unknown fields {wrong}; {_EXPECTED}")
    try:
        atoms = [AtomRecord(**atom) for atom in content["atoms"]]
    except TypeError as error:
        raise LatentError(f"bundle '{name}' has a manifest with malformed atoms ({error}); {_EXPECTED}") from error
    manifest = Manifest(**{**content, "atoms": atoms})
    for problem, is_right in _facts(manifest).items():
        require(is_right, f"bundle '{name}' has a wrong manifest: {problem}; {_EXPECTED}")
    return manifest


def _facts(manifest: Manifest) -> dict[str, bool]:
    """Return what must hold of a manifest: the sentence that says it does not -> whether it does."""
    n_atoms = len(manifest.atoms)
    try:
        reference = np.array(manifest.reference_positions, dtype=np.float64)
        masses = np.array(manifest.masses, dtype=np.float64)
        is_finite = bool(np.isfinite(reference).all() and np.isfinite(masses).all())
    except (TypeError, ValueError):
        reference, masses, is_finite = np.zeros(0), np.zeros(0), False
    sizes = manifest.noise_sizes if isinstance(manifest.noise_sizes, dict) else {}
    counts = [*sizes.values(), manifest.n_latent, manifest.n_slow]
    return {
        "it names no atoms": n_atoms > 0,
        f"masses and reference_positions must be numbers for each of {n_atoms} atoms": is_finite
        and masses.shape == (n_atoms,)
        and reference.shape == (n_atoms, 3),
        "lag_time must be a positive time in ps": isinstance(manifest.lag_time, int | float) and manifest.lag_time > 0,
        "noise_sizes (of jump, at least), n_latent and n_slow must be whole numbers": "jump" in sizes
        and all(isinstance(count, int) and count >= 0 for count in counts),
        "slow_periods must be n_slow numbers": isinstance(manifest.slow_periods, list)
        and len(manifest.slow_periods) == manifest.n_slow,
        "capabilities must hold jump and initial_state": {"jump", "initial_state"} <= set(manifest.capabilities),
        "proposals must name the kernels of propose, and propose needs its noise": isinstance(manifest.proposals, list)
        and len({bool(manifest.proposals), "propose" in manifest.capabilities, sizes.get("propose", 0) > 0}) == 1,
    }
