"""UIDs and dates as headers hold them, made safe to print and to name files by."""

import datetime
import hashlib
import re

_UID = re.compile(r'[0-9]+(\.[0-9]+)*')
_LONGEST_UID = 64  # PS3.5 section 9.1.


def legal(uid: str) -> bool:
  """Whether a text is a UID: digits and dots, at most 64 of them."""
  return len(uid) <= _LONGEST_UID and _UID.fullmatch(uid) is not None


def safe(uid: str) -> str:
  """The UID itself; for an illegal text a UID derived from it, always the same.

  Texts like '../x' or '=cmd' reach file names and tables; a UID under 2.25
  (PS3.5 B.2) made from their digest is as unique and harmless.
  """
  if not uid or legal(uid):
    return uid
  digest = hashlib.sha256(uid.encode('utf-8', 'replace')).digest()
  return f'2.25.{int.from_bytes(digest[:16], "big")}'


def iso_date(text: str) -> str | None:
  """'YYYYMMDD…' as 'YYYY-MM-DD'; None if it is no date."""
  try:
    return datetime.datetime.strptime(text[:8], '%Y%m%d').date().isoformat()
  except ValueError:
    return None
