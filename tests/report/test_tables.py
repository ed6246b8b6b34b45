"""CSV files of jumps and energies."""

import numpy as np
import pytest

from openmm_latent.errors import LatentError
from openmm_latent.report.tables import read_energies, read_jumps

HEAD = "jump,step,mode,outcome,reason,work_kj_per_mol,acceptance\n"
ROWS = "1,500,exact,accepted,,1.5,1\n2,1000,exact,refused,metropolis,9.5,0.1\n3,1500,exact,refused,force,,\n"
ROWS += "4,2000,exact,refused,nan,nan,0\n5,2500,exact,refused,near,,0\n"


def test_jumps(tmp_path):
    (tmp_path / "jumps.csv").write_text(HEAD + ROWS + "6,20")  # the run was killed while it wrote
    found = read_jumps([tmp_path / "jumps.csv"])
    assert (found["n_jumps"], found["n_accepted"]) == (5, 1)
    assert found["reasons"] == {"metropolis": 1, "force": 1, "nan": 1, "near": 1}
    assert found["work"].tolist() == [1.5, 9.5]
    assert found["is_accepted"].tolist() == [True, False]
    assert found["mean_acceptance"] == pytest.approx(1.1 / 4)
    assert read_jumps([]) is None


def test_energies(tmp_path):
    text = '#"Step","Time (ps)","Potential Energy (kJ/mole)","Temperature (K)"\n10,0.02,-5.5,300\n20,0.04,-6.5,310\n'
    (tmp_path / "run.csv").write_text(text)
    (found,) = read_energies([tmp_path / "run.csv"])
    assert found["name"] == "run"
    assert found["is_time"]
    assert np.array_equal(found["time"], [0.02, 0.04])
    assert np.array_equal(found["potential"], [-5.5, -6.5])
    assert np.array_equal(found["temperature"], [300, 310])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "does not exist"),
        ("", "has no column 'jump'"),
        ("a,b\n1,2\n", "has no column 'jump'; give the CSV file of a LatentReporter"),
        (HEAD, "has no rows"),
        (HEAD + "1,500,exact,accepted,,much,1\n", "has 'much' where a number should be"),
    ],
)
def test_a_table_of_something_else_is_told(tmp_path, text, sentence):
    file = tmp_path / "jumps.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(LatentError, match=sentence):
        read_jumps([file])


def test_a_binary_file_is_no_table(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(LatentError, match="is not a text file"):
        read_energies([tmp_path / "x.csv"])
