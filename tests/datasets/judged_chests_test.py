"""Judged slabs: what is positive, what is not known, what is the chest as it is."""

import dataclasses

import numpy as np
import pydicom
import pytest
import real_ct
from scipy import ndimage

from covid_tf import errors
from covid_tf import volume
from covid_tf.datasets import judged_chests
from covid_tf.datasets import stress

_SLICE_MM, _PIXEL_MM = 2.5, 2.0


@pytest.fixture(name='chest', scope='module')
def _chest():
  height, back, left = np.mgrid[:60, :90, :120]
  lungs = np.zeros(height.shape, bool)
  for middle in (32, 88):
    lungs |= ((height - 30) / 27) ** 2 + ((back - 45) / 38) ** 2 + (
      (left - middle) / 24
    ) ** 2 < 1
  hu = np.where(lungs, -860, 30) + np.random.default_rng(1).normal(0, 20, lungs.shape)
  return judged_chests.Chest(
    'chest',
    np.rint(hu).astype(np.int16),
    lungs.astype(np.uint8),
    (_SLICE_MM, _PIXEL_MM, _PIXEL_MM),
    volume.Acquisition('ACME', 'Mark 1', 'SOFT', slice_thickness_mm=2.5),
  )


@pytest.fixture(name='judged', scope='module')
def _judged(chest):
  return judged_chests.judged_chest(chest, studies=3, amount_cm3=(30.0, 80.0))


