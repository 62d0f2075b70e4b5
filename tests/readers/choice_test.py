"""Which series is meant: what is no stack, what is too long to be left out."""

import dataclasses
import subprocess
import sys
import warnings

import numpy as np
import odd_series
import pydicom
from pydicom import uid
import pytest

from covid_tf import cli
from covid_tf import errors
from covid_tf import readers
from covid_tf import results
from covid_tf.batch import run_configuration

OTHER_UID = '1.2.826.0.1.3680043.10.511.3.2'
CORONAL = (1, 0, 0, 0, 0, -1)


def _save(folder, *several):
  for number, slices in enumerate(several):
    odd_series.save(slices, folder, prefix=f'{number}-')


def _refusal(folder, **options) -> str:
  with pytest.raises(errors.CTReadError) as caught:
    readers.read_ct(folder, **options)
  return str(caught.value)


def _tall(extent_mm, uid, count=12, seed=1):
  """An axial series of some slices over so many millimetres."""
  return odd_series.series(
    odd_series.chest_hu((count, 36, 40), seed),
    spacing_mm=(extent_mm / (count - 1), 0.75, 0.75),
    series_uid=uid,
  )


@pytest.mark.parametrize('chest_mm', (120, 239))
def test_a_chest_beside_a_whole_body_is_asked_for(tmp_path, chest_mm):
  _save(tmp_path, _tall(995 / 2, odd_series.SERIES_UID, 24), _tall(chest_mm, OTHER_UID))
  text = _refusal(tmp_path)
  assert '2 series could be meant' in text
  assert odd_series.SERIES_UID in text and OTHER_UID in text


@pytest.mark.parametrize('whole_mm', (500, 995))
def test_a_chest_is_no_short_series_however_long_the_other_one(tmp_path, whole_mm):
  _save(tmp_path, _tall(whole_mm, odd_series.SERIES_UID, 30), _tall(125, OTHER_UID))
  assert '2 series could be meant' in _refusal(tmp_path)


def test_a_bolus_test_beside_a_whole_body_is_set_aside(tmp_path):
  _save(tmp_path, _tall(900, odd_series.SERIES_UID, 30), _tall(90, OTHER_UID, 4))
  volume = readers.read_ct(tmp_path)
  assert volume.series_uid == odd_series.SERIES_UID
  assert '1 much shorter series set aside' in volume.warnings


def _coronal_with(axial_count):
  slices = odd_series.series(orientation=CORONAL, series_uid=OTHER_UID)
  reference = odd_series.series(series_uid=OTHER_UID)[:axial_count]
  for ds in reference:
    ds.SOPInstanceUID += '.99'
  return reference + slices


@pytest.mark.parametrize('count', (1, 2, 3))
def test_a_coronal_series_with_axial_reference_images(tmp_path, count):
  _save(tmp_path, odd_series.series(), _coronal_with(count))
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    volume = readers.read_ct(tmp_path)
  assert volume.series_uid == odd_series.SERIES_UID
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())


def test_a_mixed_series_alone_is_refused_in_words(tmp_path):
  _save(tmp_path, _coronal_with(1))
  assert 'not axial: 8 of 9 images lie otherwise' in _refusal(tmp_path)


def test_a_sagittal_series_with_many_axial_images_is_no_clear_choice(tmp_path):
  mixed = odd_series.series(orientation=(0, 1, 0, 0, 0, -1), series_uid=OTHER_UID)
  axial = odd_series.series(series_uid=OTHER_UID)
  for ds in axial:
    ds.SOPInstanceUID += '.99'
  _save(tmp_path, odd_series.series(), mixed + axial)
  assert '2 series could be meant' in _refusal(tmp_path)


