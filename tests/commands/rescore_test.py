import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import fake_models
import nibabel as nib
import numpy as np
import pytest
import report_page
import synthetic_case

from covid_tf import cli
from covid_tf import predictors
from covid_tf import results
from covid_tf.commands import shared_flags
from covid_tf.reports import scored_study
from covid_tf.storage import maps
from covid_tf.storage import result_json

_SHAPE = (24, 42, 64)
_NUMBERS = {field.name for field in dataclasses.fields(result_json.StoredResult)} - {
  'edits',
  'schema_version',
}


def _volume(lesions=synthetic_case.LESIONS, shape=_SHAPE):
  affine = synthetic_case.axial_affine((12.0, 6.0, 6.0), shape)
  return synthetic_case.make_volume(affine, shape, lesions)


def _run(*arguments) -> int:
  try:
    return cli.main([str(argument) for argument in arguments])
  except SystemExit as end:
    return end.code or 0


@pytest.fixture(name='place', scope='module')
def _place(tmp_path_factory):
  """study.nii.gz, other.nii.gz on its grid, and result/ of the first."""
  root = tmp_path_factory.mktemp('rescore')
  synthetic_case.write_nifti(root / 'study.nii.gz', _volume())
  synthetic_case.write_nifti(root / 'other.nii.gz', _volume(synthetic_case.LESIONS[:1]))
  synthetic_case.write_nifti(root / 'short.nii.gz', _volume(shape=(22, 42, 64)))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(predictors, 'load_models', lambda _: fake_models.FakeModels())
    assert (
      _run('score', root / 'study.nii.gz', '--output', root / 'result', '--models', 'm')
      == 0
    )
  return root


@pytest.fixture(autouse=True)
def _no_models(monkeypatch):
  def asked(*arguments, **options):
    pytest.fail('no network may be asked')

  monkeypatch.setattr(predictors, 'load_models', asked)
  monkeypatch.setattr(predictors, 'connect', asked)


def _rescore(place, output, *flags, study='study.nii.gz') -> int:
  return _run(
    'rescore', place / 'result', '--study', place / study, '--output', output, *flags
  )


def _contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_unedited_rescore_gives_the_numbers_and_the_files(place, tmp_path, capsys):
  before = _contents(place / 'result')
  assert _rescore(place, tmp_path / 'out') == 0
  assert _contents(place / 'result') == before
  after = _contents(tmp_path / 'out')
  assert sorted(after) == sorted(scored_study.FILE_NAMES)
  for name in (maps.MAP_NAME, maps.MASK_NAME):
    assert after[name] == before[name]
  one, two = map(result_json.read_result, (place / 'result', tmp_path / 'out'))
  for name in _NUMBERS:
    assert getattr(one, name) == getattr(two, name), name
  sha256 = hashlib.sha256(before['result.json']).hexdigest()
  assert two.edits == results.Edits(rescored_from_sha256=sha256)
  assert f'SHA-256 {sha256[:12]}' in capsys.readouterr().out


def test_edits_stand_in_result_report_and_words(place, tmp_path, capsys):
  one = result_json.read_result(place / 'result')
  mask, _ = maps.read(place / 'result' / maps.MASK_NAME)
  mask[:, :, 12:16] = 0
  # As another editor stores it: columns to the right, rows up, floats.
  image = nib.load(place / 'result' / maps.MASK_NAME)
  affine = image.affine.copy()
  affine[:3, 3] += affine[:3, 1] * (mask.shape[1] - 1)
  affine[:3, 1] *= -1
  edited = nib.Nifti1Image(mask[:, ::-1].T.astype(np.float32), affine)
  nib.save(edited, tmp_path / 'edited.nii.gz')
  first = one.positive_slices[0]
  status = _rescore(
    place,
    tmp_path / 'out',
    *('--lung-mask', tmp_path / 'edited.nii.gz'),
    *('--exclude-slices', f'0,{first}-{first + 1}'),
    *('--slice-threshold', '0.6', '--map-threshold', '0.7', '--case-threshold', '1'),
    '--viewer',
  )
  assert status == 0
  two = result_json.read_result(tmp_path / 'out')
  assert two.edits == results.Edits(
    hashlib.sha256(np.ascontiguousarray(mask).tobytes()).hexdigest(),
    (0, first, first + 1),
    hashlib.sha256((place / 'result' / 'result.json').read_bytes()).hexdigest(),
    {'slice_probability': 0.5, 'map': 0.6, 'case_corona_score_cm3': None},
  )
  assert two.case_detected is True and two.thresholds.map == 0.7
  assert 0 < two.corona_score_cm3 < one.corona_score_cm3
  stored, _ = maps.read(tmp_path / 'out' / maps.MASK_NAME)
  np.testing.assert_array_equal(stored, mask)
  page = report_page.Page((tmp_path / 'out' / 'report.html').read_bytes())
  words = page.by_id('edits').words()
  assert b'href="viewer.html"' in (tmp_path / 'out' / 'report.html').read_bytes()
  assert 'lung mask was given' in (tmp_path / 'out' / 'viewer.html').read_text('utf-8')
  assert f'3 slices were excluded from the score: 0, {first}-{first + 1}.' in words
  assert 'lung mask was given' in words and 'before: ' in words
  assert 'stays in the lung volume' in words
  assert 'made or corrected by other means' in page.by_id('methods').words()
  assert 'lung mask was given' in page.by_id('provenance').words()
  assert 'Edited: The lung mask was given' in capsys.readouterr().out


