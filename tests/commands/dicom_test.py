"""`score --dicom`, and `dicom` of a stored result: the same objects, all or none."""

import dicom_series
import fake_models
import numpy as np
import pydicom
import pytest
import synthetic_case

from covid_tf import cli
from covid_tf import predictors
from covid_tf import volume as volume_lib
from covid_tf.reports import dicom_export
from covid_tf.storage import result_json
from covid_tf.storage.dicom import measurement_groups

_SHAPE, _SPACING_MM = (20, 50, 80), (14.0, 4.8, 4.4)


def _volume(lesions=synthetic_case.LESIONS, reverse=()):
  affine = synthetic_case.axial_affine(_SPACING_MM, _SHAPE, reverse)
  return synthetic_case.make_volume(affine, _SHAPE, lesions)


def _run(*arguments) -> int:
  try:
    return cli.main([str(argument) for argument in arguments])
  except SystemExit as end:
    return end.code or 0


@pytest.fixture(name='place', scope='module')
def _place(tmp_path_factory):
  """series/ as DICOM, nifti.nii.gz of it, and scored results of both."""
  root = tmp_path_factory.mktemp('dicom')
  dicom_series.write(root / 'series', _volume())
  _write_as_converters_do(root / 'nifti.nii.gz', _volume())
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(predictors, 'load_models', lambda _: fake_models.FakeModels())
    for study, flags in (('series', ('--dicom',)), ('nifti.nii.gz', ())):
      output = root / f'scored-{study.split(".")[0]}'
      assert (
        _run('score', root / study, '--output', output, '--models', 'm', *flags) == 0
      )
  return root


def _write_as_converters_do(path, volume):
  """NIfTI with rows that run to the front, as dcm2niix writes them."""
  affine = volume.affine.copy()
  affine[:3, 3] += affine[:3, 1] * (volume.shape[1] - 1)
  affine[:3, 1] *= -1
  hu = np.ascontiguousarray(volume.hu[:, ::-1])
  synthetic_case.write_nifti(path, volume_lib.CTVolume(hu, affine))


@pytest.fixture(name='scoring')
def _scoring(monkeypatch):
  monkeypatch.setattr(predictors, 'load_models', lambda _: fake_models.FakeModels())


def _objects(folder):
  return {path.name: path.read_bytes() for path in (folder / 'dicom').iterdir()}


def test_objects_stand_beside_the_result(place):
  made = _objects(place / 'scored-series')
  assert set(made) == {'segmentation.dcm', 'parametric_map.dcm', 'report.dcm'}
  assert all(f'dicom/{name}' in dicom_export.PATTERNS for name in made)
  assert not (place / 'scored-nifti' / 'dicom').exists()


def test_a_stored_result_gives_the_same_objects(place, tmp_path, capsys):
  assert (
    _run(
      'dicom',
      place / 'scored-series',
      '--study',
      place / 'series',
      '--output',
      tmp_path,
    )
    == 0
  )
  assert _objects(tmp_path) == _objects(place / 'scored-series')
  printed = capsys.readouterr()
  assert str(tmp_path / 'dicom' / 'segmentation.dcm') in printed.out
  assert printed.err == ''


def test_pictures_come_when_asked_for(place, tmp_path):
  result, study = place / 'scored-series', place / 'series'
  arguments = ('dicom', result, '--study', study, '--output', tmp_path)
  assert _run(*arguments, '--dicom-pictures') == 0
  made = _objects(tmp_path)
  names = {f'picture_{number:02d}.dcm' for number in (1, 2, 3)}
  assert set(made) == {*_objects(result), *names}
  series = {
    pydicom.dcmread(tmp_path / 'dicom' / name).SeriesInstanceUID for name in made
  }
  assert len(series) == len(made)
  assert _run(*arguments) == 0  # Without them, those of before go away.
  assert _objects(tmp_path) == _objects(result)


def test_the_report_has_the_numbers_of_the_result(place):
  result = place / 'scored-series'
  stored = result_json.read_result(result)
  numbers = measurement_groups.read_measurements(result / 'dicom' / 'report.dcm')
  attention = numbers['covid-tf model attention']
  assert attention['CORONA'] == stored.corona_score_cm3
  assert attention['CORONA-LUNG'] == stored.corona_score_in_lung_cm3
  assert attention['INVOLVED-LUNG'] == 100 * stored.involved_lung_fraction
  lungs = numbers['covid-tf density, lungs']
  assert lungs['112031'] == stored.densities.regions['lungs'].mean_hu


