import json
import os
import pathlib

import fake_models
import nibabel as nib
import numpy as np
import pytest
import synthetic_case

from covid_tf import cli
from covid_tf import errors
from covid_tf import predictors
from covid_tf import results
from covid_tf.reports import scored_study
from covid_tf.storage import result_json

_SHAPE = (24, 42, 64)


@pytest.fixture(name='study')
def _study(tmp_path):
  affine = synthetic_case.axial_affine((12.0, 6.0, 6.0), _SHAPE)
  volume = synthetic_case.make_volume(affine, _SHAPE)
  return str(synthetic_case.write_nifti(tmp_path / 'study.nii.gz', volume))


@pytest.fixture(name='sources')
def _sources(monkeypatch):
  """What was asked for models, instead of TensorFlow or a server."""
  asked = []

  def load_models(directory=None):
    asked.append(('load_models', directory))
    return fake_models.FakeModels()

  def connect(address, **options):
    asked.append(('connect', address, options))
    return fake_models.FakeModels()

  monkeypatch.setattr(predictors, 'load_models', load_models)
  monkeypatch.setattr(predictors, 'connect', connect)
  return asked


def _score(study, output, *flags) -> int:
  return cli.main(['score', study, '--output', str(output), '--models', 'm', *flags])


def test_a_study_becomes_four_files(study, sources, tmp_path, capfd):
  output = tmp_path / 'out'
  assert (
    cli.main(['score', study, '--output', str(output), '--models', 'exported']) == 0
  )
  assert sources == [('load_models', pathlib.Path('exported'))]
  assert sorted(os.listdir(output)) == sorted(scored_study.FILE_NAMES)
  stored = result_json.read_result(output)
  assert stored.corona_score_cm3 > 1 and stored.shape == _SHAPE
  assert stored.warnings == () and stored.case_detected is None
  image = nib.load(output / 'localization.nii.gz')
  map_ = np.asarray(image.dataobj, float)
  assert map_[map_ > np.float32(0.6)].sum() * stored.voxel_volume_mm3 / 1e3 == (
    pytest.approx(stored.corona_score_cm3)
  )
  np.testing.assert_allclose(image.affine, nib.load(study).affine, atol=1e-3)
  page = (output / 'report.html').read_text()
  assert f'{stored.corona_score_cm3:.1f}' in page
  captured = capfd.readouterr()
  assert f'Corona score {stored.corona_score_cm3:.1f} cm³' in captured.out
  assert captured.err == ''


def test_the_demo_models_are_named_in_every_output(study, sources, tmp_path, capfd):
  output = tmp_path / 'out'
  assert cli.main(['score', study, '--output', str(output)]) == 0
  assert sources == [('load_models', None)]
  stored = result_json.read_result(output)
  assert stored.demo_models and result_json.DEMO_WARNING in stored.warnings
  assert 'demo' in (output / 'report.html').read_text().lower()
  for name in ('localization.nii.gz', 'lung_mask.nii.gz'):
    assert b'DEMO' in nib.load(output / name).header['descrip'].item()
  assert result_json.DEMO_WARNING in capfd.readouterr().err


def test_the_viewer_is_named_where_it_was_made(study, sources, tmp_path, capsys):
  del sources
  out = tmp_path / 'out'
  command = ['score', study, '--output', str(out), '--models', 'm', '-v']
  assert cli.main([*command, '--viewer']) == 0
  said = capsys.readouterr()
  assert f'{out / "viewer.html"}: ' in said.out and 'viewer.html' in said.err
  assert (out / 'viewer.html').exists()
  assert cli.main(command) == 0
  said = capsys.readouterr()
  assert 'viewer.html' not in said.out + said.err
  assert not (out / 'viewer.html').exists()


def test_a_server_is_reached_as_the_flags_say(study, sources, tmp_path):
  token = tmp_path / 'token'
  token.write_text('secret\n')
  assert (
    cli.main(
      [
        'score',
        study,
        '--output',
        str(tmp_path / 'out'),
        '--server',
        'host:8500',
        '--tls-ca',
        'ca.pem',
        '--token-file',
        str(token),
        '--timeout',
        '7',
      ]
    )
    == 0
  )
  ((_, address, options),) = sources
  assert address == 'host:8500' and options['timeout_s'] == 7
  assert options['tls'].ca_file == 'ca.pem'
  assert options['metadata']() == (('authorization', 'Bearer secret'),)


