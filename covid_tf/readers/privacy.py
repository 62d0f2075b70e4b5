"""One patient or two, without ever keeping who it is.

Names, IDs and birth dates are turned into keyed digests as soon as they are
read. A digest without a key could be guessed back from a list of IDs.
"""

import collections
from collections.abc import Iterable
import dataclasses
import hashlib
import hmac
import os
import pathlib
import re
import unicodedata
import warnings

from pydicom import charset
from pydicom import datadict

from covid_tf import errors
from covid_tf.readers import elements as elements_lib

_SPECIFIC_CHARACTER_SET = 0x00080005
_PATIENT_NAME = 0x00100010
_PATIENT_ID = 0x00100020
_ISSUER_OF_PATIENT_ID = 0x00100021
_BIRTH_DATE = 0x00100030
TAGS = (
  _SPECIFIC_CHARACTER_SET,
  _PATIENT_NAME,
  _PATIENT_ID,
  _ISSUER_OF_PATIENT_ID,
  _BIRTH_DATE,
)

_SHORTEST_KEY_BYTES = 16
_SURELY_A_NAME = 4
# Alphabetic, ideographic and phonetic (PS3.5 section 6.2.1).
_NAME_GROUPS = 3
# Their bytes may happen to be UTF-8 as well, so what the header says goes first.
_MULTI_BYTE = ('gb18030', 'GBK')
# What switches character sets (PS3.3 tables C.12-3 and C.12-4).
_ESCAPES = re.compile(r'\x1b(?:[(),./-]|\$\)?)[@-~]')
_DEFAULT = 'iso8859'  # pydicom's codec of the default repertoire, ISO-IR 6.


@dataclasses.dataclass(frozen=True)
class PatientDigests:
  """Digests of what identifies patients; None where the header has nothing.

  They are of texts, not of bytes: character sets are decoded, and case, spaces and
  what Unicode holds for the same letter make no difference.

  Attributes:
    by_id: of the patient's ID.
    by_issuer: of the issuer of that ID.
    by_name: of the alphabetic, ideographic and phonetic name, without separators.
    by_birth_date: of the date of birth.
    key: of issuer and ID, as they are written; the `patient_key` of results.
  """

  by_id: str | None = None
  by_issuer: str | None = None
  by_name: tuple[str | None, ...] = (None,) * _NAME_GROUPS
  by_birth_date: str | None = None
  key: str | None = None


class PatientHasher:
  """HMAC-SHA-256 under a site's key, or under one that lives for this call."""

  def __init__(self, key: bytes | None = None):
    self._key = key or os.urandom(32)
    self.lasting = key is not None

  def digests(self, elements: elements_lib.Elements) -> PatientDigests:
    """Digests of one header, tag to raw element."""
    patient_id = _text(elements, _PATIENT_ID)
    issuer = _text(elements, _ISSUER_OF_PATIENT_ID)
    groups = [*_text(elements, _PATIENT_NAME).split('='), *[''] * _NAME_GROUPS]
    return PatientDigests(
      self._optional(_folded(patient_id)),
      self._optional(_folded(issuer)),
      tuple(
        self._optional(''.join(_folded(group).replace('^', ' ').split()))
        for group in groups[:_NAME_GROUPS]
      ),
      self._optional(_text(elements, _BIRTH_DATE).replace('.', '')),
      self._optional(f'{issuer}\0{patient_id}') if patient_id else None,
    )

  def _optional(self, value: str) -> str | None:
    if not value:
      return None
    return hmac.new(
      self._key, value.encode('utf-8', 'surrogatepass'), hashlib.sha256
    ).hexdigest()


def differ(digests: Iterable[PatientDigests], *, one_study: bool) -> bool:
  """Whether IDs, issuers, names or birth dates differ where they are given.

  Args:
    digests: of some images.
    one_study: whether all are known to be of one study; an ID with and without
      an issuer is one patient's there, and nowhere else.
  """
  digests = list(digests)
  given = [
    {getattr(digest, field) for digest in digests}
    for field in ('by_id', 'by_issuer', 'by_birth_date')
  ]
  given += map(set, zip(*(digest.by_name for digest in digests)))
  if any(len(values - {None}) > 1 for values in given):
    return True
  issuers = {digest.by_issuer for digest in digests if digest.by_id}
  return len(issuers) > 1 and not one_study


def lasting_key(digests: Iterable[PatientDigests]) -> str | None:
  """The key of one patient's study: with the issuer if any image gives it.

  Where images of one study write the ID in several ways, the commonest counts.
  """
  digests = [digest for digest in digests if digest.key]
  with_issuer = [digest for digest in digests if digest.by_issuer]
  counts = collections.Counter(digest.key for digest in with_issuer or digests)
  return min(counts, key=lambda key: (-counts[key], key), default=None)


