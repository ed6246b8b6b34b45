"""Several candidates in one module call: the first that passes is taken, with its own noise and its own memory."""

import copy
import csv
import pickle
import struct
from typing import List, Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import openmm as mm
import pytest
from openmm import app, unit
from torch import Tensor

import toys
from openmm_latent import LatentError, LatentIntegrator, LatentModel, LatentReporter
from platforms import PLATFORMS, get_platform, tolerance

HEAVY, SIZE, CUT = 10, 0.002, 0.4
NO_MINIMISATION = {"maxMinimizerIterations": 0}


class Choosy(toys.Shake):
    """Shakes, but gives NaN where the first number of the noise is below CUT; remembers that number."""

    def __init__(self, n_atoms: int, size: float, cut: float) -> None:
        super().__init__(n_atoms, size)
        self.cut = cut

    def initial_state(self, positions: Tensor) -> List[Tensor]:  # noqa: UP006
        """One number a frame."""
        return [positions[:, 0, :1] * 0.0]

    def jump(self, positions: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Shake or break."""
        bad = (noise[:, :1] < self.cut).unsqueeze(2)
        moved = positions + self.size * noise.reshape(positions.shape)
        return moved.masked_fill(bad, float("nan")), [noise[:, :1] * 1.0]


class Reckless(Choosy):
    """The same, but shakes a hundred times as much instead of NaN: for the guard to refuse."""

    def jump(self, positions: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Shake a little or much."""
        bad = (noise[:, :1] < self.cut).unsqueeze(2).float()
        moved = positions + self.size * (1.0 + 99.0 * bad) * noise.reshape(positions.shape)
        return moved, [noise[:, :1] * 1.0]


def philox(seed, number, candidate, n_numbers):
    """Philox4x32-10 (Salmon et al., SC11) and Box-Muller: the noise of a candidate, (n_numbers,) float32."""
    key_start = np.array([seed & 0xFFFFFFFF, 0], dtype=np.uint64)
    numbers = []
    for i in range(n_numbers):
        offset = (candidate << 40) + i
        c = [offset & 0xFFFFFFFF, offset >> 32, number & 0xFFFFFFFF, number >> 32]
        k = [int(key_start[0]), int(key_start[1])]
        for _ in range(10):
            first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [
                (second >> 32) ^ c[1] ^ k[0],
                second & 0xFFFFFFFF,
                (first >> 32) ^ c[3] ^ k[1],
                first & 0xFFFFFFFF,
            ]
            k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
        u = [np.float32(1) - np.float32((word & 0x7FFFFFFF) * np.float32(4.6566127342e-10)) for word in c[:2]]
        numbers.append(np.sqrt(-2 * np.log(float(u[0]))) * np.cos(2 * np.pi * float(u[1])))
    return np.array(numbers, dtype=np.float32)


@pytest.fixture(scope="module")
def adp():
    return toys.load_adp()


@pytest.fixture(scope="module")
def simulate(tmp_path_factory, adp):
    """Return a function that makes a Simulation of alanine dipeptide, without constraints, around a toy module."""
    topology, positions = adp
    folder = tmp_path_factory.mktemp("toys")
    system = toys.adp_system(topology, constraints=None)

    def make(module, platform="Reference", **arguments):
        path = folder / f"{type(module).__name__}{getattr(module, 'cut', '')}.latent.pt"
        if not path.exists():
            toys.export_toy(module, path, topology, positions)
        arguments = {"jumpInterval": 10, "seed": 3, "thresholds": NO_MINIMISATION} | arguments
        integrator = LatentModel(path).createIntegrator(topology, toys.langevin(), **arguments)
        simulation = app.Simulation(topology, system, integrator, *get_platform(platform))
        simulation.context.setPositions(positions)
        simulation.context.setVelocitiesToTemperature(300, 7)
        return simulation

    return make


def positions_of(simulation):
    return simulation.context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)


def velocities_of(simulation):
    return simulation.context.getState(velocities=True).getVelocities(asNumpy=True)._value


