"""A newcomer's first lines, with a NIfTI file and docstrings, in a fresh namespace."""

import dataclasses

import fake_models
import numpy as np
import pytest
import SimpleITK as sitk
import synthetic_case

import covid_tf
from covid_tf import cli
from covid_tf import predictors
from covid_tf.storage import result_json

_FIVE_LINES = """
import covid_tf
volume = covid_tf.read_ct('ct.nii.gz')
result = covid_tf.analyze(volume)
result.save('result', volume)
shown = result.plot(), result._repr_html_(), repr(result), result.corona_score_cm3
"""


class _DemoModels(fake_models.FakeModels):
  """Arithmetic in place of the networks, with cards that say demo."""

  def identities(self):
    card = {'training': {'demo_weights': True}}
    return tuple(dataclasses.replace(one, card=card) for one in fake_models.IDENTITIES)


@pytest.fixture
def place(tmp_path, monkeypatch):
  """A folder with ct.nii.gz alone, in which the demo models answer."""
  shape = (17, 42, 64)
  affine = synthetic_case.axial_affine((16.0, 6.0, 6.0), shape)
  volume = synthetic_case.make_volume(affine, shape)
  synthetic_case.write_nifti(tmp_path / 'ct.nii.gz', volume)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(
    predictors, 'load_models', lambda *arguments, **options: _DemoModels()
  )
  return tmp_path


def test_five_lines_give_a_score_a_report_and_a_picture(place):
  assert len(_FIVE_LINES.split('\n')) - 2 == 5
  namespace = {}
  exec(_FIVE_LINES, namespace)
  figure, table, text, score = namespace['shown']
  assert score > 1
  assert figure._repr_png_().startswith(b'\x89PNG')
  assert 'Demo models' in table and 'DEMO MODELS' in text
  stored = result_json.read_result(place / 'result')
  assert stored.corona_score_cm3 == score and stored.demo_models
  assert stored.warnings[0] == result_json.DEMO_WARNING
  assert 'DEMO' in (place / 'result' / 'report.html').read_text('utf-8').upper()
  back = covid_tf.load_result('result')
  assert back.to_dict() == namespace['result'].to_dict()
  assert len(covid_tf.results_table('.')) == 1


def test_what_is_given_makes_no_difference(place):
  volume = covid_tf.read_ct('ct.nii.gz')
  sitk.WriteImage(volume.to_sitk(), 'ct.nrrd')
  slices = volume.to_sitk()
  score = covid_tf.analyze(volume).corona_score_cm3
  given = (
    'ct.nii.gz',
    place / 'ct.nrrd',
    slices,
    volume.to_nibabel(),
    covid_tf.CTVolume.from_array(
      volume.hu.astype(np.float32), spacing_mm=volume.spacing_mm, orientation='LPS'
    ),
    # The same patient from the head down, the right side first.
    covid_tf.CTVolume.from_array(
      np.ascontiguousarray(volume.hu[::-1, :, ::-1]),
      spacing_mm=volume.spacing_mm,
      orientation='RPI',
    ),
  )
  for one in given:
    result = covid_tf.analyze(one, progress=False)
    assert result.corona_score_cm3 == pytest.approx(score, rel=1e-9)
    assert result.demo_models and result.warnings[0] == result_json.DEMO_WARNING


def test_the_command_scores_what_slicer_saves(place, capsys):
  volume = covid_tf.read_ct('ct.nii.gz')
  sitk.WriteImage(volume.to_sitk(), 'ct.mhd', True)
  assert cli.main(['score', 'ct.mhd', '--output', 'out']) == 0
  from_mhd = covid_tf.load_result('out')
  assert cli.main(['score', 'ct.nii.gz', '--output', 'other']) == 0
  assert from_mhd.to_dict() == covid_tf.load_result('other').to_dict()
  # The mask overlays the image in Slicer, voxel on voxel.
  mask, image = sitk.ReadImage('out/lung_mask.nii.gz'), sitk.ReadImage('ct.mhd')
  assert mask.GetSize() == image.GetSize()
  np.testing.assert_allclose(mask.GetOrigin(), image.GetOrigin(), atol=1e-4)
  np.testing.assert_allclose(mask.GetDirection(), image.GetDirection(), atol=1e-6)
  capsys.readouterr()
  sitk.WriteImage(volume.to_sitk()[:, :, 4], 'flat.nrrd')
  assert cli.main(['score', 'flat.nrrd', '--output', 'flat']) == 3
  assert 'three axes' in capsys.readouterr().err and not (place / 'flat').exists()


def test_models_that_are_given_are_not_marked(place):
  result = covid_tf.analyze('ct.nii.gz', fake_models.FakeModels())
  assert not result.demo_models and result_json.DEMO_WARNING not in result.warnings


def test_the_study_is_read_before_models_are_loaded(place, monkeypatch):
  monkeypatch.setattr(predictors, 'load_models', lambda: pytest.fail('loaded'))
  with pytest.raises(covid_tf.CTReadError, match='no such file'):
    covid_tf.analyze('nothing.nii')
