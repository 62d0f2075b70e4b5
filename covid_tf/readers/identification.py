"""Which study and series a file belongs to, from its header alone."""

import dataclasses
import pathlib

from covid_tf.readers import headers
from covid_tf.readers import images
from covid_tf.readers import privacy
from covid_tf.readers import sources


@dataclasses.dataclass(frozen=True, slots=True)
class FileIdentity:
  """What a listing keeps of a DICOM image; nothing in it names a patient.

  Attributes:
    study_uid, series_uid, image_uid: UIDs, '' if missing.
    modality: 'CT', …; '' if missing.
    whole: False for a file that breaks off or is damaged.
    size: bytes of the file.
  """

  study_uid: str
  series_uid: str
  image_uid: str
  modality: str
  whole: bool
  size: int


def identify(path) -> FileIdentity | None:
  """The identity of a DICOM image; None for anything else.

  Args:
    path: a regular file.

  Returns:
    Of a file with many frames, that of the first.

  Raises:
    OSError: the file cannot be read.
  """
  source = sources.FileSource(pathlib.Path(path))
  found = headers.images_of(source, privacy.PatientHasher())
  if isinstance(found, images.BrokenFile):
    return FileIdentity('', found.series_uid, '', '', False, source.size)
  if not found:
    return None
  first = found[0]
  return FileIdentity(
      first.study_uid, first.series_uid, first.image_uid, first.modality, True,
      source.size)