def test_a_case_threshold_of_every_slice_judges_no_averages(
  study, sources, tmp_path, capsys
):
  point = tmp_path / 'operating_point.json'  # Of before slices were averaged.
  point.write_text(
    json.dumps(
      {
        'schema_version': 1,
        'case_corona_score_cm3': 1.5,
        'rule': 'a rule',
        'models': results.card_digests(fake_models.IDENTITIES),
      }
    )
  )
  flags = [study, '--output', str(tmp_path / 'out'), '--case-threshold', str(point)]
  assert cli.main(['score', *flags, '--models', 'm', '--thickness-mm', '20']) == 2
  words = 'every slice as it is, but slabs of 20 mm are asked for; give --every-slice'
  assert words in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()


def test_a_case_threshold_of_another_smoothing_judges_nothing(
  study, sources, tmp_path, capsys
):
  point = tmp_path / 'operating_point.json'  # Of before logits were smoothed.
  point.write_text(
    json.dumps(
      {
        'schema_version': 1,
        'case_corona_score_cm3': 1.5,
        'models': results.card_digests(fake_models.IDENTITIES),
      }
    )
  )
  flags = [study, '--output', str(tmp_path / 'out'), '--case-threshold', str(point)]
  assert cli.main(['score', *flags, '--models', 'm']) == 2
  words = (
    'smoothed by 0 mm along the body, but 6 mm are in use; score with --smoothing-mm'
  )
  assert words in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()
  assert cli.main(['score', *flags, '--models', 'm', '--smoothing-mm', '0']) == 0
  stored = result_json.read_result(tmp_path / 'out')
  assert stored.thresholds.smoothing_mm == 0 and stored.case_detected is not None


def test_a_case_threshold_answers(study, sources, tmp_path):
  digests = results.card_digests(fake_models.IDENTITIES)
  point = tmp_path / 'operating_point.json'
  point.write_text(
    json.dumps(
      {
        'schema_version': 1,
        'case_corona_score_cm3': 1.5,
        'rule': 'a rule',
        'models': digests,
        'smoothing_mm': 6.0,
      }
    )
  )
  for threshold, detected in ((str(point), True), ('1e4', False)):
    assert _score(study, tmp_path / 'out', '--case-threshold', threshold) == 0
    stored = result_json.read_result(tmp_path / 'out')
    assert stored.case_detected is detected
  point.write_text(point.read_text().replace('a' * 64, 'f' * 64))
  assert _score(study, tmp_path / 'new', '--case-threshold', str(point)) == 2
  assert not (tmp_path / 'new').exists()


def test_a_threshold_of_models_that_changed_meanwhile_is_refused(
  study, tmp_path, monkeypatch
):
  class Changing(fake_models.FakeModels):
    def identities(self):
      old, classifier = fake_models.IDENTITIES
      digest = 'f' * 64 if self.crops else old.card_sha256
      return (type(old)(old.name, 2, digest), classifier)

  monkeypatch.setattr(predictors, 'load_models', lambda _: Changing())
  point = tmp_path / 'operating_point.json'
  point.write_text(
    json.dumps(
      {
        'schema_version': 1,
        'case_corona_score_cm3': 1.5,
        'rule': 'a rule',
        'models': {'lungs': 'a' * 64},
      }
    )
  )
  assert _score(study, tmp_path / 'out', '--case-threshold', str(point)) == 2
  assert not (tmp_path / 'out').exists()


class _Failing(fake_models.FakeModels):
  error: Exception

  def grad_cam(self, hu):
    raise self.error


@pytest.mark.parametrize(
  'error, status',
  [
    (errors.ModelError('the server is gone.'), 4),
    (errors.NoLungsError('no lungs found.'), 3),
    (KeyboardInterrupt(), 130),
  ],
)
def test_a_failure_leaves_the_earlier_result(
  study, sources, tmp_path, monkeypatch, capfd, error, status
):
  output = tmp_path / 'out'
  command = ['score', study, '--output', str(output), '--models', 'm']
  assert cli.main(command) == 0
  before = {path.name: path.read_bytes() for path in output.iterdir()}
  capfd.readouterr()
  monkeypatch.setattr(_Failing, 'error', error, raising=False)
  monkeypatch.setattr(predictors, 'load_models', lambda _: _Failing())
  assert cli.main(command) == status
  assert {path.name: path.read_bytes() for path in output.iterdir()} == before
  message = capfd.readouterr().err.strip()
  assert message.startswith('covid-tf score: ') and '\n' not in message
  if status == 3:
    assert study in message