def test_the_command_line_prints_no_warning_of_a_library(tmp_path):
  _save(
    tmp_path,
    _coronal_with(3),
    _tall(20, odd_series.SERIES_UID, 3),
    _tall(20, odd_series.SERIES_UID + '.1', 3),
  )
  for index, ds in enumerate(odd_series.series(series_uid='1.2.9')):
    ds.ImagePositionPatient = [0, 0, 1e5 if index else -1e5]
    odd_series.save_one(ds, tmp_path / f'far{index}.dcm')
  run = subprocess.run(
    [sys.executable, '-W', 'always', '-m', 'covid_tf.cli', 'inspect', str(tmp_path)],
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 3
  assert 'Warning' not in run.stderr and '.py' not in run.stderr


def _capture(**changes):
  """A copy of the third slice that says what `changes` say; None removes."""
  ds = odd_series.series()[2]
  ds.SOPInstanceUID += '.77'
  ds.PixelData = bytes(len(ds.PixelData))
  for keyword, value in changes.items():
    if value is None:
      delattr(ds, keyword)
    else:
      setattr(ds, keyword, value)
  return ds


_NO_PLACE = {'ImagePositionPatient': None, 'ImageOrientationPatient': None}
_SCREEN_SAVE = ['DERIVED', 'SECONDARY', 'SCREEN SAVE']


@pytest.mark.parametrize(
  'changes',
  (
    {'SOPClassUID': uid.SecondaryCaptureImageStorage, 'Modality': 'OT', **_NO_PLACE},
    {'SOPClassUID': uid.SecondaryCaptureImageStorage},
    {'SOPClassUID': uid.MultiFrameTrueColorSecondaryCaptureImageStorage, **_NO_PLACE},
    {
      'PhotometricInterpretation': 'RGB',
      'SamplesPerPixel': 3,
      'BitsAllocated': 8,
      'BitsStored': 8,
      'HighBit': 7,
    },
    {'BitsAllocated': 8, 'BitsStored': 8, 'HighBit': 7, **_NO_PLACE},
    {'ImageType': _SCREEN_SAVE, **_NO_PLACE},
    {'ImageType': _SCREEN_SAVE},
    {'ImageType': ['DERIVED', 'SECONDARY', 'OTHER'], **_NO_PLACE},
    {'ImageType': ['DERIVED', 'SECONDARY', 'DOSE_INFO'], **_NO_PLACE},
    {
      'SOPClassUID': uid.SecondaryCaptureImageStorage,
      'ImagePositionPatient': [0, 0, 900],
      'Rows': 18,
      'Columns': 80,
    },
  ),
)
@pytest.mark.parametrize('series_uid', (None, odd_series.SERIES_UID))
def test_a_capture_with_the_uid_of_the_series_is_set_aside(
  tmp_path, changes, series_uid
):
  _save(tmp_path, odd_series.series(), [_capture(**changes)])
  volume = readers.read_ct(tmp_path, series_uid)
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())
  assert len(volume.warnings) == 1 and volume.warnings[0].startswith(
    '1 image(s) of the series that are no slices'
  )


@pytest.mark.parametrize('index', (0, 3, 7))
@pytest.mark.parametrize(
  'changes',
  (
    {'SOPClassUID': uid.SecondaryCaptureImageStorage},
    {'ImageType': _SCREEN_SAVE},
    {'BitsAllocated': 8},
    {'Modality': 'OT'},
  ),
)
def test_what_may_be_a_slice_is_never_set_aside(tmp_path, index, changes):
  slices = odd_series.series()
  for keyword, value in changes.items():
    setattr(slices[index], keyword, value)
  odd_series.save(slices, tmp_path)
  if 'ImageType' in changes:  # A word alone makes no other pixels of it.
    assert readers.read_ct(tmp_path).shape == odd_series.SHAPE
  else:
    assert f'{index:04d}.dcm' in _refusal(tmp_path)


@pytest.mark.parametrize('index', (0, 3, 7))
def test_a_slice_that_lost_its_place_is_no_capture(tmp_path, index):
  slices = odd_series.series()
  for ds in slices:
    ds.ImageType = ['DERIVED', 'SECONDARY', 'AXIAL']
  del slices[index].ImagePositionPatient
  odd_series.save(slices, tmp_path)
  assert 'Image Position' in _refusal(tmp_path)


def test_a_capture_of_a_slice_that_is_missing_leaves_a_gap(tmp_path):
  slices = odd_series.series()
  capture = _capture(SOPClassUID=uid.SecondaryCaptureImageStorage, **_NO_PLACE)
  _save(tmp_path, slices[:3] + slices[4:], [capture])
  assert 'missing' in _refusal(tmp_path)


