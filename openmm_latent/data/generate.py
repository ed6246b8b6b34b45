"""Reference MD from a PDB file: prepared, minimised, equilibrated, written as XTC, and resumable to the bit.

For each replica `NAME_00` in the output folder:

| file | what |
|---|---|
| `NAME.pdb` | the prepared structure, topology of all replicas |
| `NAME_00.xtc` | frames, evenly spaced, the first one frame spacing after equilibration |
| `NAME_00.json` | provenance: everything needed to make it again |
| `NAME_00.resume` | where to go on: written whole or not at all, together with the length of the XTC at that moment |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import openmm
from openmm import app, unit

from openmm_latent.data.forcefields import FORCE_FIELDS, build_system
from openmm_latent.data.interrupt import DelayedInterrupt
from openmm_latent.data.platforms import choose_platform
from openmm_latent.data.prepare import prepare
from openmm_latent.data.resume import load_point, save_point, write_whole
from openmm_latent.errors import LatentError, require
from openmm_latent.version import __version__

#: Called with (replica, frames written, frames in all); negative frames while equilibrating.
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class GenerateConfig:
    """What to run; on the Reference platform the same configuration gives the same bits each time."""

    solvent: str = "obc2"  # "obc2" implicit, "vacuum", or "tip3p" explicit
    temperature: float = 300.0  # [K]
    duration: float = 1000.0  # [ps] of production, a replica
    frame_spacing: float = 1.0  # [ps] between frames of the XTC
    equilibration: float = 20.0  # [ps] thrown away before the first frame
    n_replicas: int = 1
    timestep: float = 0.002  # [ps]; 0.004 with hydrogen_mass=3
    friction: float = 1.0  # [1/ps] of LangevinMiddleIntegrator
    hydrogen_mass: float | None = None  # [amu]; None leaves masses alone
    pressure: float = 1.0  # [bar], of explicit solvent
    ph: float = 7.0  # at which hydrogens are added
    seed: int = 1  # replica k runs with seed + k
    remove_heterogens: bool = False  # leave out ligands and additives instead of refusing them
    save_every: float = 30.0  # [s] of wall time between two checkpoints

    def check(self) -> None:
        """Raise `LatentError` for values that cannot run."""
        require(self.solvent in FORCE_FIELDS, f"solvent must be one of {', '.join(FORCE_FIELDS)}, got {self.solvent!r}")
        for name in ("temperature", "duration", "frame_spacing", "timestep", "friction"):
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        require(self.seed >= 1, f"seed must be at least 1, got {self.seed}; OpenMM takes 0 as `choose one`")
        require(self.n_replicas >= 1, f"n_replicas must be at least 1, got {self.n_replicas}")
        require(self.equilibration >= 0, f"equilibration must not be negative, got {self.equilibration} ps")
        require(
            self.timestep <= 0.0025 or self.hydrogen_mass is not None,
            f"timestep {self.timestep} ps needs heavier hydrogens; give hydrogen_mass=3 or a timestep of 0.002 ps",
        )
        require(
            self.timestep <= 0.005,
            f"timestep must not exceed 0.005 ps, got {self.timestep} (it is in ps: 2 fs is 0.002)",
        )
        n_steps = self.frame_spacing / self.timestep
        require(
            round(n_steps) >= 1 and abs(n_steps - round(n_steps)) < 1e-6 * n_steps,
            f"frame_spacing must be a multiple of the timestep ({self.timestep} ps), got {self.frame_spacing} ps",
        )
        require(
            self.n_frames >= 1,
            f"duration {self.duration} ps is shorter than one frame spacing ({self.frame_spacing} ps)",
        )

    @property
    def steps_per_frame(self) -> int:
        """MD steps between two frames."""
        return round(self.frame_spacing / self.timestep)

    @property
    def n_frames(self) -> int:
        """Frames of one replica."""
        return int(self.duration / self.frame_spacing + 1e-6)

    @property
    def n_equilibration(self) -> int:
        """Blocks of `steps_per_frame` steps before the first frame."""
        return -int(-self.equilibration // self.frame_spacing)


def generate(
    pdb: str | Path,
    out: str | Path,
    config: GenerateConfig | None = None,
    *,
    platform: str | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Run reference MD, or go on with a run that was interrupted.

    Parameters
    ----------
    pdb : path
        Structure; missing atoms and hydrogens are added.
    out : path
        Folder for the results. Where it holds an unfinished run of the same configuration, that run goes on; a longer
        `duration` or more replicas continue a finished one.
    config : GenerateConfig
    platform : str or None
        OpenMM platform; None chooses (see `choose_platform`).
    progress : callable or None

    Returns
    -------
    list of Path
        The XTC files, one a replica.

    Raises
    ------
    LatentError
        The structure cannot be prepared, the configuration cannot run, or `out` holds another run.
    KeyboardInterrupt
        After Ctrl-C or SIGTERM, once the run is saved.
    """
    config = config or GenerateConfig()
    config.check()
    folder, name = Path(out), Path(pdb).stem
    folder.mkdir(parents=True, exist_ok=True)
    top = _prepared_structure(Path(pdb), folder / f"{name}.pdb", config)
    return [
        _Replica(top, folder / f"{name}_{index:02d}.xtc", index, config, platform, progress).run()
        for index in range(config.n_replicas)
    ]