def load_key(path: str | os.PathLike[str]) -> bytes:
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
      f'({error.strerror}); give a readable file.'
    ) from None
  if len(key) < _SHORTEST_KEY_BYTES:
    raise errors.UsageError(
      f'patient key file {path.name}: at least {_SHORTEST_KEY_BYTES} bytes are '
      f'required, found {len(key)}; make one with `openssl rand -hex 32`.'
    )
  return key


def without_patient(elements: elements_lib.Elements, text: str) -> str:
  """A free text, printable, without words that name the patient of the header.

  Names, IDs and birth dates in it become '?'.
  """
  if not text:
    return ''
  folded = text.casefold()
  for part in _patient_parts(elements):
    if part.casefold() in folded:
      # Short parts only as words: 'Li' is no part of 'Light'.
      edge = r'(?<![^\W_])', r'(?![^\W_])'
      left, right = edge if len(part) < _SURELY_A_NAME else ('', '')
      text = re.sub(left + re.escape(part) + right, '?', text, flags=re.IGNORECASE)
  return elements_lib.printable(text)


def names_patient(elements: elements_lib.Elements, text: str) -> bool:
  """Whether a text holds a name, ID or birth date of the header's patient.

  Shorter ones than four letters do not count: '64' and 'B' are models and kernels.
  """
  folded = text.casefold()
  return any(
    len(part) >= _SURELY_A_NAME and part.casefold() in folded
    for part in _patient_parts(elements)
  )


def _patient_parts(elements: elements_lib.Elements) -> list[str]:
  """Names, ID and birth date in the ways in which they are written, longest first."""
  name = _text(elements, _PATIENT_NAME)
  birth = _text(elements, _BIRTH_DATE)
  parts = [part for part in re.split(r'[\^=\s,]+', name) if part]
  parts += [part for part in (_text(elements, _PATIENT_ID), birth) if part]
  if len(birth) == 8:
    year, month, day = birth[:4], birth[4:6], birth[6:]
    parts += [
      sign.join(order)
      for sign in './- '
      for order in ((year, month, day), (day, month, year), (month, day, year))
    ]
    parts.append(day + month + year)
  return sorted(parts, key=len, reverse=True)


def decoded_text(
  elements: elements_lib.Elements, tag: int, file: elements_lib.Elements
) -> str:
  """The value of an element as text, without padding.

  Args:
    elements: tag to raw element, of a file or of an item in it.
    tag: the element.
    file: the elements of the file, which say the character set.
  """
  value = elements_lib.raw(elements, tag)
  if value.isascii() and b'\x1b' not in value:
    return value.decode('ascii').strip(' \0')
  declared = elements_lib.texts(file, _SPECIFIC_CHARACTER_SET)
  is_name = datadict.dictionary_has_tag(tag) and datadict.dictionary_VR(tag) == 'PN'
  return _decoded(value, declared, is_name=is_name).strip(' \0')


def _text(elements: elements_lib.Elements, tag: int) -> str:
  return decoded_text(elements, tag, elements)


def _decoded(value: bytes, declared: tuple[str, ...], *, is_name: bool = True) -> str:
  """Text in the character sets of PS3.3 C.12.1.1.2, or in UTF-8 whatever they say.

  Headers often declare another set than they use, and text of another set is
  hardly ever UTF-8 by chance.

  Args:
    value: as it stands in the file.
    declared: the character sets that the file names.
    is_name: whether it is a person's name, in which each component switches the
      character set anew (PS3.5 6.1.2.5.3); in other text '^' and '=' are letters.
  """
  codecs = [
    charset.python_encoding[term]
    for term in declared
    if term in charset.python_encoding
  ]
  if b'\x1b' in value:
    with warnings.catch_warnings(action='ignore'):  # pydicom's quote the value.
      delimiters = set(b'^=\\' if is_name else b'\\\t\n\f\r')
      text = charset.decode_bytes(value, codecs or [_DEFAULT], delimiters)
      return _ESCAPES.sub('', text)  # pydicom leaves that of GB 2312 in the text.
  first = [codec for codec in codecs if codec in _MULTI_BYTE]
  # Of the default repertoire no byte above 127 is; Python's codec takes them all.
  others = sorted(codecs, key=lambda codec: codec == _DEFAULT)
  for codec in (*first, 'utf-8', *others):
    try:
      return value.decode(codec)
    except UnicodeDecodeError:
      continue
  return value.decode('latin-1')


def _folded(text: str) -> str:
  """Equal for texts that differ in case, spaces or the form of a letter only."""
  folded = unicodedata.normalize('NFKC', text).casefold()
  return ' '.join(unicodedata.normalize('NFKC', folded).split())
