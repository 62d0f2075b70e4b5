"""Files to CTVolume, or a clear refusal: DICOM series and NIfTI."""

from covid_tf.readers.reading import list_series
from covid_tf.readers.reading import read_ct
from covid_tf.readers.reading import read_files
from covid_tf.readers.reading import require_options
from covid_tf.readers.series import SeriesSummary
from covid_tf.readers.slice_headers import SliceHeaders
from covid_tf.readers.slice_headers import read_headers
from covid_tf.readers.slice_headers import read_headers_of_files

__all__ = (
  'SeriesSummary',
  'SliceHeaders',
  'list_series',
  'read_ct',
  'read_files',
  'read_headers',
  'read_headers_of_files',
  'require_options',
)