def memory_of(simulation):
    xml = mm.XmlSerializer.serialize(simulation.context.getState(integratorParameters=True))
    return xml[xml.index("<ModelStates>") : xml.index("</ModelStates>")]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_first_candidate_that_passes_is_taken_with_its_noise_and_its_memory(simulate, adp, platform):
    heavy = toys.heavy_atoms(adp[0])
    simulation = simulate(Choosy(HEAVY, SIZE, CUT), platform, mode="exploratory", nProposals=3)
    tried = []
    for number in range(1, 9):
        noise = [philox(3, number, candidate, 3 * HEAVY) for candidate in range(3)]
        passing = [i for i in range(3) if noise[i][0] >= CUT]
        before = positions_of(simulation)
        assert simulation.integrator.jump() == bool(passing)
        record = simulation.integrator.getJumpRecords(number - 1)[0]
        tried.append(record.candidates)
        if not passing:
            assert (record.candidates, record.reason) == (3, "nan")
            np.testing.assert_array_equal(positions_of(simulation), before)
            continue
        assert (record.candidates, record.reason) == (passing[0] + 1, "")
        moved = (positions_of(simulation) - before)[heavy]
        np.testing.assert_allclose(moved, SIZE * noise[passing[0]].reshape(-1, 3), atol=2 * tolerance(platform))
        # The memory's own bits: the float32 number as the state's bytes hold it, to one unit in the last place.
        last = np.float32(noise[passing[0]][0])
        bits = [struct.pack("<f", np.nextafter(last, np.float32(to))).hex() for to in (-9, last, 9)]
        assert any(word in memory_of(simulation) for word in bits)
    assert set(tried) == {1, 2, 3}, "the seed shows every case"


@pytest.mark.parametrize("platform", PLATFORMS)
def test_when_all_are_refused_everything_is_restored_bit_for_bit(simulate, platform):
    simulation = simulate(Reckless(HEAVY, SIZE, 99.0), platform, nProposals=4)
    simulation.step(3)
    before = positions_of(simulation), velocities_of(simulation), memory_of(simulation)
    assert not simulation.integrator.jump()
    np.testing.assert_array_equal(positions_of(simulation), before[0])
    np.testing.assert_array_equal(velocities_of(simulation), before[1])
    assert memory_of(simulation) == before[2]
    (record,) = simulation.integrator.getJumpRecords(0)
    assert record.candidates == 4
    # One jump, one refusal, for the last candidate's reason.
    assert {reason: n for reason, n in simulation.integrator.getRefusals().items() if n} == {record.reason: 1}
    assert simulation.integrator.getNumAccepted() == 0


def test_one_proposal_and_the_first_of_several_are_the_same_jump_bit_for_bit(simulate):
    ends = []
    for n_proposals in (1, 5):
        simulation = simulate(toys.Counter(HEAVY, SIZE), nProposals=n_proposals, thresholds={})
        simulation.step(35)
        assert [record.candidates for record in simulation.integrator.getJumpRecords(0)] == [1, 1, 1]
        ends.append((positions_of(simulation), velocities_of(simulation), memory_of(simulation)))
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    np.testing.assert_array_equal(ends[0][1], ends[1][1])
    assert ends[0][2] == ends[1][2]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_refused_candidate_leaves_no_trace_in_the_next(simulate, platform):
    """Refused by the guard after it was minimised, or for a NaN before anything moved: what follows is the same."""
    ends = []
    for toy in (Choosy, Reckless):
        simulation = simulate(toy(HEAVY, SIZE, CUT), platform, nProposals=4, thresholds={"maxMinimizerIterations": 10})
        for _ in range(4):
            simulation.integrator.jump()
        ends.append(positions_of(simulation))
        candidates = [record.candidates for record in simulation.integrator.getJumpRecords(0)]
        assert max(candidates) > 1
    np.testing.assert_allclose(ends[0], ends[1], atol=0 if platform == "Reference" else 10 * tolerance(platform))


def test_a_module_that_fails_on_several_leaves_the_context_usable(simulate):
    simulation = simulate(toys.Failing(HEAVY, 0.0), nProposals=3)
    before = positions_of(simulation)
    with pytest.raises(mm.OpenMMException, match=r"bundle 'Failing.latent.pt' failed in jump: the toy fails on"):
        simulation.integrator.jump()
    np.testing.assert_array_equal(positions_of(simulation), before)
    simulation.integrator.setJumpInterval(1000)
    simulation.step(5)


