"""Functional groups of enhanced multi-frame CT (PS3.3 C.7.6.16)."""

import collections

from covid_tf.readers import elements as elements_lib
from covid_tf.readers import tags

# The macros that the reader needs: each is a sequence of one item.
_PIXEL_MEASURES = 0x00289110
_PLANE_POSITION = 0x00209113
_PLANE_ORIENTATION = 0x00209116
_PIXEL_VALUE_TRANSFORMATION = 0x00289145
_CT_IMAGE_FRAME_TYPE = 0x00189329
_CT_RECONSTRUCTION = 0x00189314
_FRAME_CONTENT = 0x00209111
_CARDIAC_SYNCHRONIZATION = 0x00189118
_MACROS = (_PIXEL_MEASURES, _PLANE_POSITION, _PLANE_ORIENTATION,
           _PIXEL_VALUE_TRANSFORMATION, _CT_IMAGE_FRAME_TYPE, _CT_RECONSTRUCTION,
           _FRAME_CONTENT, _CARDIAC_SYNCHRONIZATION)


def groups(elements) -> list:
  """For each frame a mapping of tag to raw element, as a single-frame file has.

  A macro stands either in the shared group or in that of each frame. What the
  top level of the file says of geometry or rescale does not count, but kernel,
  thickness and acquisition do where no macro says more.

  Raises:
    ElementError: there are no per-frame groups.
  """
  shared = elements_lib.items(elements, tags.SHARED_FUNCTIONAL_GROUPS)
  frames = elements_lib.items(elements, tags.PER_FRAME_FUNCTIONAL_GROUPS)
  if not frames or len(shared) > 1:
    raise elements_lib.ElementError(
        'an enhanced CT needs functional groups for each frame, found '
        f'{len(shared)} shared and {len(frames)} of frames')
  common = _values(shared[0]) if shared else {}
  outside = {tag: elements[tag] for tag in (
      tags.IMAGE_TYPE, tags.CONVOLUTION_KERNEL, tags.ACQUISITION_NUMBER)
             if tag in elements}
  return [collections.ChainMap(_values(frame), common, outside) for frame in frames]


def _values(group) -> dict:
  values = {}
  for macro in _MACROS:
    items = elements_lib.items(group, macro)
    if len(items) > 1:
      raise elements_lib.ElementError(
          f'{elements_lib.described(macro)} must have one item, found {len(items)}')
    values.update(*items)
  return values
