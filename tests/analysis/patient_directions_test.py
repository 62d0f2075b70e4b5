"""Slice 0 is the patient's most inferior one, and results lie on their input.

One made-up patient, stored along all 48 orders and directions of a file's axes.
"""

import itertools

import hypothesis
from hypothesis import strategies as st
import nibabel
import numpy as np
import odd_series
import pytest
from scipy.spatial import transform
import synthetic_case

from covid_tf import errors
from covid_tf import readers
from covid_tf.analysis import orientation
from covid_tf.cohort.manifestations import slices
from covid_tf.datasets.collections import own_layout
from covid_tf.reports import case_pictures
from covid_tf.reports import scored_study
from covid_tf.storage import maps
from covid_tf.storage import result_json

_SHAPE = (12, 30, 44)
_SPACING_MM = (22.0, 8.5, 9.0)
_LESION = ((-85, 45, -70), (30, 28, 30))  # Right, dorsal, basal; LPS mm.
_ORDERS = [
  (axes, flips)
  for axes in itertools.permutations(range(3))
  for flips in itertools.product((1, -1), repeat=3)
]
_NAMED = {
  'LAS': ('L', 'A', 'S'),
  'LPS': ('L', 'P', 'S'),
  'RAS': ('R', 'A', 'S'),
  'RPI': ('R', 'P', 'I'),
  'PIR': ('P', 'I', 'R'),
}
_orders = pytest.mark.parametrize('axes, flips', _ORDERS)


def _usual(rotation=None, spacing_mm=_SPACING_MM, shape=_SHAPE):
  """The patient with slices to the head, rows to the back, columns to the left."""
  affine = synthetic_case.axial_affine(spacing_mm, shape)
  if rotation is not None:
    affine[:3, :3] = rotation @ affine[:3, :3]
  return synthetic_case.make_volume(affine, shape, (_LESION,))


def _image(volume, codes, values=None):
  """NIfTI of a volume's grid, its axes stored as nibabel's orientation says."""
  values = volume.hu if values is None else values
  image = nibabel.Nifti1Image(
    np.ascontiguousarray(values.T), maps.ras_affine(volume.affine)
  )
  image.header.set_xyzt_units('mm')
  return image.as_reoriented(codes)


def _codes(letters, volume):
  start = nibabel.io_orientation(maps.ras_affine(volume.affine))
  return nibabel.orientations.ornt_transform(
    start, nibabel.orientations.axcodes2ornt(letters)
  )


def _require_same_patient(read, usual):
  """Every voxel of `read` is the one of `usual` at its millimetres."""
  assert read.affine[2, 0] > 0
  index = np.argwhere(np.ones(read.shape, bool))
  place = usual.lps_mm_to_index(read.index_to_lps_mm(index))
  assert np.abs(place - np.rint(place)).max() < 1e-2
  place = np.rint(place).astype(int)
  np.testing.assert_array_equal(read.hu[tuple(index.T)], usual.hu[tuple(place.T)])
  np.testing.assert_array_equal(place[:, 0], index[:, 0])  # The same slices.


def _score(volume):
  return synthetic_case.make_result(volume, (_LESION,), stored_grid=volume.stored_grid)


@_orders
def test_slices_run_to_the_head_and_planes_are_turned(tmp_path, axes, flips):
  usual = _usual()
  nibabel.save(_image(usual, np.stack((axes, flips), 1)), tmp_path / 'ct.nii')
  read = readers.read_ct(tmp_path / 'ct.nii')
  _require_same_patient(read, usual)
  turn = orientation.plane_turn(read.affine)
  np.testing.assert_array_equal(turn.to_usual(read.hu), usual.hu)


