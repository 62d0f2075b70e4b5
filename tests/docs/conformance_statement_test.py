"""The conformance statement names what the code proposes, and nothing else."""

import pathlib
import re

from pydicom import uid

from covid_tf.clinic import associations
from covid_tf.clinic import verifying

_DOCS = pathlib.Path(__file__).resolve().parents[2] / 'docs'


def _table(heading: str) -> dict[str, str]:
  """UID to the last column of the rows below a heading."""
  text = (_DOCS / 'conformance.md').read_text('utf-8')
  section = text.split(f'#### {heading}\n')[1].split('\n#')[0]
  rows = re.findall(r'^\|[^|]*\| ([\d.]+) \|(?: ([^|]*)\|)?$', section, re.MULTILINE)
  return {found: last.strip() for found, last in rows}


def test_sop_classes():
  found = set(_table('SOP classes proposed'))
  assert found == {
    associations.VERIFICATION,
    associations.STUDY_ROOT_FIND,
    associations.STUDY_ROOT_GET,
    associations.STUDY_ROOT_MOVE,
    associations.STORAGE_COMMITMENT,
    *associations.USUAL_CLASSES,
  }


def test_transfer_syntaxes_and_which_are_converted():
  table = _table('Transfer syntaxes')
  assert list(table) == [*associations.UNCOMPRESSED, *associations.COMPRESSED]
  converted = {syntax for syntax, answer in table.items() if answer == 'yes'}
  assert converted == associations.LOSSLESS
  assert all(uid.UID(syntax).is_transfer_syntax for syntax in table)


def test_what_a_pacs_may_change():
  text = (_DOCS / 'pacs.md').read_text('utf-8')
  listed = re.search(r'```text\n(AccessionNumber.*?)```', text, re.DOTALL)[1].split()
  assert set(listed) == verifying.COERCIBLE and listed == sorted(listed)
