"""The client of docs/serving.md that uses nothing of this package, as printed there."""

import pathlib
import re

import numpy as np
import pytest
import synthetic_case
import tiny_models

import covid_tf
from covid_tf import contract
from covid_tf.server import configuration
from covid_tf.server import serving

_DOCS = pathlib.Path(__file__).parents[2] / 'docs' / 'serving.md'
_SHAPE = (21, 42, 64)  # Three requests.


@pytest.fixture(scope='module', name='server')
def _server(tmp_path_factory):
  folder = tiny_models.export_both(tmp_path_factory.mktemp('models'))
  server = serving.Server(configuration.ServerOptions(models=str(folder), port=0))
  yield server.addresses[0]
  server.stop()


def _code() -> str:
  section = _DOCS.read_text(encoding='utf-8').partition('### A client of your own')[2]
  return re.search(r'```python\n(.*?)```', section, re.DOTALL)[1]


def _run(code, address, hu, folder):
  np.save(folder / 'study.npy', hu)
  for printed, here in (
    ("'localhost:8500'", repr(address)),
    ("'study.npy'", repr(str(folder / 'study.npy'))),
  ):
    assert code.count(printed) == 1
    code = code.replace(printed, here)
  names = {}
  exec(code, names)  # pylint: disable=exec-used
  names['channel'].close()
  return names


def test_it_gets_what_analyze_gets(server, tmp_path):
  pytest.importorskip('tensorflow_serving')
  volume = synthetic_case.make_volume(
    synthetic_case.axial_affine((13.0, 6.0, 6.0), _SHAPE), _SHAPE
  )
  with covid_tf.connect(server) as models:
    result = covid_tf.analyze(
      volume, models, thresholds=covid_tf.Thresholds(every_slice=True)
    )
    whole = models.grad_cam(volume.hu).covid_probability
  names = _run(_code(), server, volume.hu, tmp_path)
  box = result.lung_box
  assert (names['top'], names['left'], names['bottom'], names['right']) == (
    box.row0,
    box.column0,
    box.row1,
    box.column1,
  )
  np.testing.assert_allclose(
    names['probability'], result.slice_probability, rtol=0, atol=1e-6
  )
  assert np.abs(whole - result.slice_probability).max() > 0.05  # The crop matters.


def test_it_is_short_and_plain():
  code = _code()
  assert 'covid_tf' not in code
  assert sum(1 for line in code.splitlines() if line.strip()) <= 28


@pytest.mark.parametrize('words', ['front to the back', 'right to the left'])
def test_cards_and_documents_say_what_the_classifier_needs(words):
  for name in contract.SIGNATURES:
    assert words in contract.REQUIRED_INPUT[name]
  assert (
    'cropped to the lung box of the case'
    in contract.REQUIRED_INPUT[contract.CLASSIFIER_MODEL]
  )
  root = _DOCS.parents[1]
  for document in ('docs/serving.md', 'docs/model_cards.md', 'serving/README.md'):
    text = ' '.join((root / document).read_text(encoding='utf-8').split())
    assert words in text and 'lung box of the case' in text