@_orders
def test_map_and_mask_lie_on_their_input_index_by_index(tmp_path, axes, flips):
  usual = _usual()
  codes = np.stack((axes, flips), 1)
  source = _image(usual, codes)
  nibabel.save(source, tmp_path / 'ct.nii.gz')
  volume = readers.read_ct(tmp_path / 'ct.nii.gz')
  result = _score(volume)
  expected = _score(usual)
  (tmp_path / 'out').mkdir()
  maps.write_localization(tmp_path / 'out' / 'localization.nii.gz', result)
  maps.write_lung_mask(tmp_path / 'out' / 'lung_mask.nii.gz', result)
  result_json.write_result(tmp_path / 'out' / 'result.json', result)
  for name, values in (
    ('localization.nii.gz', expected.localization.to_volume()),
    ('lung_mask.nii.gz', expected.lung_mask),
  ):
    image = nibabel.load(tmp_path / 'out' / name)
    assert image.shape == source.shape
    np.testing.assert_allclose(image.affine, source.affine, atol=1e-4)
    np.testing.assert_allclose(
      image.dataobj, _image(usual, codes, values).dataobj, atol=1e-5
    )
  stored = result_json.read_result(tmp_path / 'out')
  mask, map_, affine = maps.read_maps(tmp_path / 'out', stored)
  np.testing.assert_array_equal(mask, result.lung_mask)
  np.testing.assert_array_equal(map_.to_volume(), result.localization.to_volume())
  np.testing.assert_allclose(affine, volume.affine, atol=1e-4)
  again = slices.read_study(tmp_path / 'out' / 'result.json', volume)
  np.testing.assert_array_equal(again.lung_mask, result.lung_mask)


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(
  st.sampled_from(_ORDERS),
  st.tuples(*[st.floats(-13, 13)] * 3),
  st.sampled_from(('mm', 'micron')),
)
def test_oblique_files(tmp_path_factory, order, angles, unit):
  folder = tmp_path_factory.mktemp('oblique')
  rotation = transform.Rotation.from_euler('zyx', angles, degrees=True).as_matrix()
  usual = _usual(rotation)
  codes = np.stack(order, 1)
  source = _image(usual, codes)
  if unit == 'micron':
    affine = source.affine * [[1000], [1000], [1000], [1]]
    source = nibabel.Nifti1Image(np.asarray(source.dataobj), affine)
    source.header.set_xyzt_units(unit)
  nibabel.save(source, folder / 'ct.nii')
  volume = readers.read_ct(folder / 'ct.nii')
  _require_same_patient(volume, usual)
  result = _score(volume)
  maps.write_lung_mask(folder / 'mask.nii.gz', result)
  image = nibabel.load(folder / 'mask.nii.gz')
  np.testing.assert_allclose(image.affine, source.affine, rtol=1e-4, atol=1e-2)
  expected = _image(usual, codes, _score(usual).lung_mask)
  assert np.mean(np.asarray(image.dataobj) != expected.dataobj) < 1e-3  # Rounding.
  mask, affine = maps.read(folder / 'mask.nii.gz')
  np.testing.assert_array_equal(mask, result.lung_mask)
  np.testing.assert_allclose(affine, volume.affine, atol=1e-2)


def test_a_fourth_axis_of_one_is_kept(tmp_path):
  usual = _usual()
  source = _image(usual, _codes('LAS', usual))
  nibabel.save(
    nibabel.Nifti1Image(np.asarray(source.dataobj)[..., np.newaxis], source.affine),
    tmp_path / 'ct.nii',
  )
  result = _score(readers.read_ct(tmp_path / 'ct.nii'))
  maps.write_lung_mask(tmp_path / 'mask.nii.gz', result)
  assert nibabel.load(tmp_path / 'mask.nii.gz').shape == (*source.shape, 1)
  np.testing.assert_array_equal(
    maps.read(tmp_path / 'mask.nii.gz')[0], result.lung_mask
  )