def test_a_refused_study_never_asks_for_models(sources, tmp_path, capfd):
  (tmp_path / 'empty').mkdir()
  assert (
    cli.main(['score', str(tmp_path / 'empty'), '--output', str(tmp_path / 'out')]) == 3
  )
  assert not sources and not (tmp_path / 'out').exists()
  assert capfd.readouterr().err.startswith('covid-tf score: ')


def test_the_output_is_tried_before_anything_else(study, sources, tmp_path, capfd):
  (tmp_path / 'out').write_text('a file')
  assert cli.main(['score', study, '--output', str(tmp_path / 'out')]) == 5
  assert not sources
  assert str(tmp_path / 'out') in capfd.readouterr().err


def test_flags_of_a_server_need_one(study, sources, tmp_path):
  command = ['score', study, '--output', str(tmp_path / 'out'), '--tls']
  assert cli.main(command) == 2
  assert not sources and not (tmp_path / 'out').exists()
  assert cli.main([*command, '--server', 'a:1', '--models', 'b']) == 2


def _label_map(study, folder, change=lambda labels: labels):
  """A label map on the study's grid: 1 the patient's right, 2 the left."""
  image = nib.load(study)
  x = (np.arange(image.shape[0]) * image.affine[0, 0] + image.affine[0, 3]) < 0
  labels = np.broadcast_to((1 + x)[:, None, None], image.shape).astype(np.uint8)
  # As an editor may store it: the first axis the other way round.
  affine = image.affine @ np.diag((-1.0, 1, 1, 1))
  affine[:3, 3] += image.affine[:3, 0] * (image.shape[0] - 1)
  path = folder / 'labels.nii.gz'
  nib.save(nib.Nifti1Image(change(labels[::-1]), affine), path)
  return str(path)


def test_regions_of_a_label_map_with_names(study, sources, tmp_path):
  output = tmp_path / 'out'
  arguments = ['score', study, '--output', str(output), '--models', 'exported']
  arguments += ['--regions', _label_map(study, tmp_path)]
  assert cli.main([*arguments, '--region-names', '1=right half,2=left half']) == 0
  stored = result_json.read_result(output)
  regions = stored.label_regions.regions
  assert list(regions) == ['right half', 'left half'] and stored.lobe_score is None
  by_side = stored.corona_score_by_region_cm3
  assert by_side['right'] > 0
  for side in ('right', 'left'):
    assert regions[f'{side} half'].corona_score_in_lung_cm3 == pytest.approx(
      by_side[side], rel=0.05
    )


@pytest.mark.parametrize(
  'change, names, words',
  [
    (lambda labels: labels[1:], '1=a', 'grid of the CT is required'),
    (lambda labels: labels * np.float32(0.5), '1=a', 'with fractions'),
    (lambda labels: labels * 0, None, 'found an empty one'),
    (lambda labels: labels, '5=a', 'found 5'),
    (lambda labels: labels, '1=a,2=a', 'for the labels 1 and 2'),
    (None, '1=a', '--regions'),
  ],
)
def test_regions_that_cannot_be_meant_are_refused(
  change, names, words, study, sources, tmp_path, capsys
):
  output = tmp_path / 'out'
  arguments = ['score', study, '--output', str(output), '--models', 'exported']
  if change:
    arguments += ['--regions', _label_map(study, tmp_path, change)]
  if names:
    arguments += ['--region-names', names]
  assert cli.main(arguments) == 2
  said = capsys.readouterr().err.strip()
  assert words in said and len(said.splitlines()) == 1
  assert sources == [] and not output.exists()


def test_regions_without_lung_are_refused_and_nothing_is_written(
  study, sources, tmp_path, capsys
):
  def corner(labels):
    labels = np.zeros_like(labels)
    labels[0, 0, 0] = 3
    return labels

  output = tmp_path / 'out'
  arguments = ['score', study, '--output', str(output), '--models', 'exported']
  arguments += ['--regions', _label_map(study, tmp_path, corner)]
  assert cli.main(arguments) == 2
  said = capsys.readouterr().err.strip()
  assert 'covers lung of this CT' in said and len(said.splitlines()) == 1
  assert not output.exists()