def test_scoring_with_the_mask_of_a_result_gives_its_numbers(
  place, tmp_path, monkeypatch
):
  class WithoutLungs(fake_models.FakeModels):
    def segment_lungs(self, hu):
      pytest.fail('the lung network may not be asked')

  monkeypatch.setattr(predictors, 'load_models', lambda _: WithoutLungs())
  one = result_json.read_result(place / 'result')
  score = ('score', place / 'study.nii.gz', '--models', 'm')
  mask = ('--lung-mask', place / 'result' / maps.MASK_NAME)
  assert _run(*score, *mask, '--viewer', '--output', tmp_path / 'same') == 0
  assert (tmp_path / 'same' / 'viewer.html').exists()
  two = result_json.read_result(tmp_path / 'same')
  for name in _NUMBERS:
    assert getattr(one, name) == getattr(two, name), name
  assert two.edits.kinds == ('lung mask given',)
  first = one.positive_slices[0]
  excluded = ('--exclude-slices', f'{first}')
  assert _run(*score, *mask, *excluded, '--output', tmp_path / 'scored') == 0
  assert _rescore(place, tmp_path / 'rescored', *excluded) == 0
  scored, rescored = (
    result_json.read_result(tmp_path / name) for name in ('scored', 'rescored')
  )
  assert first not in scored.positive_slices
  for name in _NUMBERS:
    assert getattr(scored, name) == getattr(rescored, name), name