@pytest.mark.parametrize(
  'orientation_',
  (
    (1, 0, 0, 0, 1, 0),
    (-1, 0, 0, 0, 1, 0),
    (1, 0, 0, 0, -1, 0),
    (-1, 0, 0, 0, -1, 0),
    (0, 1, 0, 1, 0, 0),
    (0, 1, 0, -1, 0, 0),
  ),
)
def test_mirrored_columns_of_dicom(tmp_path, orientation_):
  hu = odd_series.chest_hu()
  odd_series.save(odd_series.series(hu, orientation=orientation_), tmp_path / 'ct')
  volume = readers.read_ct(tmp_path / 'ct')
  upside_down = np.cross(orientation_[:3], orientation_[3:])[2] < 0
  np.testing.assert_array_equal(volume.hu, hu[::-1] if upside_down else hu)
  assert volume.affine[2, 0] == 2.5 and volume.stored_grid is None
  lowest = 100 - 2.5 * 7 * upside_down
  np.testing.assert_allclose(volume.affine[:3, 3], (-8.5, -7.25, lowest))


@pytest.mark.parametrize('name', (*_NAMED, 'mirrored DICOM', 'oblique'))
def test_from_labels_to_slices_to_the_map(tmp_path, name):
  """A label of slice k is of the k-th slice from the feet, whatever the file."""
  usual = _usual(
    transform.Rotation.from_euler('x', 9, degrees=True).as_matrix()
    if name == 'oblique'
    else None
  )
  (tmp_path / 'studies').mkdir()
  if name == 'mirrored DICOM':
    usual = _usual(None, (22.0, 4.75, 4.75), (12, 52, 80))
    mirrored = usual.hu[::-1, :, ::-1]
    corner = usual.index_to_lps_mm(np.subtract(usual.shape, 1) * (1, 0, 1))
    odd_series.save(
      odd_series.series(mirrored, usual.spacing_mm, (-1, 0, 0, 0, 1, 0), corner),
      tmp_path / 'studies' / 's',
    )
    codes = _codes('LAS', usual)
  else:
    codes = _codes(_NAMED.get(name, ('L', 'A', 'S')), usual)
    nibabel.save(_image(usual, codes), tmp_path / 'studies' / 's.nii.gz')
  truth = _score(usual)
  lesion = (truth.localization.to_volume() > 0.9).astype(np.uint8)
  (tmp_path / 'lesion_masks').mkdir()
  nibabel.save(_image(usual, codes, lesion), tmp_path / 'lesion_masks' / 's.nii.gz')
  (tmp_path / 'labels.csv').write_text(
    'study,patient,slice,label\ns,p,0,0\n' + f's,p,{_SHAPE[0] - 1},1\n'
  )
  (entry,) = own_layout.list_studies(tmp_path)
  study = entry.read()
  drawn = np.flatnonzero(lesion.any(axis=(1, 2)))
  assert drawn.size and drawn.max() < 6  # Basal: near slice 0.
  assert set(drawn) <= set(np.flatnonzero(study.labels == 1))
  assert study.labels[0] == 0 and study.labels[-1] == 1
  np.testing.assert_array_equal(study.lesion_mask.any(axis=(1, 2)), lesion.any((1, 2)))
  volume = readers.read_ct(next((tmp_path / 'studies').iterdir()))
  turn = orientation.plane_turn(volume.affine)
  np.testing.assert_array_equal(turn.to_usual(volume.hu), usual.hu)
  maker = case_pictures.CasePictures(volume, _score(volume))
  places = [maker.position_mm(index) for index in range(_SHAPE[0])]
  assert np.all(np.diff(places) > 0)


def test_a_result_whose_slices_run_the_other_way_is_refused(tmp_path):
  """As results of LAS files were stored before slice 0 was always the lowest."""
  usual = _usual()
  scored_study.write_all(
    tmp_path, _score(usual), usual, demo_models=False, with_report=False
  )
  upside_down = usual.affine @ np.array(
    [[-1, 0, 0, _SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]
  )
  old = synthetic_case.make_volume(upside_down, _SHAPE, (_LESION,))
  with pytest.raises(errors.UsageError, match='the other way.*score the study again'):
    slices.read_study(tmp_path / 'result.json', old)