def _prepared_structure(pdb: Path, top: Path, config: GenerateConfig) -> Path:
    """Write the prepared structure and its notes, or return the one already there if it came from the same input."""
    notes = top.with_suffix(".prepared.json")
    require(
        not (top.exists() and pdb.exists() and top.samefile(pdb)),
        f"out (--out) {top.parent} holds the input {pdb.name}, which the prepared structure would overwrite; "
        f"give another folder",
    )
    require(pdb.is_file(), f"PDB file {pdb} does not exist; check the name")
    source = {
        "input": pdb.name,
        "input_sha256": _sha256(pdb),
        "ph": config.ph,
        "solvent": config.solvent,
        "remove_heterogens": config.remove_heterogens,
    }
    if top.exists() and notes.exists():
        before = json.loads(notes.read_text())
        for key, value in source.items():
            require(
                before.get(key) == value,
                f"folder {top.parent} holds a run with {key} {before.get(key)!r}, and {value!r} is asked for; "
                f"give another folder (--out)",
            )
        return top
    made = prepare(
        pdb, solvent=config.solvent, ph=config.ph, seed=config.seed, remove_heterogens=config.remove_heterogens
    )
    with open(top, "w") as handle:
        app.PDBFile.writeFile(made.topology, made.positions * unit.nanometer, handle, keepIds=True)
    notes.write_text(json.dumps(source | {"notes": made.notes}, indent=2) + "\n")
    return top


