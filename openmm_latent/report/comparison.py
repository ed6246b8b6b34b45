"""One comparison under way: slow coordinates, scores, floors, peers and error bars, put together as metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from openmm_latent import metrics
from openmm_latent.errors import LatentError, require
from openmm_latent.report import complexes, error_bars, paired, scores, slow
from openmm_latent.report import peers as peer_makers
from openmm_latent.report.catalogue import AGREEMENT, CATALOGUE, OWN
from openmm_latent.report.ensembles import Ensemble, Reader
from openmm_latent.report.results import Metric, duration
from openmm_latent.report.settings import EvaluationSettings

#: Blocks of a bootstrap, about.
N_BLOCKS = 20
#: A reference that crosses between its slow states less often is not settled.
FEWEST_CROSSINGS = 10
#: Of fewer frames every number is noise, and the page says so.
FEW_FRAMES = 100
#: Draws of the product of marginals, at most.
_MARGINAL_FRAMES = 20_000


@dataclass
class Columns:
    """Numbers by key: the sample's, the floors, the reference's own, the peers', and intervals."""

    sample: dict[str, float] = field(default_factory=dict)
    floor: dict[str, float] = field(default_factory=dict)
    reference: dict[str, float] = field(default_factory=dict)
    peers: dict[str, dict[str, float]] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    reference_intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


