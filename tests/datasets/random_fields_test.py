"""Random fields: unit deviation, and as smooth in millimetres on any grid."""

import numpy as np
import pytest

from covid_tf.datasets import random_fields


@pytest.mark.parametrize('scale_mm', [1.5, 4.0, 15.0])
@pytest.mark.parametrize('spacing_mm', [(1.25, 1.4, 1.4), (5.0, 0.7, 0.7)])
def test_fields_have_unit_deviation_and_their_scale(scale_mm, spacing_mm):
  shape = (40, 150, 150)
  fields = [
    random_fields.smooth(shape, spacing_mm, scale_mm, np.random.default_rng(seed))
    for seed in range(4)
  ]
  assert all(f.shape == shape and f.dtype == np.float32 for f in fields)
  assert 0.6 < np.mean([f.std() for f in fields]) < 1.2
  # White noise after a Gaussian of sigma correlates as exp(-d² / 4 sigma²).
  step = max(1, round(scale_mm / spacing_mm[1]))
  found = np.mean(
    [np.corrcoef(f[:, step:].ravel(), f[:, :-step].ravel())[0, 1] for f in fields]
  )
  wanted = np.exp(-((step * spacing_mm[1] / scale_mm) ** 2) / 4)
  assert found == pytest.approx(wanted, abs=0.2)


def test_stretching_keeps_ends_and_lines():
  line = np.array([[0.0, 2.0, 4.0]])
  np.testing.assert_allclose(
    random_fields.stretched(line, (2, 5)), [[0, 1, 2, 3, 4]] * 2
  )
