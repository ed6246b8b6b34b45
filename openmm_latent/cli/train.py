"""`openmm-latent train FAMILY`: trajectories into a bundle, or into the weights of a transferable family."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from openmm_latent.cli.common import Command, Group, LigandOption, SeedOption, TopOption, TrajOption, progress_bar
from openmm_latent.errors import require

if TYPE_CHECKING:
    import openmm

    from openmm_latent.data.datasets import DataSet

#: Options that families share.
ConfigOption = Annotated[str, typer.Option(help="Size of the model: tiny (minutes on two cores) or paper.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
FrameSpacingOption = Annotated[
    float | None, typer.Option(help="[ps], for files that store no time.", show_default="read from the files")
]
WorkOption = Annotated[Path | None, typer.Option(help="Folder for checkpoints.", show_default="OUT.work")]
ResumeOption = Annotated[bool, typer.Option(help="Go on from the checkpoints of an interrupted training.")]
DataOption = Annotated[
    Path, typer.Option(help="Data set of proteins: ATLAS, mdCATH, or a folder with one folder of PDB and runs each.")
]
TemperatureOption = Annotated[float | None, typer.Option(help="[K] Only runs at this one.", show_default="all")]
StrideOption = Annotated[int, typer.Option(help="Learn from every n-th frame.")]
LeaveOutOption = Annotated[
    bool, typer.Option("--leave-out", help="Leave ligands and modified residues out, instead of refusing.")
]
ValidationOption = Annotated[
    float, typer.Option(help="Share of the data set kept apart, to keep the weights best on it; 0 for none.")
]

train_app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Train a model on trajectories; write it as a bundle, or as weights to bind to proteins.",
)


@train_app.callback()
def train() -> None:
    """Train a model on trajectories; write it as a bundle, or as weights to bind to proteins."""


@train_app.command(cls=Command)
def gldp(
    top: TopOption,
    traj: TrajOption,
    lag_time: Annotated[float, typer.Option(help="[ps] that one jump covers: a multiple of the frame spacing.")],
    out: Annotated[Path, typer.Option(help="The bundle to write, e.g. peptide.latent.pt.")],
    config: ConfigOption = "tiny",
    propagator: Annotated[
        str, typer.Option(help="autoregressive, koopman or langevin; the autoencoder is trained once for all three.")
    ] = "autoregressive",
    seed: SeedOption = 1,
    device: DeviceOption = "auto",
    devices: Annotated[int, typer.Option(help="GPUs of this machine (with --device cpu, processes).")] = 1,
    nodes: Annotated[int, typer.Option(help="Machines, each started by torchrun or Slurm.")] = 1,
    frame_spacing: FrameSpacingOption = None,
    stride: Annotated[int, typer.Option(help="Train on every n-th frame.")] = 1,
    slow: Annotated[int, typer.Option(help="Slow coordinates, on which restraints and the exact mode work.")] = 2,
    slow_method: Annotated[str, typer.Option(help="tica, or vamp for data out of equilibrium.")] = "tica",
    slow_features: Annotated[
        str,
        typer.Option(
            help="What they are made of: torsions, angles, backbone (angles phi and psi), latent, or auto (torsions up "
            "to 200 of them)."
        ),
    ] = "auto",
    proposal: Annotated[
        str, typer.Option(help="What the exact mode proposes: lag (one lag time away), independence or both.")
    ] = "both",
    flattening: Annotated[
        float, typer.Option(help="Of the independence kernel: 0 proposes as the data lies, 1 all of its range alike.")
    ] = 0.5,
    work: WorkOption = None,
    resume: ResumeOption = True,
) -> None:
    """Train GLDP: a graph autoencoder of one molecule and a propagator in its latent space.

    **Examples**

    - `openmm-latent train gldp --top md/peptide.pdb --traj md/peptide_*.xtc --lag-time 10 --out peptide.latent.pt`

    - `openmm-latent train gldp --top top.prmtop --traj run1.nc run2.nc --lag-time 100 --out m.latent.pt --config paper
      --propagator koopman --device cuda`
    """
    from openmm_latent.data.trajectories import load_trajectories
    from openmm_latent.propagators.proposal import KERNELS, ProposalConfig
    from openmm_latent.training import train_gldp

    kernels = {**{name: (name,) for name in KERNELS}, "both": KERNELS}
    require(proposal in kernels, f"proposal (--proposal) must be one of {', '.join(kernels)}, got {proposal!r}")
    proposal_config = ProposalConfig(kernels=kernels[proposal], flattening=flattening)

    trajectories = load_trajectories(top, traj, stride=stride, frame_spacing=frame_spacing)
    trajectories.lag_pairs(lag_time)  # a wrong lag time is told before anything is trained
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{trajectories.n_frames} frames of {len(trajectories.model_atoms)} model atoms from {len(traj)} files, "
        f"{trajectories.frame_spacing:g} ps apart"
    )
    train_gldp(
        trajectories,
        lag_time=lag_time,
        config=config,
        propagator=propagator,
        out=out,
        work_directory=work,
        seed=seed,
        device=device,
        devices=devices,
        nodes=nodes,
        resume=resume,
        progress=True,
        n_slow=slow,
        slow_method=slow_method,
        slow_features=slow_features,
        proposal_config=proposal_config,
    )
    console.print(f"wrote {out}\nnext: openmm-latent simulate {out} --top {top} --out hybrid", markup=False)


@train_app.command(cls=Command)
def dynaprot(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="The weights to write, e.g. protein.weights.pt.")],
    config: ConfigOption = "tiny",
    loss: Annotated[str, typer.Option(help="log_frobenius, or mse for comparison.")] = "log_frobenius",
    validation: Annotated[
        float, typer.Option(help="Share of the proteins kept apart, to stop when they get no better; 0 trains on all.")
    ] = 0.0,
    temperature: TemperatureOption = None,
    stride: StrideOption = 1,
    frame_spacing: FrameSpacingOption = None,
    seed: SeedOption = 1,
    device: DeviceOption = "auto",
) -> None:
    """Train DynaProt: from one structure of any protein to how its residues fluctuate.

    **Examples**

    - `openmm-latent train dynaprot --data proteins/ --out protein.weights.pt`

    - `openmm-latent train dynaprot --data atlas/ --out atlas.weights.pt --config paper --validation 0.05 --device cuda`
    """
    from openmm_latent.data.datasets import data_facts
    from openmm_latent.data.fluctuations import read_examples
    from openmm_latent.data.recognise import open_dataset
    from openmm_latent.training.dynaprot import train_dynaprot

    dataset = open_dataset(data, frame_spacing=frame_spacing)
    parts = _split(dataset, validation, seed)
    taught, *apart = ([*read_examples(part, temperature=temperature, stride=stride)] for part in parts)
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{len(taught)} proteins of {min(map(len, taught))} to {max(map(len, taught))} residues to learn from, "
        f"{len(apart[0]) if apart else 0} kept apart"
    )
    with progress_bar() as bar:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int, mean_loss: float) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done, description=f"{name} network, loss {mean_loss:.3g}")

        train_dynaprot(
            taught,
            config=config,
            loss=loss,
            validation=apart[0] if apart else (),
            out=out,
            seed=seed,
            device=device,
            progress=show,
            facts=data_facts(dataset, temperature),
        )
    console.print(
        f"wrote {out}\nnext: openmm-latent flexibility PROTEIN --model {out}, or openmm-latent bind {out} --top "
        f"PROTEIN --out protein.latent.pt",
        markup=False,
    )


@train_app.command(cls=Command)
def codlad(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="The weights to write, e.g. codlad.weights.pt.")],
    config: ConfigOption = "tiny",
    validation: ValidationOption = 0.0,
    temperature: TemperatureOption = None,
    stride: StrideOption = 1,
    leave_out: LeaveOutOption = False,
    epochs: Annotated[int | None, typer.Option(help="Of the autoencoder.", show_default="the configuration's")] = None,
    steps: Annotated[int | None, typer.Option(help="Of the denoiser.", show_default="the configuration's")] = None,
    seed: SeedOption = 1,
    device: DeviceOption = "auto",
    work: WorkOption = None,
    resume: ResumeOption = True,
) -> None:
    """Train CODLAD: from a Cα trace of any protein to all its heavy atoms.

    **Examples**

    - `openmm-latent train codlad --data proteins/ --out codlad.weights.pt`

    - `openmm-latent train codlad --data atlas/ --out atlas.weights.pt --config paper --validation 0.05 --device cuda`
    """
    from openmm_latent.data.datasets import data_facts
    from openmm_latent.data.recognise import open_dataset
    from openmm_latent.data.residue_slots import read_protein_frames
    from openmm_latent.training.codlad_diffusion import train_codlad

    require(out.parent.is_dir(), f"out (--out): the folder '{out.parent}' does not exist; create it first")
    dataset = open_dataset(data)
    parts = _split(dataset, validation, seed)
    others = "leave out" if leave_out else "refuse"
    taught, *apart = (
        read_protein_frames(part, temperature=temperature, stride=stride, others=others) for part in parts
    )
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{sum(map(len, taught))} frames of {len(taught)} proteins to learn from, {len(apart[0]) if apart else 0} "
        f"proteins kept apart"
    )
    with progress_bar() as bar:
        train_codlad(
            taught,
            config=config,
            validation=apart[0] if apart else (),
            out=out,
            work_directory=out.with_name(out.name + ".work") if work is None else work,
            n_epochs=epochs,
            n_steps=steps,
            seed=seed,
            device=device,
            resume=resume,
            progress={name: _shown(bar, name) for name in ("autoencoder", "denoiser")},
            facts=data_facts(dataset, temperature),
        )
    console.print(
        f"wrote {out}\nnext: openmm-latent backmap --trace CA.pdb --model {out} --out all_atom.pdb, or openmm-latent "
        f"bind {out} --top PROTEIN --out protein.latent.pt",
        markup=False,
    )


@train_app.command(cls=Command)
def confrover(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="The weights to write, e.g. confrover.weights.pt.")],
    config: ConfigOption = "tiny",
    objectives: Annotated[
        str, typer.Option(help="Comma-separated: trajectory, single, interpolation; in equal shares.")
    ] = "trajectory,single,interpolation",
    start: Annotated[
        Path | None, typer.Option(help="Weights to go on from, of the same config.", show_default="random ones")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help="Folder with a folding network's features, PROTEIN.npz each; `paper` needs them.", show_default="none"
        ),
    ] = None,
    validation: ValidationOption = 0.0,
    temperature: TemperatureOption = None,
    stride: Annotated[int, typer.Option(help="Read every n-th frame; windows stride further, at random.")] = 1,
    frame_spacing: FrameSpacingOption = None,
    leave_out: LeaveOutOption = False,
    steps: Annotated[int | None, typer.Option(help="Training steps.", show_default="the configuration's")] = None,
    seed: SeedOption = 1,
    device: DeviceOption = "auto",
    work: WorkOption = None,
    resume: ResumeOption = True,
) -> None:
    """Train ConfRover: from frames of any protein to the next ones, to independent ones, and to those between two.

    **Examples**

    - `openmm-latent train confrover --data proteins/ --out confrover.weights.pt`

    - `openmm-latent train confrover --data atlas/ --out atlas.weights.pt --config paper --features openfold/
      --objectives trajectory,single --device cuda`
    """
    from openmm_latent.data.datasets import data_facts
    from openmm_latent.data.frame_windows import read_protein_runs
    from openmm_latent.data.recognise import open_dataset
    from openmm_latent.models.confrover import load_weights
    from openmm_latent.models.confrover.features import read_features
    from openmm_latent.training.confrover import train_confrover

    require(out.parent.is_dir(), f"out (--out): the folder '{out.parent}' does not exist; create it first")
    begun = None if start is None else load_weights(start)[0]
    dataset = open_dataset(data, frame_spacing=frame_spacing)
    others = "leave out" if leave_out else "refuse"
    taught, *apart = (
        read_protein_runs(part, temperature=temperature, stride=stride, others=others)
        for part in _split(dataset, validation, seed)
    )
    every = [*taught, *(apart[0] if apart else [])]
    read = {one.name: read_features(features / f"{one.name}.npz", one.residues) for one in every if features}
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{sum(one.n_frames for one in taught)} frames of {len(taught)} proteins to learn from, "
        f"{len(apart[0]) if apart else 0} proteins kept apart"
    )
    with progress_bar() as bar:
        train_confrover(
            taught,
            config=config if begun is None else begun.config,
            objectives=[name.strip() for name in objectives.split(",")],
            validation=apart[0] if apart else (),
            start=begun,
            features=read,
            out=out,
            work_directory=out.with_name(out.name + ".work") if work is None else work,
            n_steps=steps,
            seed=seed,
            device=device,
            resume=resume,
            progress=_shown(bar, "training"),
            facts=data_facts(dataset, temperature),
        )
    console.print(f"wrote {out}\nnext: openmm-latent bind {out} --top PROTEIN --out protein.latent.pt", markup=False)


@train_app.command(cls=Command)
def atmos(
    data: DataOption,
    lag_time: Annotated[float, typer.Option(help="[ps] between key frames: a multiple of the frame spacing.")],
    out: Annotated[Path, typer.Option(help="The weights to write, e.g. atmos.weights.pt.")],
    config: ConfigOption = "tiny",
    upsampling: Annotated[
        int | None,
        typer.Option(
            help="Steps of the interpolator in a lag time; 1 trains none.", show_default="the configuration's"
        ),
    ] = None,
    turns: Annotated[
        bool, typer.Option("--turns", help="Turn frames at random, so that weights know complexes they never saw.")
    ] = False,
    features: Annotated[
        Path | None,
        typer.Option(help="Folder with another model's trunk features, COMPLEX.npz each.", show_default="none"),
    ] = None,
    ligand: LigandOption = None,
    system: Annotated[
        Path | None,
        typer.Option(
            help="System whose charges the model sees, .xml or Amber .prmtop; for several complexes a folder with one "
            "each, COMPLEX.xml.",
            show_default="formal charges",
        ),
    ] = None,
    validation: ValidationOption = 0.0,
    temperature: TemperatureOption = None,
    stride: StrideOption = 1,
    frame_spacing: FrameSpacingOption = None,
    steps: Annotated[int | None, typer.Option(help="Of each network.", show_default="the configuration's")] = None,
    seed: SeedOption = 1,
    device: DeviceOption = "auto",
    work: WorkOption = None,
    resume: ResumeOption = True,
) -> None:
    """Train ATMOS: from frames of a protein or complex, ligands included, to the next ones, with memory.

    **Examples**

    - `openmm-latent train atmos --data complexes/ --lag-time 100 --out complex.weights.pt`

    - `openmm-latent train atmos --data complex/ --lag-time 100 --ligand ligand.sdf --system complex.xml --out
      complex.weights.pt`

    - `openmm-latent train atmos --data misato.hdf5 --lag-time 800 --upsampling 10 --turns --out misato.weights.pt
      --config paper --device cuda`
    """
    from dataclasses import replace

    from openmm_latent.data.complex_files import describe_tokens
    from openmm_latent.data.complex_frames import read_complex_frames
    from openmm_latent.data.datasets import data_facts
    from openmm_latent.data.recognise import open_dataset
    from openmm_latent.data.trunk_features import read_trunk_features
    from openmm_latent.models.atmos import CONFIGS
    from openmm_latent.training.atmos import STAGES, train_atmos

    require(out.parent.is_dir(), f"out (--out): the folder '{out.parent}' does not exist; create it first")
    require(config in CONFIGS, f"config (--config) must be one of {', '.join(CONFIGS)}, got {config!r}")
    dataset = open_dataset(data, frame_spacing=frame_spacing)
    systems = {} if system is None else _systems(dataset, system)
    read = read_complex_frames(dataset, temperature=temperature, stride=stride, ligands=ligand or (), systems=systems)
    by_name = {one.name: one for one in read}
    taught, *apart = ([by_name[name] for name in part.names] for part in _split(dataset, validation, seed))
    chosen = replace(CONFIGS[config], turns=turns or CONFIGS[config].turns)
    chosen = chosen if upsampling is None else replace(chosen, upsampling=upsampling)
    if features is not None:
        taught, *apart = (
            [replace(one, trunk=read_trunk_features(features / f"{one.name}.npz", one.tokens)) for one in part]
            for part in (taught, *apart)
        )
        assert taught[0].trunk is not None  # for mypy: read just now
        single, pair = taught[0].trunk
        chosen = replace(chosen, n_trunk_single=single.shape[1], n_trunk_pair=pair.shape[2])
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{sum(map(len, taught))} frames of {len(taught)} complexes to learn from, {len(apart[0]) if apart else 0} "
        f"complexes kept apart\n{taught[0].name}: {describe_tokens(taught[0].tokens)}"
    )
    with progress_bar() as bar:
        train_atmos(
            taught,
            lag_time=lag_time,
            config=chosen,
            validation=apart[0] if apart else (),
            out=out,
            work_directory=out.with_name(out.name + ".work") if work is None else work,
            n_steps=steps,
            seed=seed,
            device=device,
            resume=resume,
            progress={name: _shown(bar, name) for name in STAGES},
            facts=data_facts(dataset, temperature),
        )
    told = "".join(f" --ligand {path}" for path in ligand or ()) + ("" if system is None else " --system SYSTEM")
    next_one = f"openmm-latent bind {out} --top COMPLEX{told} --out complex.latent.pt"
    console.print(f"wrote {out}\nnext: {next_one}", markup=False)


def _systems(dataset: DataSet, path: Path) -> dict[str, openmm.System]:
    """Read the System of each complex, from a folder of files or the one file of a single complex."""
    from openmm_latent.data.complex_files import PRMTOP, read_system

    if not path.is_dir():
        require(
            len(dataset.names) == 1,
            f"system (--system) {path} is one file for {len(dataset.names)} complexes; give a folder with one each, "
            f"named {dataset.names[0]}.xml",
        )
        return {name: read_system(path, dataset[name].topology) for name in dataset.names}
    files = {name: [path / f"{name}{suffix}" for suffix in (".xml", *PRMTOP)] for name in dataset.names}
    found = {name: next((file for file in each if file.is_file()), each[0]) for name, each in files.items()}
    return {name: read_system(file, dataset[name].topology) for name, file in found.items()}


def _shown(bar: Progress, name: str) -> Callable[[int, int, float, float], None]:
    """Return what a training stage tells its progress to; its line appears with the first word."""
    tasks: list[TaskID] = []

    def show(done: int, total: int, loss: float, judged: float) -> None:
        if not tasks:
            tasks.append(bar.add_task(name, total=total))
        apart = "" if math.isnan(judged) else f", apart {judged:.3g}"  # nan: nothing is kept apart
        bar.update(tasks[0], completed=done, description=f"{name}, loss {loss:.3g}{apart}")

    return show


def _split(dataset: DataSet, validation: float, seed: int) -> tuple[DataSet, ...]:
    """Return the proteins to learn from and, where `validation` is a share of them, those that are kept apart."""
    from openmm_latent.data.splits import split_at_random

    require(
        0.0 <= validation < 1.0,
        f"validation (--validation) must be a share of the proteins from 0 to 1, got {validation}; 0.1 is usual",
    )
    return split_at_random(dataset, (1.0 - validation, validation), seed=seed) if validation > 0 else (dataset,)
