"""Captions are broken into lines as a typesetter would."""

import pytest

from covid_tf.reports import figures


@pytest.mark.parametrize(
  'kept', ['p < 0.0001', 'n = 13', '−1350', '61.5 cm³', '95 %', '28 × 28', '150 HU']
)
def test_a_number_stays_with_its_unit_and_its_sign(kept):
  for length in range(20, 40):
    figure = figures.new_figure(2.0)
    figures.put_caption(
      figure, f'{"word " * 7}{kept} {"word " * 7}', length, tight=False
    )
    lines = figure.texts[0].get_text().replace('\N{NO-BREAK SPACE}', ' ').split('\n')
    assert any(kept in line for line in lines)
    assert max(map(len, lines)) <= length