def test_no_tensorflow_is_imported(place, tmp_path):
  code = (
    'import sys\n'
    'from covid_tf import cli\n'
    'status = cli.main(sys.argv[1:])\n'
    'assert not {"tensorflow", "keras"} & set(sys.modules)\n'
    'sys.exit(status)'
  )
  arguments = ('rescore', place / 'result', '--study', place / 'study.nii.gz')
  done = subprocess.run(
    [sys.executable, '-c', code, *arguments, '--output', tmp_path / 'out'],
    cwd=pathlib.Path(cli.__file__).parents[1],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0 and done.stderr == ''


def _mask(place, change, name='mask.nii.gz', shift_mm=0.0):
  image = nib.load(place / 'result' / maps.MASK_NAME)
  affine = image.affine.copy()
  affine[0, 3] += shift_mm
  changed = change(np.asarray(image.dataobj))
  nib.save(nib.Nifti1Image(changed, affine), place / name)
  return place / name


@pytest.mark.parametrize('command', ['score', 'rescore'])
@pytest.mark.parametrize(
  'flag, value, words',
  [
    ('--exclude-slices', '24', '0 to 23 are required'),
    ('--exclude-slices', '3,99999', '0 to 23 are required'),
    ('--exclude-slices', '0-23', 'must be left'),
    ('--exclude-slices', '1-23', 'must be left'),
    ('--exclude-slices', '7-3', "found '7-3'"),
    ('--exclude-slices', '3-', "found '3-'"),
    ('--exclude-slices', 'a', "found 'a'"),
    ('--exclude-slices', '', "found ''"),
    ('--exclude-slices', '3,,4', "found ''"),
    ('--exclude-slices', '1.5', "found '1.5'"),
    ('--exclude-slices', '٣', "found '٣'"),
    ('--exclude-slices', '0-99999999999999999999', 'found '),
    ('--exclude-slices', '0-999999999', 'found '),
    ('--lung-mask', 'missing.nii.gz', 'missing.nii.gz: '),
    ('--lung-mask', 'study.nii.gz', 'whole numbers from 0'),
    ('--lung-mask', 'moved', 'voxel on voxel, found up to 3 mm away'),
    ('--lung-mask', 'cropped', '24 slices of 42 x 64'),
    ('--lung-mask', 'twice', 'found labels 0, 1, 2'),
    ('--lung-mask', 'bytes', 'found labels 0, 255'),
    ('--lung-mask', 'shares', 'with fractions'),
    ('--lung-mask', 'empty', 'found an empty mask'),
    ('--lung-mask', 'soft', 'lung of this CT is required'),
  ],
)
def test_what_cannot_be_corrected_so_is_refused(
  command, flag, value, words, place, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(predictors, 'load_models', lambda _: fake_models.FakeModels())
  if value in _MASKS:
    path = _mask(place, *_MASKS[value])
  else:
    path = place / value
  given_value = path if flag == '--lung-mask' else value
  arguments = (f'{flag}={given_value}', '--output', tmp_path / 'out')
  if command == 'score':
    status = _run('score', place / 'study.nii.gz', '--models', 'm', *arguments)
  else:
    status = _rescore(place, tmp_path / 'out', f'{flag}={given_value}')
  assert status == 2
  said = capsys.readouterr().err.strip()
  assert words in said and said.startswith(f'covid-tf {command}: ')
  assert len(said.splitlines()) == 1
  assert os.listdir(tmp_path) == []


def _soft(mask):
  """A block of as many voxels, in the back where no lung is."""
  other = np.zeros_like(mask)
  other[20:44, 35:37] = 1
  return other * (1 - mask)


_MASKS = {
  'moved': (lambda mask: mask, 'moved.nii', 3.0),
  'cropped': (lambda mask: mask[:, :, 1:], 'cropped.nii'),
  'twice': (
    lambda mask: mask * (1 + (np.arange(64) > 31)).astype(np.uint8)[:, None, None],
    'two.nii',
  ),
  'bytes': (lambda mask: mask * np.uint8(255), 'bytes.nii.gz'),
  'shares': (lambda mask: mask * np.float32(0.7), 'shares.nii.gz'),
  'empty': (lambda mask: mask * 0, 'empty.nii'),
  'soft': (_soft, 'soft.nii'),
}


@pytest.mark.parametrize(
  'flags, words',
  [
    (('--slice-threshold', '0.3'), 'maps of slices below it were not stored'),
    (('--slice-threshold', '1'), "below 1 is required, found '1'"),
    (('--map-threshold', 'nan'), "found 'nan'"),
    (('--map-threshold', 'high'), "found 'high'"),
    (('--case-threshold', 'nowhere.json'), 'nowhere.json'),
  ],
)
def test_thresholds_that_are_none_are_refused(flags, words, place, tmp_path, capsys):
  assert _rescore(place, tmp_path / 'out', *flags) == 2
  assert words in capsys.readouterr().err
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
  'study, words',
  [
    ('gone.nii.gz', 'found nothing there'),
    ('other.nii.gz', 'found one of other voxels'),
    ('short.nii.gz', 'found one of another series'),
  ],
)
def test_another_study_or_none_is_refused(study, words, place, tmp_path, capsys):
  assert _rescore(place, tmp_path / 'out', study=study) == 2
  assert words in capsys.readouterr().err
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('output', ['result', 'result/', 'result/edited', 'link'])
def test_the_result_is_never_changed(output, place, capsys):
  link = place / 'link'
  if not link.exists():
    link.symlink_to(place / 'result')
  before = _contents(place / 'result')
  assert _rescore(place, f'{place}/{output}') == 2
  assert 'which is never changed' in capsys.readouterr().err
  assert _contents(place / 'result') == before


@pytest.mark.parametrize('result', ['nothing', 'study.nii.gz', '.'])
def test_what_is_no_result_is_refused(result, place, tmp_path, capsys):
  status = _run(
    'rescore',
    *(place / result, '--study', place / 'study.nii.gz', '--output', tmp_path / 'out'),
  )
  assert status == 2
  assert 'result.json' in capsys.readouterr().err
  assert os.listdir(tmp_path) == []


def test_a_threshold_chosen_with_other_models_is_refused(place, tmp_path, capsys):
  point = {
    'schema_version': 1,
    'case_corona_score_cm3': 10,
    'rule': 'youden',
    'models': {'classifier': 'c' * 64},
    'thickness_mm': 5.0,
    'smoothing_mm': 6.0,
  }
  path = tmp_path / 'operating_point.json'
  path.write_text(json.dumps(point))
  assert _rescore(place, tmp_path / 'out', '--case-threshold', path) == 2
  assert 'chosen with the classifier model' in capsys.readouterr().err
  point['models'] = {'classifier': 'b' * 64}
  path.write_text(json.dumps(point))
  assert _rescore(place, tmp_path / 'out', '--case-threshold', path) == 0
  found = result_json.read_result(tmp_path / 'out')
  assert found.case_detected is (found.corona_score_cm3 > 10)


def test_slices_are_named_as_people_write_them():
  assert shared_flags.excluded_slices(None) == ()
  assert shared_flags.excluded_slices(' 12, 3-5 ,4') == (3, 4, 5, 12)
  assert shared_flags.excluded_slices('0-0') == (0,)