class Comparison:
    """A sample, a reference and peers, and what is found out about them.

    Parameters
    ----------
    settings : EvaluationSettings
    reader : Reader
        With a structure.
    reference, sample : Ensemble
    say : callable
        Takes a word on what is done now.
    """

    def __init__(
        self,
        settings: EvaluationSettings,
        reader: Reader,
        reference: Ensemble,
        sample: Ensemble,
        say: Callable[[str], None],
    ) -> None:
        self.settings, self.reader, self.reference, self.sample, self.say = settings, reader, reference, sample, say
        self.peers: dict[str, Ensemble] = {}
        self._counted: dict[str, scores.Violations] = {}
        self.peer_facts: dict[str, dict[str, Any]] = {}
        self.site = complexes.find_site(reference.molecule, reader.structure, settings.ligand)
        self.slow: slow.SlowCoordinates | None = None
        self.features = ""
        self.lags: list[float] = []
        self.left_out: list[str] = []
        self.cautions: list[str] = []
        self.is_settled = True

    def make_peers(self, wanted: Sequence[str], md: list[Path], training: list[Path]) -> None:
        """Read or draw the peers that were asked for."""
        seed, n = self.settings.seed, self.sample.n_frames
        if "md" in wanted:
            self.say("reading plain MD")
            read, _, _ = self.reader.read("plain MD", md, None, self.settings.frame_spacing)
            self._add("md", peer_makers.md_peer(read, n), "the first frames of " + ", ".join(p.name for p in md))
        if not {"anm", "gaussian"} & set(wanted):
            return
        self.say("making peers")
        if training:
            fit, _, _ = self.reader.read("training", training, None, self.settings.frame_spacing)
            words = ", ".join(path.name for path in training)
        else:
            fit, _ = self.reference.halves()[0]
            words = "the reference's first half, which is part of what it is compared with"
        if "anm" in wanted:
            network = peer_makers.anm_peer(fit, self.reader.structure, n, seed)
            self._add(
                "anm", network, f"an elastic network of {fit.molecule.trace_name}, its size of motion from {words}"
            )
        if "gaussian" in wanted:
            self._add("gaussian", peer_makers.gaussian_peer(fit, n, seed), f"fitted on {words}")

    def _add(self, name: str, peer: Ensemble, what: str) -> None:
        self.peers[name] = peer
        self.peer_facts[name] = {"n_frames": peer.n_frames, "what": what}

    def measure(self) -> list[Metric]:
        """Measure everything; return the metrics in the catalogue's order."""
        self.say("fitting slow coordinates")
        self._fit_slow()
        found = Columns()
        self.say("scoring the sample")
        found.sample = self._scores(self.sample, self.reference)
        if self.settings.is_backmapping:
            found.sample |= paired.backmapping_scores(self.sample, self.reference)
        self.say("scoring the reference against itself")
        found.reference = self._own_numbers(self.reference)
        found.floor = self._floors()
        if self.peers:
            self.say("scoring the peers")
        found.peers = {name: self._scores(one, self.reference) for name, one in self.peers.items()}
        n_drawn = min(self.sample.n_frames, _MARGINAL_FRAMES)
        marginals = scores.product_of_marginals(self.reference, n_drawn, self.settings.seed)
        if marginals:
            found.peers["marginals"] = marginals
        self.say("error bars")
        self._add_intervals(found)
        self._add_sample_size(found)
        self._add_cautions(found)
        order = {key: place for place, key in enumerate(CATALOGUE)}
        keys = sorted(found.sample, key=lambda key: (order[key.partition("@")[0]], float(key.partition("@")[2] or 0)))
        return [self._metric(key, found) for key in keys]

    def _fit_slow(self) -> None:
        """Choose features and lags, and fit the slow coordinates on the reference."""
        lag_time = slow.choose_lag(self.reference, self.sample, self.settings.lag_time)
        self.lags = list(self.settings.lag_times) or [lag_time, 5 * lag_time, 25 * lag_time]
        for lag in self.settings.lag_times:
            slow.require_lag(lag, self.reference, "lag_times (--lag-times)")
        features = slow.choose_features(self.reference)
        self.features = features.words
        self.reference = replace(self.reference, features=features.make(self.reference))
        self.sample = replace(self.sample, features=features.make(self.sample))
        for name, one in self.peers.items():
            if features.fits(one):
                self.peers[name] = replace(one, features=features.make(one))
        try:
            self.slow = slow.SlowCoordinates.fit(self.reference, lag_time, self.settings.seed)
        except (LatentError, ValueError, np.linalg.LinAlgError) as error:  # deeptime's words for what does not vary
            self.left_out.append(f"Slow processes: TICA of the reference failed, as {str(error).rstrip('.')}.")
            return
        if self.sample.frame_spacing is None:
            self.left_out.append("Kinetics of the sample: its frames are independent draws.")
        elif slow.frames_at(lag_time, self.sample) is None:
            self.left_out.append(
                f"Timescales of the sample: the lag of {duration(lag_time)} is no whole number of its frames, "
                f"{duration(self.sample.frame_spacing)} apart, or longer than half of its longest run."
            )

    def _scores(self, sample: Ensemble, reference: Ensemble) -> dict[str, float]:
        """Return every score of one ensemble against another."""
        found = scores.torsion_scores(sample, reference)
        found |= scores.fluctuation_scores(sample, reference, self.settings.seed)
        found |= scores.component_scores(sample, reference, self.settings.seed)
        found |= scores.contact_scores(sample, reference, self.reader.structure)
        found |= self._violations(sample).means
        if self.slow is not None and sample.features is not None:
            found |= slow.slow_scores(sample, reference, self.slow, self.lags)
        found |= paired.start_scores(sample, reference, None if self.site is None else self.site.atoms)
        if self.settings.has_fine_surfaces:
            found |= scores.fine_surface_scores(sample, reference)
        if self.site is not None:
            found |= complexes.complex_scores(sample, reference, self.site)
            found |= complexes.complex_clashes(sample, self.site)
        return found

    def _own_numbers(self, ensemble: Ensemble) -> dict[str, float]:
        """Return the numbers that an ensemble has of its own, without a comparison."""
        found = self._violations(ensemble).means
        found["pairwise_rmsd"] = metrics.mean_pairwise_rmsd(ensemble.trace, None, seed=self.settings.seed)
        if self.site is not None:
            found |= complexes.complex_clashes(ensemble, self.site)
        if self.slow is not None:
            found |= slow.own_numbers(ensemble, self.slow)
        return found

    def _violations(self, ensemble: Ensemble) -> scores.Violations:
        """Count violations, of sample and reference once only."""
        name = next((name for name in ("sample", "reference") if ensemble is getattr(self, name)), "")
        if name not in self._counted:
            counted = scores.violations(ensemble, self.reader.structure)
            if not name:
                return counted
            self._counted[name] = counted
        return self._counted[name]

    def _floors(self) -> dict[str, float]:
        """Return each score between halves of the reference, the first no longer than the sample."""
        collected: dict[str, list[float]] = {}
        for first, second in self.reference.halves():
            fair = first.thinned(self.sample.n_frames)
            found = self._scores(fair, second)
            if fair is not first and self.slow is not None:  # thinned frames have no kinetics: cut them in time instead
                found |= slow.slow_scores(first.first(self.sample.n_frames), second, self.slow, self.lags)
            others = self._own_numbers(second)
            for key, value in found.items():
                is_own = CATALOGUE[key.partition("@")[0]].kind == OWN
                collected.setdefault(key, []).append(abs(value - others.get(key, math.nan)) if is_own else value)
        return {key: float(np.mean(several)) for key, several in collected.items()}

    def _add_intervals(self, found: Columns) -> None:
        seed, own, values = self.settings.seed, found.intervals, found.sample
        own |= error_bars.torsion_intervals(self.sample, self.reference, seed, N_BLOCKS)
        own |= error_bars.trace_intervals(self.sample, self.reference, seed, N_BLOCKS)
        own |= error_bars.component_intervals(self.sample, self.reference, values, seed, N_BLOCKS)
        for one, intervals in ((self.sample, own), (self.reference, found.reference_intervals)):
            intervals |= error_bars.pairwise_interval(one, seed, N_BLOCKS)
            intervals |= error_bars.count_intervals(self._violations(one).series, seed, N_BLOCKS)
            if self.slow is not None:
                intervals |= slow.slow_intervals(one, self.slow, seed, N_BLOCKS)
        if self.slow is not None:
            own |= slow.pair_intervals(self.sample, self.reference, self.slow, values, seed, N_BLOCKS)

    def _add_sample_size(self, found: Columns) -> None:
        """Add effective sample sizes, of a sample that has time and torsions to be judged by."""
        if self.slow is None or self.sample.frame_spacing is None or "phi_psi_jsd" not in found.floor:
            return
        own, expected = self.slow.project(self.sample), self.slow.project(self.reference)
        series = self.reference.runs(expected[:, 0])
        found.reference["sample_size"] = scores.defined(lambda: metrics.effective_sample_size(series))
        try:
            size = metrics.sample_size_per_cost(
                self.sample.runs(own[:, 0]),
                states=metrics.assign_states(own, self.slow.states),
                reference_states=metrics.assign_states(expected, self.slow.states),
                divergence=found.sample["phi_psi_jsd"],
                floor=max(found.floor["phi_psi_jsd"], 1e-12),
                cpu_seconds=self.settings.cpu_seconds,
                force_evaluations=self.settings.force_evaluations,
            )
        except LatentError as error:  # a sample that does not move along the slow coordinate
            self.left_out.append(f"Effective sample size: {str(error).rstrip('.')}.")
            return
        found.sample["sample_size"] = size["sample_size"]
        words = [size["reason"]]
        for key, unit in (("per_cpu_second", "CPU-second"), ("per_force_evaluation", "force evaluation")):
            if math.isfinite(size[key]):
                words.append(f"{size[key]:.3g} a {unit}.")
        found.notes["sample_size"] = " ".join(words).strip()

    def _add_cautions(self, found: Columns) -> None:
        """Say where the data cannot bear floors or intervals, and what could be scored, too."""
        reference = self.reference
        unnamed = [] if self.settings.ligand else complexes.possible_ligands(reference.molecule)
        if unnamed:
            self.left_out.append(
                f"Ligand and pocket: no ligand was named; of the residues here, {', '.join(unnamed)} could be one "
                f"(--ligand {unnamed[0]})."
            )
        for one, word in ((reference, "reference"), (self.sample, "sample")):
            if one.n_frames < FEW_FRAMES:
                self.cautions.append(
                    f"The {word} holds {one.n_frames} frames: numbers from fewer than {FEW_FRAMES} are rough at best, "
                    f"and intervals and floors hardly mean anything."
                )
        if len(reference.lengths) == 1:
            self.cautions.append(
                "The reference is one run, whose halves are not independent of one another: floors may be too low."
            )
        relaxation = found.reference.get("slow_timescale", 0.0)
        block = reference.n_frames * (reference.frame_spacing or 0.0) / N_BLOCKS
        if relaxation > block / 2:
            self.cautions.append(
                f"The reference's slow coordinate takes {duration(relaxation)} to relax, and a block of the bootstrap "
                f"lasts {duration(block)}: intervals of slow numbers are too narrow."
            )
        crossed = found.reference.get("slow_crossings")
        if crossed is not None and reference.frame_spacing is not None:
            n = round(crossed * reference.n_frames * reference.frame_spacing * 1e-6)
            if n < FEWEST_CROSSINGS:
                self.is_settled = False
                self.cautions.insert(
                    0,
                    f"The reference is not settled: it crosses between its slow states {n} times, and "
                    f"{FEWEST_CROSSINGS} are wanted at least. Its own halves differ, so a match says little.",
                )

    def _metric(self, key: str, found: Columns) -> Metric:
        """Put one number together with what stands beside it."""
        base, _, lag = key.partition("@")
        told, value = CATALOGUE[base], _finite(found.sample[key])
        is_timed = self.slow is not None and base in ("t1", "slow_timescale")
        note = found.notes.get(key, "Not defined for this input." if value is None else "")
        peers = {name: column for name, column in found.peers.items() if key in column}
        return Metric(
            key=key,
            group=told.group,
            name=told.name + (f" (lag {duration(float(lag))})" if lag else ""),
            unit=told.unit,
            kind=told.kind,
            definition=self._fill(told.text),
            bins=told.bins,
            value=value,
            interval=_possible(found.intervals.get(key), told.kind),
            floor=_finite(found.floor.get(key, math.nan)),
            reference=_finite(found.reference.get(key, math.nan)) if told.kind == OWN else None,
            reference_interval=_possible(found.reference_intervals.get(key), told.kind),
            lag_time=float(lag) if lag else (self.slow.lag_time if is_timed else None),  # type: ignore[union-attr]
            peers={name: _finite(column[key]) for name, column in peers.items()},
            note=note,
        )

    def _fill(self, text: str) -> str:
        """Fill a definition with what this molecule's words are."""
        return text.format(
            trace=self.reference.molecule.trace_name,
            features=self.features,
            structure=self.reader.structure_source,
            n_checked=scores.CHECKED_FRAMES,
        )


def check_lags(lag_time: float | None, lag_times: Sequence[float]) -> None:
    """Raise `LatentError` for times that can be no lags, before anything is read."""
    for word, times in (("lag_time (--lag-time)", [lag_time]), ("lag_times (--lag-times)", lag_times)):
        for one in times:
            require(one is None or one > 0, f"{word} must be positive [ps], got {one}")


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _possible(pair: tuple[float, float] | None, kind: str) -> tuple[float, float] | None:
    """Return an interval cut to what a score can be; None where it is not known."""
    if pair is None or not all(map(math.isfinite, pair)):
        return None
    low, high = float(pair[0]), float(pair[1])
    return (low, min(1.0, high)) if kind == AGREEMENT else (max(0.0, low), max(0.0, high))
