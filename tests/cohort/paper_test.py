"""Numbers as they are printed."""

import pytest

from covid_tf.cohort import paper


@pytest.mark.parametrize(
  'share, words',
  [
    (0.94, '94 %'),
    (0.997, '99.7 %'),
    (1.0, '100 %'),
    (0.0, '0 %'),
    (0.004, '0.4 %'),
    (None, 'not defined'),
  ],
)
def test_all_is_not_said_of_some(share, words):
  assert paper.percent(share) == words


def test_intervals():
  assert paper.percent_interval((0.881, 0.998)) == '88–99.8 %'
  assert paper.percent_interval(None) == 'not defined'
  assert paper.interval((-1.25, 3.0), 1) == '-1.2 to 3.0'
  assert paper.interval((0.9, 1.0)) == '0.900–1.000'


@pytest.mark.parametrize(
  'value, words',
  [(0.00001, 'p < 0.0001'), (0.0064, 'p = 0.0064'), (0.034, 'p = 0.034')],
)
def test_p_values(value, words):
  assert paper.p_value(value) == words