class _Replica:
    """One trajectory: simulation, XTC, resume file and provenance."""

    def __init__(
        self,
        top: Path,
        xtc: Path,
        index: int,
        config: GenerateConfig,
        platform: str | None,
        progress: Progress | None,
    ) -> None:
        self.xtc, self.index, self.config, self.progress = xtc, index, config, progress
        self.resume_file = xtc.with_suffix(".resume")
        structure = app.PDBFile(str(top))
        self.topology = structure.topology
        is_periodic = self.topology.getPeriodicBoxVectors() is not None
        chosen, properties, self.platform_reason = choose_platform(platform, self.topology.getNumAtoms(), is_periodic)
        self.provenance = self._describe(top, chosen.getName())
        self._refuse_another_run()
        system = build_system(self.topology, config.solvent, hydrogen_mass=config.hydrogen_mass)
        seed = config.seed + index
        integrator = openmm.LangevinMiddleIntegrator(
            config.temperature * unit.kelvin, config.friction / unit.picosecond, config.timestep * unit.picosecond
        )
        integrator.setRandomNumberSeed(seed)
        if config.solvent == "tip3p":
            barostat = openmm.MonteCarloBarostat(config.pressure * unit.bar, config.temperature * unit.kelvin)
            barostat.setRandomNumberSeed(seed)
            system.addForce(barostat)
        self.simulation = app.Simulation(self.topology, system, integrator, chosen, properties)
        self.positions = structure.positions
        self.n_done = -config.n_equilibration  # blocks of steps_per_frame; from 0 on, the number of frames written

    def run(self) -> Path:
        """Run to the end; on an interrupt, save and raise."""
        if self.resume_file.exists():
            self.n_done = load_point(self.resume_file, self.simulation.context)["n_done"]
            self._open(append=self.xtc.exists())
        else:
            self._start()
        n_frames = self.config.n_frames
        last_save = monotonic()
        self._tell()
        with DelayedInterrupt() as interrupt:
            while self.n_done < n_frames:
                self.simulation.step(self.config.steps_per_frame)
                self.n_done += 1
                if self.n_done > 0:
                    self._write_frame()
                is_asked = interrupt.is_asked  # looked at once: whoever asks later than this stops after the next frame
                if is_asked or self.n_done == n_frames or monotonic() - last_save > self.config.save_every:
                    self._save()
                    last_save = monotonic()
                self._tell()
                if is_asked and self.n_done < n_frames:
                    raise KeyboardInterrupt(f"saved after {max(0, self.n_done)} of {n_frames} frames in {self.xtc}")
        return self.xtc

    def _start(self) -> None:
        self.xtc.unlink(missing_ok=True)
        context = self.simulation.context
        context.setPositions(self.positions)
        self.simulation.minimizeEnergy()
        context.setVelocitiesToTemperature(self.config.temperature * unit.kelvin, self.config.seed + self.index)
        self._open(append=False)
        self._save()

    def _open(self, append: bool) -> None:
        steps = self.config.steps_per_frame
        timestep = self.config.timestep * unit.picosecond
        self.writer = app.XTCFile(str(self.xtc), self.topology, timestep, steps, steps, append)

    def _write_frame(self) -> None:
        state = self.simulation.context.getState(positions=True)
        try:
            self.writer.writeModel(state.getPositions(asNumpy=True), periodicBoxVectors=state.getPeriodicBoxVectors())
        except ValueError as error:
            raise LatentError(
                f"the run has blown up at frame {self.n_done} ({error}); give a shorter timestep or check the structure"
            ) from error

    def _save(self) -> None:
        """Write the save point, then the provenance with the number of frames."""
        save_point(self.resume_file, self.simulation.context, [self.xtc], {"n_done": self.n_done})
        progress = {"n_frames": max(0, self.n_done), "is_complete": self.n_done >= self.config.n_frames}
        write_whole(self.xtc.with_suffix(".json"), (json.dumps(self.provenance | progress, indent=2) + "\n").encode())

    def _describe(self, top: Path, platform: str) -> dict[str, Any]:
        settings = asdict(self.config)
        for key in ("n_replicas", "save_every", "seed", "duration", "remove_heterogens"):
            del settings[key]
        prepared = json.loads(top.with_suffix(".prepared.json").read_text())
        return settings | {
            "force_field": FORCE_FIELDS[self.config.solvent],
            "integrator": "LangevinMiddleIntegrator",
            "constraints": "HBonds",
            "seed": self.config.seed + self.index,
            "replica": self.index,
            "topology": top.name,
            "topology_sha256": _sha256(top),
            "input": prepared["input"],
            "input_sha256": prepared["input_sha256"],
            "preparation": prepared["notes"],
            "platform": platform,
            "openmm_version": openmm.version.version,
            "code_version": __version__,
        }

    def _refuse_another_run(self) -> None:
        """Refuse to mix two configurations in one file."""
        beside = self.xtc.with_suffix(".json")
        if not (beside.exists() and self.resume_file.exists()):
            return
        before = json.loads(beside.read_text())
        for key, value in self.provenance.items():
            if key in ("code_version", "openmm_version"):
                continue
            require(
                before.get(key) == value,
                f"{self.xtc} belongs to a run with {key} {before.get(key)!r}, and {value!r} is asked for; "
                f"give another folder (--out) or the same {key}",
            )

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress(self.index, self.n_done, self.config.n_frames)


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
