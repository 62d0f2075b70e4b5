"""One patient or two, without ever keeping who it is.

Names, IDs and birth dates are turned into keyed digests as soon as they are
read. A digest without a key could be guessed back from a list of IDs.
"""

import dataclasses
import hashlib
import hmac
import os
import pathlib

from covid_tf import errors
from covid_tf.readers import elements as elements_lib

_PATIENT_NAME = 0x00100010
_PATIENT_ID = 0x00100020
_ISSUER_OF_PATIENT_ID = 0x00100021
_BIRTH_DATE = 0x00100030
TAGS = (_PATIENT_NAME, _PATIENT_ID, _ISSUER_OF_PATIENT_ID, _BIRTH_DATE)

_SHORTEST_KEY_BYTES = 16


@dataclasses.dataclass(frozen=True)
class PatientDigests:
  """Digests of what tells patients apart; None where the header has nothing.

  Attributes:
    by_id: of the patient's ID and its issuer; the `patient_key` of results.
    by_name: of the name, without case and separators.
    by_birth_date: of the date of birth.
  """

  by_id: str | None
  by_name: str | None
  by_birth_date: str | None


class PatientHasher:
  """HMAC-SHA-256 under a site's key, or under one that lives for this call."""

  def __init__(self, key: bytes | None = None):
    self._key = key or os.urandom(32)
    self.lasting = key is not None

  def digests(self, elements) -> PatientDigests:
    """Digests of one header, tag to raw element."""
    patient_id = _bytes(elements, _PATIENT_ID)
    issuer = _bytes(elements, _ISSUER_OF_PATIENT_ID)
    name = _bytes(elements, _PATIENT_NAME).upper()
    return PatientDigests(
        self._hmac(issuer + b'\0' + patient_id) if patient_id else None,
        self._optional(b''.join(name.replace(b'^', b' ').split())),
        self._optional(_bytes(elements, _BIRTH_DATE)))

  def _optional(self, value: bytes) -> str | None:
    return self._hmac(value) if value else None

  def _hmac(self, value: bytes) -> str:
    return hmac.new(self._key, value, hashlib.sha256).hexdigest()


def load_key(path) -> bytes:
  """The key of a site: all bytes of a file but trailing line ends.

  Raises:
    UsageError: it cannot be read or has fewer than 16 bytes.
  """
  path = pathlib.Path(path)
  try:
    key = path.read_bytes().rstrip(b'\r\n')
  except OSError as error:
    raise errors.UsageError(
        f'patient key file {path.name}: cannot be read '
        f'({error.strerror}); give a readable file.') from None
  if len(key) < _SHORTEST_KEY_BYTES:
    raise errors.UsageError(
        f'patient key file {path.name}: at least {_SHORTEST_KEY_BYTES} bytes are '
        f'required, found {len(key)}; make one with `openssl rand -hex 32`.')
  return key


def _bytes(elements, tag: int) -> bytes:
  return elements_lib.raw(elements, tag).strip(b' \0')