def test_a_result_of_nifti_lies_on_the_series_it_was_converted_from(place, tmp_path):
  result = place / 'scored-nifti'
  assert _run('dicom', result, '--study', place / 'series', '--output', tmp_path) == 0
  stored = result_json.read_result(result)
  made = pydicom.dcmread(tmp_path / 'dicom' / 'segmentation.dcm')
  map_ = pydicom.dcmread(tmp_path / 'dicom' / 'parametric_map.dcm').pixel_array / 65535
  counted = made.pixel_array[_SHAPE[0] :] > 0
  cm3 = map_[counted].sum() * stored.voxel_volume_mm3 / 1000
  assert cm3 == pytest.approx(stored.corona_score_cm3, rel=1e-3)
  lungs = made.pixel_array[: _SHAPE[0]] > 0
  inside = map_[counted & lungs].sum() * stored.voxel_volume_mm3 / 1000
  assert inside == pytest.approx(stored.corona_score_in_lung_cm3, rel=1e-3)
  # The lungs lie over the CT's dark voxels, as its rows are stored.
  ct = _volume()
  assert ct.hu[lungs].mean() < -700
  assert made.StudyInstanceUID == dicom_series.STUDY_UID


def _refused(capsys, output, *arguments, status=2):
  assert _run(*arguments, '--output', output) == status
  assert not (output / 'dicom').exists()
  text = capsys.readouterr().err
  assert 'Traceback' not in text and text.startswith('covid-tf ')
  return text


def test_other_studies_are_refused(place, tmp_path, capsys):
  dicom_series.write(tmp_path / 'voxels', _volume(lesions=synthetic_case.LESIONS[:1]))
  dicom_series.write(
    tmp_path / 'moved',
    _volume(),
    lambda _, dataset: setattr(
      dataset,
      'ImagePositionPatient',
      [dataset.ImagePositionPatient[0] + 0.01, *dataset.ImagePositionPatient[1:]],
    ),
  )
  dicom_series.write(
    tmp_path / 'other',
    _volume(),
    lambda _, dataset: setattr(dataset, 'SeriesInstanceUID', '1.2.3.4'),
  )
  for study, words in (('voxels', 'voxels'), ('moved', 'place'), ('other', 'series')):
    text = _refused(
      capsys,
      tmp_path / 'out',
      'dicom',
      place / 'scored-series',
      '--study',
      tmp_path / study,
      status=3 if study == 'other' else 2,
    )
    assert words in text
  for study in ('voxels', 'moved'):
    text = _refused(
      capsys,
      tmp_path / 'out',
      'dicom',
      place / 'scored-nifti',
      '--study',
      tmp_path / study,
    )
    assert 'required' in text


def test_nifti_is_scored_without_objects_or_refused(place, tmp_path, scoring, capsys):
  text = _refused(
    capsys, tmp_path, 'score', place / 'nifti.nii.gz', '--models', 'm', '--dicom'
  )
  assert 'covid-tf dicom' in text
  assert not (tmp_path / 'result.json').exists()


def test_flags_of_objects_belong_to_dicom(place, tmp_path, scoring, capsys):
  score = ('score', place / 'series', '--models', 'm')
  assert '--dicom' in _refused(capsys, tmp_path, *score, '--dicom-map', 'float32')
  assert 'float32' in _refused(
    capsys, tmp_path, *score, '--dicom', '--dicom-map', 'int8'
  )


def test_objects_of_an_earlier_result_do_not_stay(place, tmp_path, scoring):
  score = ('score', place / 'series', '--models', 'm', '--output', tmp_path)
  assert _run(*score, '--dicom') == 0
  (tmp_path / 'dicom' / 'notes.txt').write_text('mine')
  assert _run(*score) == 0
  assert [path.name for path in (tmp_path / 'dicom').iterdir()] == ['notes.txt']


def test_objects_never_come_among_the_files_of_the_study(place, tmp_path, capsys):
  study = dicom_series.write(tmp_path / 'dicom', _volume())
  before = sorted(study.iterdir())
  assert (
    _run('dicom', place / 'scored-series', '--study', study, '--output', tmp_path) == 2
  )
  assert 'outside of the study' in capsys.readouterr().err
  assert sorted(study.iterdir()) == before


def test_a_missing_extra_is_one_line(place, tmp_path, scoring, capsys, monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  text = _refused(
    capsys, tmp_path, 'score', place / 'series', '--models', 'm', '--dicom'
  )
  assert "extra 'clinic'" in text
