"""Of which scans a score warns: cut off, one-sided, small, contrast, out of scope."""

import dataclasses

import fake_models
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import nrrd
import numpy as np
import pytest
import real_ct
from scipy import ndimage
import synthetic_case

from covid_tf import contract
from covid_tf import errors
from covid_tf import readers
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import coverage
from covid_tf.analysis import lungs
from covid_tf.analysis import pipeline
from covid_tf.datasets import phantom

_SHAPE = (34, 42, 64)  # Lungs of the patient: 260 mm high, in slices of 8 mm.
_SPACING_MM = (8.0, 6.0, 6.0)


def _patient(spacing_mm=_SPACING_MM, shape=_SHAPE, reverse=()):
  affine = synthetic_case.axial_affine(spacing_mm, shape, reverse)
  volume = synthetic_case.make_volume(affine, shape, lesions=())
  return volume, synthetic_case.make_result(volume, lesions=()).lung_mask


def _cut(volume, mask, low=0, high=None):
  """The slices from `low` to `high`, as if the others had not been imaged."""
  part = slice(low, high)
  affine = volume.affine.copy()
  affine[:3, 3] += affine[:3, 0] * low
  return dataclasses.replace(volume, hu=volume.hu[part], affine=affine), mask[part]


def _ends(warnings):
  """Which ends the warnings call cut off."""
  (text,) = warnings or ('',)
  return tuple(name for name in ('lowest', 'highest') if f'the {name} slice' in text)


def test_a_whole_chest_gives_no_warning():
  assert coverage.of_lungs(*_patient()) == ()


