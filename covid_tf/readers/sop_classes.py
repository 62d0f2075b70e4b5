"""Kinds of DICOM objects, by SOP Class UID (PS3.6 annex A)."""

from pydicom import uid

from covid_tf.readers import elements
from covid_tf.readers import uids

CT = frozenset((
    uid.CTImageStorage, uid.EnhancedCTImageStorage,
    uid.LegacyConvertedEnhancedCTImageStorage))
MULTI_FRAME_CT = frozenset((
    uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage))

_LABEL_MAP_SEGMENTATION_STORAGE = '1.2.840.10008.5.1.4.1.1.66.7'

# They have rows and columns, but lie over a series instead of being part of one;
# some writers give them the series UID of the CT.
OVER_A_SERIES = frozenset((
    uid.SegmentationStorage, uid.ParametricMapStorage, uid.RTDoseStorage,
    _LABEL_MAP_SEGMENTATION_STORAGE))


def name(sop_class: str) -> str:
  """The class in words, fit to print."""
  return elements.printable(
      uid.UID(sop_class).name if uids.legal(sop_class) else 'no legal UID')
