"""A peptide with a ligand: alanine dipeptide beside acetamide, as examples/data/make_complex.py makes it."""

import runpy
from pathlib import Path

_MADE = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "data" / "make_complex.py"))
LIGAND_XML = _MADE["LIGAND_XML"]
load_complex = _MADE["molecule"]
complex_system = _MADE["vacuum_system"]
complex_frames = _MADE["md_frames"]
#: Acetamide as an SDF file would have it; hydrogens left out, as often.
SDF = """acetamide
  made by hand

  4  3  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 N   0  0
    0.0000    0.0000    1.3000 C   0  0
    1.0000    0.0000    2.0000 O   0  0
   -1.2000    0.0000    2.0000 C   0  0
  2  1  1  0
  2  3  2  0
  4  2  1  0
M  END
$$$$
"""
