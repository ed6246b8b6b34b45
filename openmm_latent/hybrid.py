"""A hybrid run with everything a long run needs: outputs, provenance, save points.

For a structure NAME.pdb the folder gets

| file | what |
|---|---|
| `NAME.pdb` | the structure as it was run, topology of the trajectory |
| `NAME.xtc` or `NAME.dcd` | frames; at the default spacing, the end of each relaxation |
| `NAME.csv` | OpenMM's StateDataReporter |
| `NAME.latent.csv` | what became of each jump, and the slow coordinates |
| `NAME.filled.xtc`, with `.csv` and `.pdb` | on request, what the model draws within jumps: not physical |
| `NAME.json` | provenance, with the mode: what a frame is worth |
| `NAME.tuning.json` | exact mode: every setting tried before production, and the one chosen |
| `NAME.resume` | save point |
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

from openmm_latent.data.complex_files import read_system
from openmm_latent.data.forcefields import FORCE_FIELDS, build_system
from openmm_latent.data.interrupt import DelayedInterrupt
from openmm_latent.data.platforms import choose_platform
from openmm_latent.data.prepare import prepare
from openmm_latent.data.resume import load_point, save_point, write_whole
from openmm_latent.data.trajectories import load_topology
from openmm_latent.errors import LatentError, require
from openmm_latent.reporters import FilledTrajectoryReporter, LatentReporter
from openmm_latent.simulation import REALISATIONS, LatentModel
from openmm_latent.tuning import tune_driving
from openmm_latent.version import __version__

#: What the frames of each mode are worth; written into the provenance.
FRAMES = {
    "guarded": "physically sound, not Boltzmann; the relaxations are unbiased short MD",
    "exploratory": "not Boltzmann, for finding states",
    "exact": "Boltzmann at the relaxation's temperature, whatever the network learned",
}


@dataclass(frozen=True)
class HybridConfig:
    """What to run."""

    temperature: float  # [K] of relaxation and redrawn velocities
    solvent: str = "obc2"  # "obc2", "vacuum" or, with realisation "steer", "tip3p"
    duration: float = 1000.0  # [ps] of relaxation MD
    jump_interval: int = 500  # relaxation steps between jumps
    mode: str = "guarded"  # "guarded", "exploratory" or "exact"
    realisation: str = "decode"  # "decode" or "steer"; an exact run always steers
    driven_steps: int = 500  # MD steps of a steered or exact jump
    driven_steps_per_distance: float = 0.0  # further ones for each unit of way along the slow coordinates
    least_driven_distance: float = 0.0  # exact mode: nearer proposals are left to MD
    steps_per_perturbation: int = 2
    sigma: float | None = None  # width of the driving restraint; None: the model's default
    driving_timestep: float | None = None  # [ps] of a jump's MD steps; None: timestep
    driving_friction: float = 1.0  # [1/ps] of a jump's MD steps
    is_tuned: bool = False  # exact mode: choose all of that but the friction before production
    pressure: float = 1.0  # [bar], of explicit solvent
    timestep: float = 0.002  # [ps]; 0.004 with hydrogen_mass=3
    friction: float = 5.0  # [1/ps]: warms a decoded frame up within the default jump interval
    hydrogen_mass: float | None = None  # [amu]
    report_interval: int | None = None  # steps between frames and report lines; None: jump_interval
    trajectory_format: str = "xtc"  # "xtc" or "dcd"
    is_filled: bool = False  # write what the model draws within jumps, too
    seed: int = 1
    save_every: float = 30.0  # [s] of wall time between save points

    def check(self) -> None:
        """Raise `LatentError` for values that cannot run."""
        for name in ("temperature", "duration", "timestep", "friction"):
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        require(self.solvent in FORCE_FIELDS, f"solvent must be one of {', '.join(FORCE_FIELDS)}, got {self.solvent!r}")
        require(self.mode in FRAMES, f"mode must be one of {', '.join(FRAMES)}, got {self.mode!r}")
        require(
            self.realisation in REALISATIONS,
            f"realisation must be one of {', '.join(REALISATIONS)}, got {self.realisation!r}",
        )
        require(
            self.solvent != "tip3p" or self.is_driven,
            "solvent tip3p needs jumps that steer: written coordinates would leave the water where it is; give "
            "realisation 'steer' (--realisation steer)",
        )
        require(
            not self.is_tuned or self.mode == "exact",
            f"tuning is for mode 'exact', got mode {self.mode!r}; leave --tune out",
        )
        require(
            0 <= self.least_driven_distance < float("inf"),
            f"least_driven_distance must be zero or a distance in units of the slow coordinates, got "
            f"{self.least_driven_distance}; try 0.5",
        )
        require(
            self.least_driven_distance == 0 or self.mode == "exact",
            f"least_driven_distance is for mode 'exact', got {self.least_driven_distance} in mode {self.mode!r}; leave "
            f"it out (--least-driven-distance)",
        )
        require(
            self.driving_timestep is None or self.driving_timestep > 0,
            f"driving_timestep must be positive, got {self.driving_timestep} ps; leave it out to drive at timestep",
        )
        require(self.jump_interval >= 1, f"jump_interval must be at least 1 step, got {self.jump_interval}")
        require(self.steps_per_report >= 1, f"report_interval must be at least 1 step, got {self.report_interval}")
        require(self.seed >= 1, f"seed must be at least 1, got {self.seed}; OpenMM takes 0 as `choose one`")
        require(self.trajectory_format in ("xtc", "dcd"), f"format must be xtc or dcd, got {self.trajectory_format!r}")
        require(
            self.timestep <= (0.0025 if self.hydrogen_mass is None else 0.005),
            f"timestep {self.timestep} ps is too long (it is in ps: 2 fs is 0.002); up to 0.005 with hydrogen_mass=3",
        )
        require(
            self.n_blocks >= 1,
            f"duration {self.duration} ps is shorter than one report interval of {self.steps_per_report} steps; "
            f"give a longer duration or a shorter report_interval",
        )

    @property
    def is_driven(self) -> bool:
        """Whether a restraint drives the jumps."""
        return self.mode == "exact" or self.realisation == "steer"

    @property
    def steps_per_report(self) -> int:
        """MD steps between two frames."""
        return self.jump_interval if self.report_interval is None else self.report_interval

    @property
    def n_blocks(self) -> int:
        """Frames of the whole run."""
        return int(self.duration / (self.timestep * self.steps_per_report) + 1e-6)


class HybridRun:
    """One run in one folder; made again with the same arguments, it goes on where it was saved.

    Parameters
    ----------
    bundle, top, out : path
        Model, structure (prepared if the force field does not cover it as it is), folder.
    config : HybridConfig
    platform : str or None
        None chooses (see `choose_platform`).
    name : str or None
        Of the files; None: that of the structure.
    system : path or None
        A System of exactly the structure's atoms, such as a complex's (see `read_system`), instead of amber14.
    """

    def __init__(
        self,
        bundle: Path,
        top: Path,
        out: Path,
        config: HybridConfig,
        platform: str | None = None,
        name: str | None = None,
        system: Path | None = None,
    ) -> None:
        config.check()
        require(
            system is None or config.hydrogen_mass is None,
            f"hydrogen_mass (--hydrogen-mass) {config.hydrogen_mass} is for Systems that are made here; leave it out, "
            f"and set masses in {system}",
        )
        require(system is None or system.is_file(), f"system file {system} does not exist; check the name (--system)")
        self.config, self.out, self.name, self.system_file = config, out, name or top.stem, system
        model = LatentModel(bundle)
        structure = self._structure(top)
        chosen, properties, self.platform_reason = choose_platform(platform, structure.topology.getNumAtoms())
        self.provenance = self._describe(bundle, top, model, chosen.getName())
        self._refuse_another_run()
        physics = self._system(structure.topology)
        if config.is_driven:
            model.addRestraint(physics, structure.topology)
        relaxation = openmm.LangevinMiddleIntegrator(
            config.temperature * unit.kelvin, config.friction / unit.picosecond, config.timestep * unit.picosecond
        )
        relaxation.setRandomNumberSeed(config.seed)
        integrator = model.createIntegrator(
            structure.topology,
            relaxation,
            jumpInterval=config.jump_interval,
            mode=config.mode,
            seed=config.seed,
            realisation="steer" if config.is_driven else "decode",
            drivenSteps=config.driven_steps,
            stepsPerPerturbation=config.steps_per_perturbation,
            sigma=config.sigma,
            drivingStepSize=config.driving_timestep,
            drivingFriction=config.driving_friction,
            drivenStepsPerDistance=config.driven_steps_per_distance,
            leastDrivenDistance=config.least_driven_distance,
        )
        self.simulation = app.Simulation(structure.topology, physics, integrator, chosen, properties)
        self.n_done = 0
        if self.path("resume").exists():
            self.n_done = load_point(self.path("resume"), self.simulation.context)["n_done"]
            self.simulation.currentStep = self.n_done * config.steps_per_report
        else:
            for output in self.outputs:
                output.unlink(missing_ok=True)
            self.simulation.context.setPositions(structure.positions)
            self.simulation.minimizeEnergy()
            self.simulation.context.setVelocitiesToTemperature(config.temperature * unit.kelvin, config.seed)
            if config.is_tuned:
                self._tune()
        self._add_reporters(model)

    def path(self, suffix: str) -> Path:
        """Return the file of this run with a suffix."""
        return self.out / f"{self.name}.{suffix}"

    @property
    def trajectory(self) -> Path:
        """The file of frames."""
        return self.path(self.config.trajectory_format)

    @property
    def outputs(self) -> list[Path]:
        """Files that grow with the run."""
        filled = [self.path("filled.xtc"), self.path("filled.csv")] if self.config.is_filled else []
        return [self.trajectory, self.path("csv"), self.path("latent.csv"), *filled]

    def run(
        self, progress: Callable[[int, int], None] | None = None, is_stopped: Callable[[], bool] = lambda: False
    ) -> dict[str, int]:
        """Run to the end and return the tally of jumps; on an interrupt, save and raise KeyboardInterrupt.

        Parameters
        ----------
        progress : callable, optional
            Told (frames done, frames of the whole run) after each frame.
        is_stopped : callable
            Asked after each frame; true interrupts, for a run outside the main thread, which no signal reaches.
        """
        last_save = monotonic()
        self.save()
        with DelayedInterrupt() as interrupt:
            while self.n_done < self.config.n_blocks:
                self._step()
                self.n_done += 1
                is_last = self.n_done == self.config.n_blocks
                # looked at once: whoever asks later than this stops after the next block
                is_asked = interrupt.is_asked or is_stopped()
                if is_asked or is_last or monotonic() - last_save > self.config.save_every:
                    self.save()
                    last_save = monotonic()
                if progress is not None:
                    progress(self.n_done, self.config.n_blocks)
                if is_asked and not is_last:
                    raise KeyboardInterrupt(f"saved after {self.n_done} of {self.config.n_blocks} frames in {self.out}")
        return self.tally()

    def tally(self) -> dict[str, int]:
        """Return the numbers of jumps tried and accepted, and refused by reason."""
        integrator = self.simulation.integrator
        refused = {f"refused: {reason}": n for reason, n in integrator.getRefusals().items() if n}
        return {"jumps": integrator.getNumJumps(), "accepted": integrator.getNumAccepted()} | refused

    def save(self) -> None:
        """Write the save point, then the provenance with the tally so far."""
        for reporter in self.simulation.reporters:
            if isinstance(reporter, FrameReporter):
                reporter.flush()
        save_point(self.path("resume"), self.simulation.context, self.outputs, {"n_done": self.n_done})
        facts = {"n_frames": self.n_done, "is_complete": self.n_done >= self.config.n_blocks, "jumps": self.tally()}
        write_whole(self.path("json"), (json.dumps(self.provenance | facts, indent=2) + "\n").encode())

    def _step(self) -> None:
        try:
            self.simulation.step(self.config.steps_per_report)
        except (openmm.OpenMMException, ValueError) as error:
            if isinstance(error, LatentError):
                raise
            raise LatentError(
                f"the run failed after {self.n_done} frames ({' '.join(str(error).split())}); give a shorter timestep "
                f"or another seed"
            ) from error

    def _tune(self) -> None:
        """Equilibrate, then tune; a run that goes on has its setting from the save point."""
        integrator = self.simulation.integrator
        integrator.step(self.config.jump_interval)
        tune_driving(self.simulation).write(self.path("tuning.json"))
        self.simulation.context.setTime(0)
        self.simulation.context.setStepCount(0)

    @property
    def _is_xml(self) -> bool:
        """Whether the System comes from an XML file, which says all of it."""
        return self.system_file is not None and self.system_file.suffix.lower() == ".xml"

    def _system(self, topology: app.Topology) -> openmm.System:
        """Return the System to run: amber14, or that of the user's file."""
        config, file = self.config, self.system_file
        if file is None:
            system = build_system(topology, config.solvent, hydrogen_mass=config.hydrogen_mass)
        else:
            system = read_system(file, topology, config.solvent)
        if config.solvent == "tip3p" and not self._is_xml:  # an XML is run as it is
            barostat = openmm.MonteCarloBarostat(config.pressure * unit.bar, config.temperature * unit.kelvin)
            barostat.setRandomNumberSeed(config.seed)
            system.addForce(barostat)
        return system

    def _structure(self, top: Path) -> app.PDBFile:
        """Return the structure to run, written into the folder by the first call."""
        kept = self.path("pdb")
        require(top.is_file(), f"structure file {top} does not exist; check the name given to top (--top)")
        require(
            not (kept.exists() and kept.samefile(top)),
            f"out (--out) {self.out} holds the input {top.name}, which would be overwritten; give another folder",
        )
        self.out.mkdir(parents=True, exist_ok=True)
        if not self.path("resume").exists():
            topology, positions = self._prepared(top)
            with open(kept, "w") as handle:
                app.PDBFile.writeFile(topology, positions * unit.nanometer, handle, keepIds=True)
        return app.PDBFile(str(kept))

    def _prepared(self, top: Path) -> tuple[app.Topology, Any]:
        """Return the structure that the force field covers, (n_atoms, 3) [nm]: as it is where the user has a System."""
        if self.system_file is None:
            made = prepare(top, solvent=self.config.solvent, seed=self.config.seed)
            return made.topology, made.positions
        topology, positions = load_topology(top)
        require(positions is not None, f"structure (--top) {top} has no positions; give a PDB or mmCIF file")
        return topology, positions

    def _describe(self, bundle: Path, top: Path, model: LatentModel, platform: str) -> dict[str, Any]:
        settings, file = asdict(self.config), self.system_file
        for key in ("save_every", "duration", "report_interval", "is_filled"):
            del settings[key]
        return settings | {
            "realisation": "steer" if self.config.is_driven else "decode",
            "frame_spacing": round(self.config.timestep * self.config.steps_per_report, 9),
            "frames_are": FRAMES[self.config.mode],
            "force_field": FORCE_FIELDS[self.config.solvent] if file is None else f"that of {file.name}",
            "solvent": f"that of {file.name}" if file is not None and self._is_xml else settings["solvent"],
            "system_sha256": None if file is None else hashlib.sha256(file.read_bytes()).hexdigest(),
            "integrator": "LatentIntegrator over LangevinMiddleIntegrator",
            "constraints": "the System's" if self._is_xml else "HBonds",
            "bundle": bundle.name,
            "bundle_sha256": model.manifest.sha256,
            "family": model.manifest.family,
            "lag_time": model.manifest.lag_time,
            "training_temperature": model.manifest.temperature,
            "input": top.name,
            "input_sha256": hashlib.sha256(top.read_bytes()).hexdigest(),
            "platform": platform,
            "openmm_version": openmm.version.version,
            "code_version": __version__,
        }

    def _refuse_another_run(self) -> None:
        if not (self.path("resume").exists() and self.path("json").exists()):
            return
        before = asdict(HybridConfig(self.config.temperature)) | json.loads(self.path("json").read_text())
        for key, value in self.provenance.items():
            require(
                before.get(key) == value or key in ("code_version", "openmm_version"),
                f"folder {self.out} holds a run with {key} {before.get(key)!r}, and {value!r} is asked for; give "
                f"another folder (--out) or the same {key}",
            )

    def _add_reporters(self, model: LatentModel) -> None:
        steps = self.config.steps_per_report
        state_data, latent = self.path("csv"), self.path("latent.csv")
        self.simulation.reporters += [
            FrameReporter(self.trajectory, steps),
            app.StateDataReporter(
                str(state_data),
                steps,
                step=True,
                time=True,
                potentialEnergy=True,
                kineticEnergy=True,
                temperature=True,
                append=state_data.exists(),
            ),
            LatentReporter(str(latent), steps, model, append=latent.exists()),
        ]
        if self.config.is_filled:
            filled = self.path("filled.xtc")
            self.simulation.reporters.append(FilledTrajectoryReporter(filled, model, append=filled.exists()))