class Forgetful(Choosy):
    """Has a memory of one row, however many frames come."""

    def initial_state(self, positions: Tensor) -> List[Tensor]:  # noqa: UP006
        """One number."""
        return [positions[:1, 0, :1] * 0.0]

    def jump(self, positions: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Stay."""
        return positions * 1.0, [noise[:1, :1] * 1.0]


def test_a_memory_that_is_not_batch_first_is_named(simulate):
    simulation = simulate(Forgetful(HEAVY, SIZE, CUT), nProposals=2)
    with pytest.raises(mm.OpenMMException, match="jump of 2 frames must return a state of as many rows"):
        simulation.integrator.jump()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"nProposals": 0}, "nProposals must be a whole number of frames, at least 1, got 0"),
        ({"nProposals": 1.5}, "nProposals must be a whole number of frames, at least 1, got 1.5"),
        ({"nProposals": 4, "mode": "exact"}, "in exact mode taking the first accepted of several would bias"),
        ({"nProposals": 4, "realisation": "steer"}, "nProposals must be 1 when jumps are driven, got 4"),
    ],
    ids=str,
)
def test_arguments_that_are_refused(simulate, arguments, sentence):
    with pytest.raises(LatentError, match=sentence):
        simulate(toys.Identity(HEAVY), **arguments)


def test_settings_that_are_refused(simulate):
    integrator = simulate(toys.Identity(HEAVY), nProposals=2).integrator
    bare = LatentIntegrator(toys.langevin(), 5)
    with pytest.raises(mm.OpenMMException, match="nProposals must be at least 1, got 0"):
        integrator.setNumProposals(0)
    bare.setNumProposals(2)
    with pytest.raises(mm.OpenMMException, match=r"nProposals must be 1 in mode 'exact', got 2: .* would bias"):
        bare.setMode(LatentIntegrator.Exact)
    with pytest.raises(mm.OpenMMException, match="nProposals must be 1 with realisation 'steer', got 2"):
        bare.setRealisation(LatentIntegrator.Steer)
    assert bare.getMode() == LatentIntegrator.Guarded
    bare.setNumProposals(1)
    bare.setMode(LatentIntegrator.Exact)
    with pytest.raises(mm.OpenMMException, match="nProposals must be 1 in mode 'exact', got 3"):
        bare.setNumProposals(3)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda integrator: pickle.loads(pickle.dumps(integrator))])
def test_copies_carry_it(simulate, clone):
    assert clone(simulate(toys.Identity(HEAVY), nProposals=6).integrator).getNumProposals() == 6


def test_an_integrator_of_the_version_before_is_read(simulate):
    given = simulate(toys.Identity(HEAVY), drivenStepsPerDistance=60.0).integrator
    given.setDriving(leastDrivenDistance=0.5)
    older = mm.XmlSerializer.serialize(given)
    changes = {'type="LatentIntegrator" version="5"': 'type="LatentIntegrator" version="2"'}
    changes |= dict.fromkeys((' numProposals="1"', ' stepsPerDistance="60"', ' leastDistance=".5"'), "")
    for old, new in changes.items():
        assert older.count(old) == 1
        older = older.replace(old, new)
    read = LatentIntegrator._adopt(mm.XmlSerializer.deserialize(older))
    assert read.getNumProposals() == 1
    assert read.getDriving() == given.getDriving() | {"drivenStepsPerDistance": 0.0, "leastDrivenDistance": 0.0}


def test_checkpoints_and_states_carry_it(simulate, tmp_path):
    first = simulate(toys.Counter(HEAVY, SIZE), nProposals=6)
    first.step(25)
    first.saveState(str(tmp_path / "state.xml"))
    first.saveCheckpoint(str(tmp_path / "run.chk"))
    for load, file in (("loadState", "state.xml"), ("loadCheckpoint", "run.chk")):
        second = simulate(toys.Counter(HEAVY, SIZE))
        getattr(second, load)(str(tmp_path / file))
        assert (second.integrator.getNumProposals(), second.integrator.getNumJumps()) == (6, 2)


def older_checkpoint(checkpoint: bytes, version: int) -> bytes:
    """Return a checkpoint as a version before wrote it."""
    # version, length of the bundles' fingerprint; it, phase and tally; how jumps are driven; number of proposals
    start = checkpoint.index(struct.pack("<qq", 5, 16))
    driving = start + 16 + 16 + 8 * (2 + len(LatentIntegrator.getRefusalReasons()))
    number = driving + 48
    assert checkpoint[number - 16 : number + 8] == struct.pack("<ddq", 60.0, 0.5, 1)
    assert LatentIntegrator.getRefusalReasons()[-1] == "near"
    tally = checkpoint[start + 8 : driving - 8]  # without those that were too near, last of all reasons
    driven = checkpoint[driving : number - (8 if version == 4 else 16)]
    rest = checkpoint[number + (8 if version == 2 else 0) :]
    return checkpoint[:start] + struct.pack("<q", version) + tally + driven + rest


def older_state(xml: str) -> str:
    """Return the XML of a State as version 2 wrote it."""
    start = xml.rindex("<", 0, xml.index("bundles="))
    older = xml[start:]
    later = ('numProposals="1" ', 'stepsPerDistance="60" ', 'leastDistance=".5" ', 'near="0" ')
    for old, new in (('version="5"', 'version="2"'), *((text, "") for text in later)):
        assert old in older
        older = older.replace(old, new, 1)
    return xml[:start] + older


def test_checkpoints_and_states_of_versions_before_are_read(simulate):
    first = simulate(toys.Counter(HEAVY, SIZE), drivenStepsPerDistance=60.0)
    first.integrator.setDriving(leastDrivenDistance=0.5)
    first.step(25)
    checkpoint = first.context.createCheckpoint()
    state = first.context.getState(positions=True, velocities=True, integratorParameters=True)
    xml = older_state(mm.XmlSerializer.serialize(state))
    first.step(20)
    for load, per_distance in (
        (lambda context: context.loadCheckpoint(older_checkpoint(checkpoint, 4)), 60.0),
        (lambda context: context.loadCheckpoint(older_checkpoint(checkpoint, 3)), 0.0),
        (lambda context: context.loadCheckpoint(older_checkpoint(checkpoint, 2)), 0.0),
        (lambda context: context.setState(mm.XmlSerializer.deserialize(xml)), 0.0),
    ):
        second = simulate(toys.Counter(HEAVY, SIZE), nProposals=6)
        second.integrator.setDriving(drivenStepsPerDistance=7.0, leastDrivenDistance=0.3)
        load(second.context)
        assert (second.integrator.getNumProposals(), second.integrator.getNumJumps()) == (1, 2)
        driving = second.integrator.getDriving()
        assert (driving["drivenStepsPerDistance"], driving["leastDrivenDistance"]) == (per_distance, 0.0)
        second.step(20)
        assert second.integrator.getNumJumps() == first.integrator.getNumJumps() == 4


def test_the_reporter_writes_how_many_were_tried(simulate, tmp_path):
    simulation = simulate(Choosy(HEAVY, SIZE, CUT), mode="exploratory", nProposals=3)
    simulation.reporters.append(LatentReporter(tmp_path / "jumps.csv", 10))
    simulation.step(90)
    with open(tmp_path / "jumps.csv", newline="") as file:
        found = [int(row["candidates"]) for row in csv.DictReader(file)]
    assert found == [record.candidates for record in simulation.integrator.getJumpRecords(0)]
    assert max(found) > 1


def test_the_reporter_appends_to_no_table_of_other_columns(tmp_path):
    (tmp_path / "jumps.csv").write_text("jump,step\n1,10\n")
    with pytest.raises(LatentError, match=r"has other columns than this reporter \(2 and 20\)"):
        LatentReporter(tmp_path / "jumps.csv", 10, append=True)
    assert (tmp_path / "jumps.csv").read_text() == "jump,step\n1,10\n"
