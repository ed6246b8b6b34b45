"""What a restraint costs each step: without it, with it at k = 0, and with it at k > 0, on the Reference platform.

The bar: at k = 0 at most 500 ns a step. It is measured where nothing hides it, on a System of 22 particles without any
other force, and shown beside alanine dipeptide in implicit solvent under the bundle of the examples.
`python benchmarks/restraint_cost.py`
"""

import argparse
import copy
import time
from pathlib import Path

import numpy as np
import openmm as mm
import torch
from openmm import app, unit
from results import write_results

from openmm_latent import LatentModel
from openmm_latent.data.forcefields import build_system

DATA = Path(__file__).parents[1] / "examples" / "data"
BAR_NANOSECONDS = 500


def free_particles(system: mm.System) -> mm.System:
    """The same particles, and nothing else."""
    bare = mm.System()
    for i in range(system.getNumParticles()):
        bare.addParticle(system.getParticleMass(i))
    return bare


def contexts_of(model, topology, system, positions, platform):
    """One Context each without the restraint, with it at k = 0, and with it at k > 0."""
    contexts = {}
    for case in ("without", "k = 0", "k > 0"):
        own = copy.deepcopy(system)
        force = model.addRestraint(own, topology) if case != "without" else None
        contexts[case] = mm.Context(own, mm.VerletIntegrator(1e-5), platform)
        contexts[case].setPositions(positions)
        if case == "k > 0":
            for i, slow in enumerate(force.getSlow(contexts[case])):
                contexts[case].setParameter(force.getTargetParameter(i), slow + 0.1)
            contexts[case].setParameter(force.getStiffnessParameter(), 1.0)
    return contexts


def time_steps(contexts, n_steps, n_repeats):
    """CPU nanoseconds a step, (n_repeats,), of each case; interleaved, so that the machine's drift meets all."""
    nanoseconds = {case: [] for case in contexts}
    for repeat in range(n_repeats + 1):
        for case, context in contexts.items():
            start = time.process_time_ns()
            context.getIntegrator().step(n_steps[case])
            if repeat > 0:  # the first warms up
                nanoseconds[case].append((time.process_time_ns() - start) / n_steps[case])
    return {case: np.array(values) for case, values in nanoseconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--platform", default="Reference")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pdb = app.PDBFile(str(DATA / "adp.pdb"))
    positions = np.array(pdb.positions.value_in_unit(unit.nanometer))
    model = LatentModel(DATA / "adp.latent.pt")
    platform = mm.Platform.getPlatformByName(arguments.platform)
    solvated = build_system(pdb.topology)
    report = {}
    for name, system, scale in (("bare", free_particles(solvated), 20), ("adp_obc2", solvated, 1)):
        contexts = contexts_of(model, pdb.topology, system, positions, platform)
        steps = {"without": 500 * scale, "k = 0": 500 * scale, "k > 0": 200}
        nanoseconds = time_steps(contexts, steps, arguments.repeats)
        report[name] = {
            case: [round(float(np.quantile(values, q)), 1) for q in (0.25, 0.5, 0.75)]
            for case, values in nanoseconds.items()
        }
        for case, (low, median, high) in report[name].items():
            print(f"{name:9s} {case:8s} median {median:12.1f} ns a step   quartiles {low:12.1f} .. {high:12.1f}")
    overhead = report["bare"]["k = 0"][1] - report["bare"]["without"][1]
    verdict = "met" if overhead <= BAR_NANOSECONDS else "NOT met"
    print(f"at k = 0: {overhead:.0f} ns a step, bar {BAR_NANOSECONDS}: {verdict}")
    write_results(
        "restraint_cost",
        {
            "cpu_nanoseconds_per_step_quartiles": report,
            "overhead_at_k_0_nanoseconds": round(overhead, 1),
            "bar_nanoseconds": BAR_NANOSECONDS,
            "n_slow": model.manifest.n_slow,
            **vars(arguments),
        },
    )


if __name__ == "__main__":
    main()
