"""Features of another model's trunk: read back as written, and refused where they are of another complex."""

import numpy as np
import pytest

from atmos_models import TOKENS
from openmm_latent import LatentError
from openmm_latent.data.trunk_features import read_trunk_features

RNG = np.random.default_rng(1)
SINGLE, PAIR = RNG.normal(size=(10, 5)), RNG.normal(size=(10, 10, 3))


def written(path, **changes):
    np.savez(path, **{"names": TOKENS.names, "single": SINGLE, "pair": PAIR, **changes})
    return path


def test_features_come_back_as_written(tmp_path):
    single, pair = read_trunk_features(written(tmp_path / "f.npz"), TOKENS)
    assert single.dtype == pair.dtype == np.float32
    np.testing.assert_allclose(single, SINGLE, atol=1e-6)
    np.testing.assert_allclose(pair, PAIR, atol=1e-6)


def test_features_of_another_complex_are_refused(tmp_path):
    path = tmp_path / "f.npz"
    with pytest.raises(LatentError, match=r"features file .* does not exist"):
        read_trunk_features(path, TOKENS)
    with pytest.raises(LatentError, match=r"has VAL where the complex has ALA \(token 4\); compute them"):
        read_trunk_features(written(path, names=["VAL" if name == "ALA" else name for name in TOKENS.names]), TOKENS)
    with pytest.raises(LatentError, match=r"has 3 where the complex has 10 \(token count\)"):
        read_trunk_features(written(path, names=TOKENS.names[:3]), TOKENS)
    with pytest.raises(
        LatentError, match=r"must hold single \(n_tokens=10, ...\) and pair \(10, 10, ...\), got \(9, 5\)"
    ):
        read_trunk_features(written(path, single=SINGLE[:9]), TOKENS)
    with pytest.raises(LatentError, match="holds features that are no numbers"):
        read_trunk_features(written(path, single=SINGLE * np.nan), TOKENS)
    np.savez(path, single=SINGLE)
    with pytest.raises(LatentError, match="lacks the array names, pair; write names, single and pair"):
        read_trunk_features(path, TOKENS)
    path.write_bytes(b"hello")
    with pytest.raises(LatentError, match=r"cannot be read .*; write it by numpy"):
        read_trunk_features(path, TOKENS)
