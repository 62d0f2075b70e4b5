"""Stored words to Hounsfield units, equal to plain arithmetic on each voxel."""

import dataclasses

import hypothesis
from hypothesis import strategies as st
import numpy as np
import odd_series
import pytest

from covid_tf import errors
from covid_tf.readers import header
from covid_tf.readers import hounsfield
from covid_tf.readers import images
from covid_tf.readers import privacy
from covid_tf.readers import sources


@pytest.fixture(scope='module')
def image(tmp_path_factory):
  """The record of one slice; tests change its layout and rescale."""
  path = tmp_path_factory.mktemp('slice') / '0.dcm'
  odd_series.save_one(odd_series.series()[0], path)
  (found,) = header.images_of(sources.FileSource(path), privacy.PatientHasher())
  return found


def _with(image, rescale, **layout):
  return dataclasses.replace(
    image, rescale=rescale, pixels=dataclasses.replace(image.pixels, **layout)
  )


@hypothesis.given(
  signed=st.booleans(),
  bits=st.integers(10, 16),
  slope=st.sampled_from((0.25, 0.5, 1.0, 1.5, 2.0)),
  intercept=st.sampled_from((-1024.0, -1000.5, 0.0, 12.25)),
  seed=st.integers(0, 1 << 30),
)
def test_any_layout_is_plain_arithmetic(image, signed, bits, slope, intercept, seed):
  low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
  high = min(high, int((32767 - intercept) / slope))
  stored = np.random.default_rng(seed).integers(low, high, (4, 5))
  changed = _with(
    image, images.Rescale(slope, intercept), signed=signed, bits_stored=bits
  )
  target = np.empty((4, 5), np.uint16)
  found = hounsfield.convert_to_hu(stored.astype(np.uint16), changed, target)
  hu = np.rint(stored * slope + intercept)
  np.testing.assert_array_equal(target.view(np.int16), np.maximum(hu, -1024))
  assert found == hounsfield.Corrections(below_air=int((hu < -1024).sum()))


@hypothesis.given(
  bits=st.integers(10, 15), seed=st.integers(0, 1 << 30), overlay=st.booleans()
)
def test_one_voxel_that_needs_another_bit_is_never_read(image, bits, seed, overlay):
  rng = np.random.default_rng(seed)
  words = rng.integers(0, 1 << bits, (4, 5)).astype(np.uint16)
  bit = int(rng.integers(bits, 16))
  plain = words.copy()
  words[2, 3] |= 1 << bit
  changed = _with(
    image,
    images.Rescale(1.0, -1024.0),
    bits_stored=bits,
    overlay_bits=overlay << bit,
  )
  if overlay:
    hounsfield.convert_to_hu(words, changed)
    np.testing.assert_array_equal(words.view(np.int16), plain.astype(int) - 1024)
    return
  with pytest.raises(errors.CTReadError, match=f'1 voxels .* above the {bits} of Bits'):
    hounsfield.convert_to_hu(words, changed)
