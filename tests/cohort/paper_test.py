"""Numbers as they are printed."""

import pytest

from covid_tf.cohort import wording


@pytest.mark.parametrize('share, words', [
    (0.94, '94 %'), (0.997, '99.7 %'), (1.0, '100 %'), (0.0, '0 %'), (0.004, '0.4 %'),
    (None, 'not defined')])
def test_all_is_not_said_of_some(share, words):
  assert wording.percent(share) == words


def test_intervals():
  assert wording.percent_interval((0.881, 0.998)) == '88–99.8 %'
  assert wording.percent_interval(None) == 'not defined'
  assert wording.interval((-1.25, 3.0), 1) == '-1.2 to 3.0'
  assert wording.interval((0.9, 1.0)) == '0.900–1.000'


@pytest.mark.parametrize('value, words', [
    (0.00001, 'p < 0.0001'), (0.0064, 'p = 0.0064'), (0.034, 'p = 0.034')])
def test_p_values(value, words):
  assert wording.p_value(value) == words