def test_slabs_of_the_chest_as_it_is_come_first_and_are_negative(chest, judged):
  untouched = judged.study == judged_chests.UNTOUCHED
  assert judged.thickness_mm == 5
  count = untouched.sum()
  assert untouched[:count].all() and list(judged.slab[:count]) == list(range(30))
  # Ellipsoids of 54 slices of 60: beyond them nothing is known to be negative.
  with_lung = judged.lung_mask.sum((1, 2)) * _PIXEL_MM**2 >= 100
  assert not with_lung.all() and with_lung.sum() > 24
  np.testing.assert_array_equal(judged.label[:count], np.where(with_lung, 0, -1))
  assert (judged.label[count:] != 0).all()
  rows, columns = (
    np.flatnonzero(chest.lung_mask.any(axis)) for axis in ((0, 2), (0, 1))
  )
  crop = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
  slab = judged.slab[count // 2]
  pair = chest.hu[2 * slab : 2 * slab + 2][:, *crop].mean(0)
  np.testing.assert_allclose(judged.hu[count // 2], pair, atol=0.51)


def test_what_lies_between_two_slabs_is_half_of_both(chest, judged):
  own = judged.between_study == judged_chests.UNTOUCHED
  assert list(judged.between_slab[own]) == list(range(29)) and own[:29].all()
  rows, columns = (
    np.flatnonzero(chest.lung_mask.any(axis)) for axis in ((0, 2), (0, 1))
  )
  crop = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
  pair = chest.hu[2 * 14 + 1 : 2 * 14 + 3][:, *crop].mean(0)
  np.testing.assert_allclose(judged.between_hu[14], pair, atol=0.51)
  for study in range(3):  # An opacity reaches from its first slab to its last one.
    shown = judged.slab[judged.study == study]
    between = judged.between_slab[judged.between_study == study]
    assert set(between) <= {*shown, *(shown - 1)} and len(between) >= len(shown) - 1
    place = int(np.flatnonzero(judged.between_study == study)[len(between) // 2])
    untouched = judged.between_hu[judged.between_slab[place]]
    assert judged.between_hu[place].mean() > untouched.mean() + 1


def test_slices_as_they_are_have_nothing_between_them(chest):
  found = judged_chests.judged_chest(chest, studies=1, thickness_mm=None)
  assert list(found.slab[:60]) == list(range(60)) and not len(found.between_hu)
  noisy = judged_chests.stressed(found, 'noise', stress.CONDITIONS['lower dose'])
  assert noisy.between_hu.shape == found.between_hu.shape


def test_labels_follow_from_the_area_of_opacity(judged):
  implanted = judged.study >= 0
  area = judged.lesion_mm2
  np.testing.assert_array_equal(judged.label[implanted] == 1, area[implanted] >= 60)
  assert set(judged.study[judged.label == 1]) == {0, 1, 2}
  assert not area[~implanted].any()
  # Where one of two slices shows it, half of a slab does: a little more than in slices.
  for study, amount_cm3 in enumerate(judged.amount_cm3):
    held = area[judged.study == study].sum() * judged.thickness_mm / 1000
    assert 0.8 * amount_cm3 < held < 1.4 * amount_cm3


def test_the_rule_counts_lung_of_middle_density(judged):
  rule = judged.rule_cm2()
  positive = judged.label == 1
  assert rule[positive].mean() > rule[judged.label == 0].mean() + 0.5
  place = int(np.argmax(rule))
  smooth = ndimage.gaussian_filter(judged.hu[place].astype(float), 1 / _PIXEL_MM)
  lung = judged.lung_mask[judged.slab[place]] > 0
  counted = ((smooth > -700) & (smooth < -100) & lung).sum() * _PIXEL_MM**2 / 100
  assert rule[place] == pytest.approx(counted, rel=0.01)


def test_a_chest_is_drawn_by_its_name_and_the_seed(chest, judged):
  again = judged_chests.judged_chest(chest, studies=1, amount_cm3=(30.0, 80.0))
  assert again.amount_cm3[0] == judged.amount_cm3[0]
  other = judged_chests.judged_chest(
    dataclasses.replace(chest, name='other'), studies=1, amount_cm3=(30.0, 80.0)
  )
  assert other.amount_cm3[0] != judged.amount_cm3[0]


def test_slabs_are_kept_and_read_again(judged, tmp_path):
  path = judged_chests.write(judged, tmp_path / 'slabs')
  assert path.name == 'chest.npz'
  found = judged_chests.read(path)
  for field in dataclasses.fields(judged):
    stated, kept = (getattr(of, field.name) for of in (judged, found))
    if isinstance(stated, np.ndarray):
      assert kept.dtype == stated.dtype
      np.testing.assert_array_equal(kept, stated)
    else:
      assert kept == stated


def test_another_file_is_refused(tmp_path):
  path = tmp_path / 'chest.npz'
  np.savez(path, hu=np.zeros((2, 3)))
  with pytest.raises(errors.UsageError, match='slabs of a judged chest'):
    judged_chests.read(path)
  path.write_bytes(b'PK')
  with pytest.raises(errors.UsageError, match='slabs of a judged chest'):
    judged_chests.read(path)


def test_the_trachea_is_no_lung(chest, tmp_path, monkeypatch):
  hu, lungs = chest.hu.copy(), chest.lung_mask.copy()
  hu[:, 20:28, 56:64] = -1000  # 2.6 cm², away from both lungs.
  lungs[:, 20:28, 56:64] = 1
  affine = np.eye(4)[[2, 1, 0, 3]] * (_SLICE_MM, _PIXEL_MM, _PIXEL_MM, 1)
  monkeypatch.setattr(
    judged_chests.readers, 'read_ct', lambda path: volume.CTVolume(hu, affine)
  )
  found = judged_chests.read_chest(tmp_path, lambda hu, spacing_mm: lungs)
  np.testing.assert_array_equal(found.lung_mask, chest.lung_mask)
  with pytest.raises(errors.NoLungsError, match='found none'):
    judged_chests.read_chest(tmp_path, lambda hu, spacing_mm: np.zeros_like(lungs))


def test_a_real_chest_is_judged():
  folder = real_ct.folder('cip-ct64', 'series')
  (found,) = judged_chests.prepare([folder], judged_chests.Wanted(studies=1))
  assert found.name == 'cip-ct64'
  assert (found.label == 1).any() and (found.label == 0).sum() > 40
  first = pydicom.dcmread(sorted(folder.iterdir())[0], stop_before_pixels=True)
  assert found.acquisition.manufacturer == (first.get('Manufacturer') or None)


def test_conditions_follow_a_chest_and_names_stand_for_patients(judged, tmp_path):
  path = judged_chests.write(judged, tmp_path)
  wanted = judged_chests.Wanted(stress=True)
  found = list(judged_chests.prepare([path], wanted))
  assert [one.condition for one in found] == ['', *stress.CONDITIONS]
  for changed in found[1:]:
    assert changed.hu.shape == judged.hu.shape
    assert not np.array_equal(changed.hu, judged.hu)
    assert changed.between_hu.shape == judged.between_hu.shape
    assert not np.array_equal(changed.between_hu, judged.between_hu)
    np.testing.assert_array_equal(changed.label, judged.label)
  with pytest.raises(errors.UsageError, match='twice'):
    list(judged_chests.prepare([path, path], wanted))


def test_a_texture_is_of_a_slice_with_an_opacity(tmp_path):
  folder = real_ct.folder('covid-19-ny-sbu', 'A002304-19010112-135-axial')
  texture = judged_chests.read_texture(next(folder.iterdir()))
  assert 0.05 < texture.water.mean() < 0.6
  assert texture.pixel_mm == pytest.approx(0.640625)


def test_a_texture_without_millimetres_is_refused(tmp_path):
  np.save(tmp_path / 'slice.npy', np.full((40, 40), -800.0))
  with pytest.raises(errors.UsageError, match='millimetres'):
    judged_chests.read_texture(tmp_path / 'slice.npy')