class FrameReporter:
    """Write XTC or DCD frames whose time stamps go on after a restart.

    OpenMM's own reporters count an appended file's first frame from the step at which they were made.
    """

    def __init__(self, path: Path, interval: int) -> None:
        self._path, self._interval = path, interval
        self._writer: Any = None
        self._handle: Any = None

    def describeNextReport(self, simulation: app.Simulation) -> dict[str, Any]:
        """Ask for positions every `interval` steps."""
        steps = self._interval - simulation.currentStep % self._interval
        return {"steps": steps, "periodic": False, "include": ["positions"]}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Write one frame."""
        if self._writer is None:
            self._open(simulation)
        self._writer.writeModel(state.getPositions(asNumpy=True), periodicBoxVectors=state.getPeriodicBoxVectors())

    def flush(self) -> None:
        """Bring everything to disk."""
        if self._handle is not None:
            self._handle.flush()

    def _open(self, simulation: app.Simulation) -> None:
        has_frames = self._path.exists() and self._path.stat().st_size > 0
        settings = (
            simulation.topology,
            simulation.integrator.getStepSize(),
            self._interval,
            self._interval,
            has_frames,
        )
        if self._path.suffix == ".xtc":
            self._writer = app.XTCFile(str(self._path), *settings)
        else:
            self._handle = open(self._path, "r+b" if has_frames else "w+b")  # noqa: SIM115
            self._writer = app.DCDFile(self._handle, *settings)

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self._handle.close()