@pytest.mark.parametrize('slices', (4, 8, 12, 17))
def test_lungs_that_are_cut_are_named_by_their_end(slices):
  volume, mask = _patient()
  lower = coverage.of_lungs(*_cut(volume, mask, high=-slices))
  assert _ends(lower) == ('highest',) and 'their upper end was not imaged' in lower[0]
  upper = coverage.of_lungs(*_cut(volume, mask, low=slices))
  assert _ends(upper) == ('lowest',) and 'their lower end was not imaged' in upper[0]
  both = coverage.of_lungs(*_cut(volume, mask, 17 - slices // 2, 17 + slices // 2))
  assert _ends(both) == ('lowest', 'highest')
  assert 'their lower and upper ends were not imaged' in both[0]


@pytest.mark.parametrize('distance_mm', (1.0, 2.5, 5.0, 8.0, 10.0))
def test_the_tip_of_a_lung_is_no_cut(distance_mm):
  """A last slice within the tip, or a few millimetres below it, at any distance."""
  shape = (int(290 / distance_mm), *_SHAPE[1:])
  volume, mask = _patient((distance_mm, *_SPACING_MM[1:]), shape)
  with_lung = np.flatnonzero(mask.any(axis=(1, 2)))
  whole = _cut(volume, mask, with_lung[0], with_lung[-1] + 1)
  assert coverage.of_lungs(*whole) == ()
  lost = int(np.ceil(20 / distance_mm))
  cut = _cut(volume, mask, with_lung[0] + lost, with_lung[-1] + 1 - lost)
  assert _ends(coverage.of_lungs(*cut)) == ('lowest', 'highest')


@settings(max_examples=12, deadline=None)
@given(
  reverse=st.sets(st.integers(0, 2)), low=st.integers(0, 12), high=st.integers(0, 12)
)
def test_ends_are_the_patients_however_a_grid_runs(reverse, low, high):
  """`low` and `high`: slices lost at the feet's and at the head's end."""
  volume, mask = _patient(reverse=tuple(reverse))
  first, last = (high, low) if 0 in reverse else (low, high)
  cut = _cut(volume, mask, first, _SHAPE[0] - last)
  expected = ('lowest',) * (low > 1) + ('highest',) * (high > 1)
  assert _ends(coverage.of_lungs(*cut)) == expected


@pytest.mark.parametrize('slices', (2, 3))
def test_a_stack_of_a_few_slices_is_cut_at_both_ends(slices):
  volume, mask = _patient()
  cut = _cut(volume, mask, 15, 15 + slices)
  assert _ends(coverage.of_lungs(*cut)) == ('lowest', 'highest')


@pytest.mark.parametrize('kind', ('none', 'diffuse'))
def test_phantoms_are_whole_until_they_are_cut(kind):
  case = phantom.draw_case(900_200, kind, matrix=128, slice_spacing_mm=8.0)
  drawn = phantom.generate(case)
  assert _ends(coverage.of_lungs(drawn.volume, drawn.lung_mask)) == ()
  with_lung = np.flatnonzero(drawn.lung_mask.any(axis=(1, 2)))
  for lost in (3, 8):
    cut = _cut(drawn.volume, drawn.lung_mask, 0, with_lung[-1] + 1 - lost)
    assert _ends(coverage.of_lungs(*cut)) == ('highest',)
    cut = _cut(drawn.volume, drawn.lung_mask, with_lung[0] + lost)
    assert _ends(coverage.of_lungs(*cut)) == ('lowest',)


# Sides.


@pytest.mark.parametrize('reverse', ((), (2,), (0, 1), (0, 1, 2)))
@pytest.mark.parametrize('side', ('left', 'right'))
def test_one_lung_is_named_by_its_side(reverse, side):
  volume, mask = _patient(reverse=reverse)
  x = volume.index_to_lps_mm(np.argwhere(mask))[:, 0]
  lost = np.argwhere(mask)[(x > 0) == (side == 'right')]
  mask[tuple(lost.T)] = 0
  (text,) = coverage.of_lungs(volume, mask)
  assert f'lies on the {side} side of the body' in text


@pytest.mark.parametrize('share, warned', ((0.1, True), (0.3, False)))
def test_a_small_lung_is_no_missing_one(share, warned):
  volume, mask = _patient()
  index = np.argwhere(mask)
  left = index[volume.index_to_lps_mm(index)[:, 0] > 0]
  kept = round(share / (1 - share) * (len(index) - len(left)))
  mask[tuple(left[kept:].T)] = 0
  found = coverage.of_lungs(volume, mask)
  assert any(text.startswith('Nearly all lung') for text in found) == warned


# Volume.


def test_small_lungs_may_be_an_expiration_and_may_be_a_childs():
  affine = synthetic_case.axial_affine((5.5, 4.5, 4.5), _SHAPE)
  volume, mask = _patient()
  (text,) = coverage.of_lungs(dataclasses.replace(volume, affine=affine), mask)
  cm3 = mask.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000
  assert f'{cm3:.0f} cm³' in text and 1500 < cm3 < 2000
  assert 'an expiration, a child' in text


def test_the_volume_of_a_part_says_nothing_of_the_breath():
  volume, mask = _patient()
  (text,) = coverage.of_lungs(*_cut(volume, mask, 14, 20))
  assert 'inspiration' not in text


def test_another_mask_renews_the_warnings_of_its_lungs_alone():
  volume, mask = _patient()
  before = ('2 files skipped', *coverage.of_lungs(volume, mask), 'Contrast was given.')
  assert coverage.renewed(before, volume, mask) == before
  mask[:, :, :32] = 0
  (*others, text) = coverage.renewed(before, volume, mask)
  assert tuple(others) == before and text.startswith('Nearly all lung')
  assert coverage.renewed((*others, text), volume, mask) == (*others, text)


# Contrast and scope.


def _of(acquisition, scope=None):
  volume = dataclasses.replace(_patient()[0], acquisition=acquisition)
  card = {} if scope is None else {'scope': scope}
  models = (
    results.ModelIdentity('lungs', 1, 'a' * 64, {'scope': 'of no consequence'}),
    results.ModelIdentity('classifier', 1, 'b' * 64, card),
  )
  return coverage.of_acquisition(volume, models)


@pytest.mark.parametrize(
  'contrast, agent, warned',
  (
    (True, None, True),
    (True, 'IV', True),
    (True, 'ORAL RECTAL IV CONTRAST', True),
    (True, 'ORAL', False),
    (True, 'BARIUM ORAL', False),
    (False, None, False),
    (None, None, False),
  ),
)
def test_contrast_in_vessels_is_said(contrast, agent, warned):
  found = _of(volume_lib.Acquisition(contrast=contrast, contrast_agent=agent))
  assert (len(found) == 1 and 'Contrast was given' in found[0]) == warned


_SCOPE = {'slice_distance_mm': [1, 10], 'kernels': ['B*f', 'STANDARD'], 'note': 'any'}


@pytest.mark.parametrize(
  'acquired, named',
  (
    ({'slice_distance_mm': 5.0, 'kernel': 'B40f'}, None),
    ({'slice_distance_mm': 10.02, 'kernel': 'standard'}, None),
    ({}, None),
    ({'slice_distance_mm': 12.5}, 'slices 12.5 mm apart (made for 1 to 10)'),
    ({'slice_distance_mm': 0.6}, 'slices 0.6 mm apart'),
    ({'kernel': 'LUNG'}, 'kernel LUNG (made for B*f, STANDARD)'),
  ),
)
def test_a_scan_out_of_the_cards_scope_is_named(acquired, named):
  found = _of(volume_lib.Acquisition(**acquired), _SCOPE)
  assert found == () if named is None else len(found) == 1 and named in found[0]
  assert _of(volume_lib.Acquisition(**acquired)) == ()


def test_the_distance_of_slices_is_known_without_a_header():
  (text,) = _of(None, {'slice_distance_mm': [1, 5]})
  assert 'slices 8 mm apart' in text


@pytest.mark.parametrize(
  'scope',
  (
    'thin',
    {'slice_distance_mm': 5},
    {'slice_distance_mm': [5, 1]},
    {'kvp': [True, 120]},
    {'slice_thickness_mm': [0, float('nan')]},
    {'kernels': 'B40f'},
    {'kernels': []},
    {'manufacturers': [5]},
  ),
)
def test_a_scope_that_is_none_is_refused(scope):
  with pytest.raises(errors.ModelError, match='scope must'):
    _of(volume_lib.Acquisition(), scope)
  with pytest.raises(ValueError, match='scope must'):
    contract.Scope.of_card(scope)


def test_warnings_stand_in_the_result():
  volume, mask = _patient()
  cut, _ = _cut(volume, mask, high=20)
  cut = dataclasses.replace(
    cut, acquisition=volume_lib.Acquisition(contrast=True), warnings=('an oddity',)
  )
  found = pipeline.analyze(cut, fake_models.FakeModels(), progress=False).warnings
  assert found[0] == 'an oddity'
  assert [text.split(' ')[0] for text in found[1:]] == ['Contrast', 'Lungs']


# Real chests, their lungs found without a network.


def _lungs_by_air(volume):
  """Air that does not reach the edge of its slice, and of it what can be lung."""
  mask = np.zeros(volume.shape, np.uint8)
  for plane, hu in zip(mask, volume.hu, strict=True):
    air, _ = ndimage.label(hu < -400)
    edge = np.concatenate((air[0], air[-1], air[:, 0], air[:, -1]))
    plane[...] = (air > 0) & ~np.isin(air, np.unique(edge))
  return lungs.find_lungs(mask, volume.voxel_volume_mm3, volume.affine, volume.hu).mask


def test_lower_lungs_alone_are_said_to_be_a_part():
  volume = readers.read_ct(real_ct.folder('backgrounds', 'cptac-c3l-00189', 'series'))
  assert _ends(coverage.of_lungs(volume, _lungs_by_air(volume))) == ('highest',)


@pytest.mark.parametrize(
  'names, contrast',
  (
    (('backgrounds', 'lidc-idri-0001', 'series'), True),
    (('backgrounds', 'lidc-idri-0003', 'series'), True),
    (('lung-pet-ct-dx-a0002-b40f', 'series'), False),
  ),
)
def test_real_chests_are_whole(names, contrast):
  volume = readers.read_ct(real_ct.folder(*names))
  mask = _lungs_by_air(volume)
  assert coverage.of_lungs(volume, mask) == ()
  assert len(coverage.of_acquisition(volume, ())) == contrast
  voxels = mask.sum(axis=(1, 2))
  with_lung = np.flatnonzero(voxels > 0.05 * voxels.max())  # Without the windpipe.
  lost = int(np.ceil(20 / volume.spacing_mm[0]))
  cut = _cut(volume, mask, with_lung[0] + lost, with_lung[-1] + 1 - lost)
  assert _ends(coverage.of_lungs(*cut)) == ('lowest', 'highest')


def test_a_real_label_map_is_of_whole_lungs():
  volume = readers.read_ct(real_ct.folder('cip-ct64', 'series'))
  labels, _ = nrrd.read(str(real_ct.folder('cip-ct64', 'lm-64.nrrd')))
  mask = (labels > 0).transpose(2, 1, 0).astype(np.uint8)
  assert coverage.of_lungs(volume, mask) == ()
