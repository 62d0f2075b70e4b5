"""Enhanced multi-frame CT: geometry and rescale of each frame."""

import numpy as np
import odd_series
import pydicom
from pydicom import encaps
from pydicom import sequence
from pydicom import uid
import pytest

from covid_tf import errors
from covid_tf import readers
from covid_tf.readers import sources


def _read(ds, folder, syntax=None):
  odd_series.save([ds], folder, syntax)
  return readers.read_ct(folder)


@pytest.mark.parametrize('rescale_in_frames', (True, False))
@pytest.mark.parametrize(
  'syntax',
  (
    None,
    uid.ImplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLSLossless,
  ),
)
def test_frames_are_slices(tmp_path, syntax, rescale_in_frames):
  slices = odd_series.series()
  ds = odd_series.enhanced(slices[4:] + slices[:4], rescale_in_frames)
  volume = _read(ds, tmp_path, syntax)
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())
  np.testing.assert_allclose(volume.spacing_mm, odd_series.SPACING_MM)
  assert volume.warnings == ()


def test_a_single_file_is_enough(tmp_path):
  odd_series.save_one(odd_series.enhanced(odd_series.series()), tmp_path / 'one')
  assert readers.read_ct(tmp_path / 'one').shape == odd_series.SHAPE


def test_each_frame_has_its_own_rescale(tmp_path):
  hu = odd_series.chest_hu()
  slices = [
    odd_series.series(hu, bits_stored=16, intercept=-1024 - 16 * index)[index]
    for index in range(len(hu))
  ]
  np.testing.assert_array_equal(_read(odd_series.enhanced(slices), tmp_path).hu, hu)


def test_geometry_at_the_top_level_does_not_count(tmp_path):
  ds = odd_series.enhanced(odd_series.series())
  ds.PixelSpacing, ds.RescaleSlope, ds.RescaleIntercept = [3, 3], 5, 77
  volume = _read(ds, tmp_path)
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())
  np.testing.assert_allclose(volume.spacing_mm, odd_series.SPACING_MM)


def test_one_series_in_two_files(tmp_path):
  slices = odd_series.series()
  halves = [odd_series.enhanced(slices[:5]), odd_series.enhanced(slices[5:])]
  odd_series.save(halves, tmp_path)
  np.testing.assert_array_equal(readers.read_ct(tmp_path).hu, odd_series.chest_hu())


@pytest.mark.parametrize('keep', (('bot',), ('no bot',), ('extended',)))
def test_compressed_frames_in_several_fragments(tmp_path, keep):
  ds = odd_series.enhanced(odd_series.series())
  ds.compress(uid.JPEGLSLossless, generate_instance_uid=False)
  frames = list(
    encaps.generate_frames(ds.PixelData, number_of_frames=ds.NumberOfFrames)
  )
  if keep == ('extended',):
    ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = (
      encaps.encapsulate_extended(frames)
    )
  else:
    ds.PixelData = encaps.encapsulate(
      frames,
      fragments_per_frame=1 if keep == ('no bot',) else 2,
      has_bot=keep == ('bot',),
    )
  ds.save_as(tmp_path / 'frames.dcm', enforce_file_format=True)
  np.testing.assert_array_equal(readers.read_ct(tmp_path).hu, odd_series.chest_hu())


def test_compressed_frames_are_read_from_the_file_once(tmp_path, monkeypatch):
  odd_series.save([odd_series.enhanced(odd_series.series())], tmp_path, uid.RLELossless)
  reads, read = [], sources.FileSource.read

  def counted(source, offset, count):
    reads.append(offset)
    return read(source, offset, count)

  monkeypatch.setattr(sources.FileSource, 'read', counted)
  np.testing.assert_array_equal(readers.read_ct(tmp_path).hu, odd_series.chest_hu())
  assert len([offset for offset in reads if offset]) == 1


def _lose_frame(ds):
  del ds.PerFrameFunctionalGroupsSequence[3]


def _lose_groups(ds):
  del ds.PerFrameFunctionalGroupsSequence


def _lose_rescale(ds):
  del ds.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence


def _lose_measures(ds):
  del ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence


def _cut_pixels(ds):
  ds.PixelData = ds.PixelData[:-500]


def _many_frames(ds):
  ds.NumberOfFrames = 2_000_000_000


def _two_phases(ds):
  frames = ds.PerFrameFunctionalGroupsSequence
  for index in (1, 3, 5, 7):
    frames[index].PlanePositionSequence = frames[index - 1].PlanePositionSequence


def _colour_map(ds):
  ds.PerFrameFunctionalGroupsSequence[0].PixelValueTransformationSequence[
    0
  ].RescaleType = 'MGML'


def _two_items(ds):
  measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
  ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = sequence.Sequence(
    [measures[0], measures[0]]
  )


@pytest.mark.parametrize(
  'spoil, message',
  (
    (_lose_frame, 'Number of Frames is 8'),
    (_lose_groups, 'functional groups'),
    (_lose_rescale, 'Rescale Slope .* missing'),
    (_lose_measures, 'Pixel Spacing .* missing'),
    (_cut_pixels, 'truncated'),
    (_many_frames, 'Number of Frames'),
    (_two_phases, '4 of 4 slice positions hold different images'),
    (_colour_map, "found 'MGML'"),
    (_two_items, 'must have one item'),
  ),
  ids=lambda value: getattr(value, '__name__', ''),
)
def test_frames_that_cannot_be_trusted(tmp_path, spoil, message):
  ds = odd_series.enhanced(odd_series.series())
  spoil(ds)
  odd_series.save([ds], tmp_path)
  with pytest.raises(errors.CTReadError, match=message):
    readers.read_ct(tmp_path)


def test_a_frame_cut_from_a_compressed_file(tmp_path):
  ds = odd_series.enhanced(odd_series.series())
  ds.compress(uid.RLELossless, generate_instance_uid=False)
  ds.save_as(tmp_path / 'frames.dcm', enforce_file_format=True)
  frames = list(
    encaps.generate_frames(
      pydicom.dcmread(tmp_path / 'frames.dcm').PixelData, number_of_frames=8
    )
  )
  ds.PixelData = encaps.encapsulate(frames[:-1])
  ds.save_as(tmp_path / 'frames.dcm', enforce_file_format=True)
  with pytest.raises(errors.CTReadError, match='8 frames'):
    readers.read_ct(tmp_path)


def test_many_frames_without_functional_groups_are_named(tmp_path):
  slices = odd_series.series()
  ds = slices[0]
  ds.NumberOfFrames = 8
  ds.PixelData = b''.join(piece.PixelData for piece in slices)
  with pytest.raises(errors.CTReadError, match='Number of Frames is 8, but'):
    _read(ds, tmp_path)