def _frames_apart():
  slices = odd_series.series()
  for index, ds in enumerate(slices):
    ds.FrameOfReferenceUID = f'1.2.3.{index}'
  return slices


def test_frames_of_reference_are_ignored_on_request(tmp_path):
  odd_series.save(_frames_apart(), tmp_path)
  text = _refusal(tmp_path)
  assert 'have 8' in text and '--ignore-frame-of-reference' in text
  volume = readers.read_ct(tmp_path, ignore_frame_of_reference=True)
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())
  assert [text for text in volume.warnings if '8 Frame of Reference UIDs' in text]


def test_ignoring_the_frame_of_reference_ignores_no_gap(tmp_path):
  odd_series.save(_frames_apart()[:3] + _frames_apart()[4:], tmp_path)
  assert 'missing' in _refusal(tmp_path, ignore_frame_of_reference=True)


def test_one_frame_of_reference_needs_no_warning(tmp_path):
  odd_series.save(odd_series.series(), tmp_path)
  assert readers.read_ct(tmp_path, ignore_frame_of_reference=True).warnings == ()


def test_inspect_takes_the_option(tmp_path, capsys):
  odd_series.save(_frames_apart(), tmp_path)
  assert cli.main(['inspect', str(tmp_path)]) == 3
  assert cli.main(['inspect', str(tmp_path), '--ignore-frame-of-reference']) == 0
  assert '8 Frame of Reference UIDs' in capsys.readouterr().out


def _everyday(folder):
  """Scout, 1 mm lung, 1 mm soft tissue, 5 mm: UIDs end in .1 to .3."""
  scout = odd_series.series(series_uid='1.2.9', orientation=CORONAL)[:1]
  scout[0].ImageType = ['ORIGINAL', 'PRIMARY', 'LOCALIZER']
  odd_series.save(scout, folder, prefix='s')
  kinds = (
    ('1.2.3.1', 1.0, 'B60f', 'Lung 1.0 B60f', 4, '101500'),
    ('1.2.3.2', 1.0, 'B30f', 'Soft 1.0 B30f', 3, '101700'),
    ('1.2.3.3', 5.0, 'B60f', 'Lung 5.0 B60f', 2, '101600'),
  )
  for seed, (series_uid, thickness, kernel, description, number, time) in enumerate(
    kinds
  ):
    slices = odd_series.series(
      odd_series.chest_hu((round(25 / thickness) + 1, 36, 40), seed),
      spacing_mm=(thickness, 0.75, 0.75),
      series_uid=series_uid,
    )
    for ds in slices:
      ds.ConvolutionKernel, ds.SeriesDescription = kernel, description
      ds.SeriesNumber, ds.KVP, ds.SeriesTime = number, '120', time
    odd_series.save(slices, folder, prefix=series_uid)


@pytest.mark.parametrize(
  'rule, chosen',
  (
    ('thickness=thinnest,kernel=B6*', '1.2.3.1'),
    ('kernel=b6*, thickness=thinnest', '1.2.3.1'),
    ('thickness=thickest', '1.2.3.3'),
    ('thickness=5', '1.2.3.3'),
    ('thickness=0.5..1.5,kernel=B3*|B4*', '1.2.3.2'),
    ('thickness=nearest:4', '1.2.3.3'),
    ('description=*soft*', '1.2.3.2'),
    ('number=4', '1.2.3.1'),
    ('number=lowest', '1.2.3.3'),
    ('newest', '1.2.3.2'),
    ('oldest', '1.2.3.1'),
    ('slices=fewest', '1.2.3.3'),
    ('slices=1..10', '1.2.3.3'),
    ('kvp=120,newest', '1.2.3.2'),
    ('type=*AXIAL*,number=2', '1.2.3.3'),
  ),
)
def test_a_rule_picks_one_series(tmp_path, rule, chosen):
  _everyday(tmp_path)
  assert '3 series could be meant' in _refusal(tmp_path)
  volume = readers.read_ct(tmp_path, select=rule)
  assert volume.series_uid == chosen
  (warning,) = volume.warnings
  assert warning.startswith('chosen by the rule') and 'from 3 series' in warning
  assert rule.replace(', ', ',') in warning and 'Lung' not in warning


