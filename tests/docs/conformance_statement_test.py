"""The conformance statement names what the code proposes, and nothing else."""

import pathlib
import re

from pydicom import uid
import pynetdicom

from covid_tf.clinic import associations
from covid_tf.clinic import verifying
from covid_tf.node import association
from covid_tf.node import listener
from covid_tf.node import pdus

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


def test_what_the_node_accepts():
  accepted = listener.accepted_syntaxes(pynetdicom)
  text = (_DOCS / 'conformance.md').read_text('utf-8')
  said = re.search(r'in the tested versions (\d+), those of', text)[1]
  assert int(said) == len(set(accepted) - {association.VERIFICATION})
  table = tuple(_table('Transfer syntaxes accepted'))
  assert accepted['1.2.840.10008.5.1.4.1.1.2'] == table
  assert accepted[association.VERIFICATION] == table[:2]


def test_limits_and_titles_of_the_node():
  text = (_DOCS / 'conformance.md').read_text('utf-8')
  settings = listener.Settings()
  for row in (
    f'| AE title | `{settings.ae_title}`, or',
    f'| port | {settings.port} of loopback',
    f'| implementation class UID | {pdus.IMPLEMENTATION_CLASS_UID} |',
    f'| maximum PDU | {association.MOST_PDU_BYTES} bytes;',
    f'| associations at a time | {settings.most_associations}, or',
    f'for an association within {settings.request_s:g} s (`--request-timeout`)',
    f'the next PDU may take {settings.idle_s:g} s, an association '
    f'{settings.longest_association_s / 3600:g} h (',
    f'an instance of more than {settings.largest_instance_bytes >> 30} GiB (',
  ):
    assert row in text, row


def test_what_a_pacs_may_change():
  text = (_DOCS / 'pacs.md').read_text('utf-8')
  listed = re.search(r'```text\n(AccessionNumber.*?)```', text, re.DOTALL)[1].split()
  assert set(listed) == verifying.COERCIBLE and listed == sorted(listed)
