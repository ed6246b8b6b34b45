"""A sample against reference MD: `evaluate` measures, `write_report` keeps it as JSON, CSV and one HTML page.

| file | what |
|---|---|
| evaluation | the one call: reads, compares, gathers |
| molecule, ensembles | atoms and index groups; superposed frames with their torsions |
| scores, slow | comparisons of two ensembles: structure, and slow processes |
| error_bars | intervals of scores, by a bootstrap over blocks |
| complexes, paired | a ligand and its pocket; runs from the same starts, and rebuilt frames |
| peers | plain MD, elastic network, Gaussian |
| catalogue, results | what each number means; how it is judged and kept |
| tables | CSV files of jumps and energies |
| drawings, plots, svg, maps, viewer, page, files | the page |
"""

from openmm_latent.report.evaluation import EvaluationSettings, evaluate
from openmm_latent.report.files import write_report
from openmm_latent.report.results import Evaluation, Metric

__all__ = ["Evaluation", "EvaluationSettings", "Metric", "evaluate", "write_report"]