@pytest.mark.parametrize(
  'rule, message',
  (
    ('thickness=thinnest', '2 series could be meant after the rule'),
    ('kernel=X*', "no series fits 'kernel=X*'"),
    ('thickness=2', 'no series fits'),
    ('number=99', 'no series fits'),
  ),
)
def test_a_rule_that_leaves_several_or_none_is_refused(tmp_path, rule, message):
  _everyday(tmp_path)
  text = _refusal(tmp_path, select=rule)
  assert message in text and '1.2.3.1' in text


def test_a_rule_holds_for_the_only_series_too(tmp_path):
  odd_series.save(odd_series.series(), tmp_path)
  assert 'no series fits' in _refusal(tmp_path, select='kernel=B7*')
  assert readers.read_ct(tmp_path, select='newest').shape == odd_series.SHAPE


@pytest.mark.parametrize(
  'rule',
  (
    '',
    'thin',
    'thickness',
    'thickness=',
    'thickness=thin',
    'colour=red',
    'newest=1',
    'kernel=B6*,,newest',
    'thickness=1..',
    'number=-1',
    'kernel=B\n',
  ),
)
def test_a_rule_that_is_none_is_wrong_use(tmp_path, rule):
  odd_series.save(odd_series.series(), tmp_path)
  with pytest.raises(errors.UsageError, match='selection rule'):
    readers.read_ct(tmp_path, select=rule)


def test_a_series_and_a_rule_contradict_each_other(tmp_path):
  with pytest.raises(errors.UsageError, match='one of them'):
    readers.read_ct(tmp_path, '1.2', select='newest')


def test_series_that_differ_in_energy_are_distinguished_in_the_list(tmp_path, capsys):
  kinds = (
    ('80', 'Chest A 80kV'),
    ('140', 'Chest B Sn140kV'),
    ('80', 'MonoE 50 keV'),
    ('80', 'MonoE 70 keV'),
  )
  for number, (kvp, description) in enumerate(kinds):
    slices = odd_series.series(series_uid=f'1.2.3.{number}')
    for ds in slices:
      ds.KVP, ds.SeriesDescription, ds.SeriesNumber = kvp, description, number + 2
    odd_series.save(slices, tmp_path, prefix=str(number))
  text = _refusal(tmp_path)
  assert cli.main(['inspect', str(tmp_path), '--list']) == 0
  for listed in (text, capsys.readouterr().out):
    for number, (kvp, description) in enumerate(kinds):
      assert f"number {number + 2}, '{description}', {kvp} kV" in listed
    assert 'ORIGINAL/PRIMARY/AXIAL' in listed
  volume = readers.read_ct(tmp_path, select='description=*70 keV*')
  assert volume.series_uid == '1.2.3.3'


@pytest.mark.parametrize(
  'description',
  (
    'Chest Secret Person',
    'SECRET^PERSON lung',
    'ID-4711 chest',
    'chest 19330102',
    'secretchest 02.01.1933',
    'Person, Secret 1933-01-02',
  ),
)
def test_a_description_never_names_the_patient(tmp_path, description):
  _save(tmp_path, odd_series.series(), odd_series.series(series_uid=OTHER_UID))
  for path in tmp_path.iterdir():
    ds = pydicom.dcmread(path)
    ds.SeriesDescription = description
    odd_series.save_one(ds, path)
  text = _refusal(tmp_path).lower() + str(readers.list_series(tmp_path)).lower()
  for part in ('secret', 'person', '4711', '1933'):
    assert part not in text


def test_inspect_takes_a_rule(tmp_path, capsys):
  _everyday(tmp_path)
  assert cli.main(['inspect', str(tmp_path), '--select', 'number=3']) == 0
  assert '1.2.3.2' in capsys.readouterr().out
  assert cli.main(['inspect', str(tmp_path), '--select', 'nonsense']) == 2


def test_options_that_nobody_gives_leave_a_configuration_as_it_was():
  plain = run_configuration.Configuration((), results.Thresholds())
  assert 'select' not in plain._text() and 'phase' not in plain._text()
  digests = {
    plain.digest,
    *(
      dataclasses.replace(plain, **{name: value}).digest
      for name, value in (
        ('select', 'newest'),
        ('phase', '2'),
        ('ignore_frame_of_reference', True),
      )
    ),
  }
  assert len(digests) == 4
