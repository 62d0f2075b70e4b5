"""Small studies, and a PACS on loopback that answers by DIMSE as a test wants it to."""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import pathlib
import ssl
import threading

import free_ports
import odd_series
import pydicom
import pynetdicom
from pynetdicom import evt
import pytest
import trustme

from covid_tf import clinic
from covid_tf.clinic import addresses
from covid_tf.clinic import pacs
from covid_tf.clinic import requesting
from covid_tf.clinic import sending

STUDY_UID = odd_series.STUDY_UID
SERIES_UID = odd_series.SERIES_UID
LIMITS = pacs.Limits(connect_s=60, answer_s=60, total_s=300, attempts=2)
_COMMITMENT = '1.2.840.10008.1.20.1'


def write_study(folder: pathlib.Path, syntax: str | None = None) -> pathlib.Path:
  """A CT of eight slices, `N.dcm`, with headers that C-STORE takes."""
  return odd_series.save(odd_series.series(), folder, syntax)


def read_study(folder: pathlib.Path) -> tuple[pacs.Instance, ...]:
  """The instances of `write_study`, which writes them there first."""
  return sending.read_instances(write_study(folder))


@dataclasses.dataclass(frozen=True)
class Certificates:
  """Of us and of a PACS, by one authority; files are in a folder.

  Attributes:
    folder: has ca.pem, stranger.pem (another authority), me.pem and pacs.pem.
    server: the context of the PACS for those who speak to it ...
    client: ... and for those whom it speaks to.
  """

  folder: pathlib.Path
  server: ssl.SSLContext
  client: ssl.SSLContext

  def security(self, **files: str) -> addresses.Security:
    """Ours; other files than ca.pem and me.pem by name."""
    chosen = {'ca_file': 'ca.pem', 'certificate_file': 'me.pem', **files}
    return addresses.Security(
      tls=True,
      **{name: str(self.folder / file) for name, file in chosen.items() if file},
    )

  def caller(self, ca='ca.pem', certificate: str | None = 'pacs.pem') -> ssl.SSLContext:
    """The context of somebody who speaks to us."""
    return self.security(ca_file=ca, certificate_file=certificate or '').ssl_context()


def certificates(folder: pathlib.Path) -> Certificates:
  """New ones for localhost."""
  authority, stranger = trustme.CA(), trustme.CA()
  for name, each in (('ca', authority), ('stranger', stranger)):
    each.cert_pem.write_to_path(str(folder / f'{name}.pem'))
  for name, each in (('me', authority), ('pacs', authority), ('other', stranger)):
    pem = each.issue_cert('localhost', '127.0.0.1').private_key_and_cert_chain_pem
    pem.write_to_path(str(folder / f'{name}.pem'))
  server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  server.load_cert_chain(folder / 'pacs.pem')
  server.load_verify_locations(folder / 'ca.pem')
  server.verify_mode = ssl.CERT_REQUIRED
  client = ssl.create_default_context(cafile=folder / 'ca.pem')
  client.load_cert_chain(folder / 'pacs.pem')
  return Certificates(folder, server, client)


class FakePacs:
  """A PACS; change its attributes before it is asked.

  Attributes:
    kept: SOP Instance UID to data set of what it has.
    store_status: what C-STORE answers.
    forgets: whether it keeps nothing of what it answers success to.
    abort_after: aborts the association at this C-STORE, once; None never.
    services: of 'echo', 'store', 'find', 'get', 'move', 'commit', what it offers.
    syntaxes: transfer syntaxes that it takes.
    destinations: AE title to port, for C-MOVE and for reports of commitment; to whom
      has none it reports on the association that asked.
    commit_status: what a request for commitment is answered.
    stored: number of C-STORE requests that it got.
    change: applied to what it sends back.
    reported: items of find that replace its own, or None.
    certificates: with which it speaks and listens, or None for no TLS.
  """

  def __init__(self):
    self.kept: dict[str, pydicom.Dataset] = {}
    self.store_status = 0x0000
    self.forgets = False
    self.abort_after: int | None = None
    self.services = {'echo', 'store', 'find', 'get', 'move'}
    self.syntaxes = [*pynetdicom.ALL_TRANSFER_SYNTAXES]
    self.destinations: dict[str, int] = {}
    self.commit_status = 0x0000
    self._to_report: dict[object, tuple] = {}
    self.stored = 0
    self.change: Callable[[pydicom.Dataset], None] = lambda dataset: None
    self.find_change: Callable[[pydicom.Dataset], None] = lambda dataset: None
    self.port = free_ports.free_port()
    self.certificates: Certificates | None = None

  @property
  def address(self) -> str:
    return f'FAKE@127.0.0.1:{self.port}'

  def archive(self, **options) -> pacs.Archive:
    """The same PACS as we see it, within `LIMITS` unless an option says otherwise."""
    return clinic.connect(self.address, **{'limits': LIMITS, **options})

  @contextlib.contextmanager
  def running(self, **options) -> Iterator['FakePacs']:
    """Answers; what we repeat meanwhile is repeated after 10 ms."""
    entity = requesting.AE('FAKE')
    for name, value in options.items():
      setattr(entity, name, value)
    storage = pynetdicom.AllStoragePresentationContexts
    classes = {
      'echo': ['1.2.840.10008.1.1'],
      'find': ['1.2.840.10008.5.1.4.1.2.2.1'],
      'move': ['1.2.840.10008.5.1.4.1.2.2.2'],
      'get': ['1.2.840.10008.5.1.4.1.2.2.3'],
      'store': [context.abstract_syntax for context in storage],
      'commit': [_COMMITMENT],
    }
    for service in sorted(self.services):
      for kind in classes[service]:
        entity.add_supported_context(
          kind,
          self.syntaxes if service == 'store' else None,
          **({'scu_role': True, 'scp_role': True} if service == 'store' else {}),
        )
    server = entity.start_server(
      ('127.0.0.1', self.port),
      block=False,
      evt_handlers=[
        (evt.EVT_C_STORE, self._store),
        (evt.EVT_C_FIND, self._find),
        (evt.EVT_C_GET, self._get),
        (evt.EVT_C_MOVE, self._move),
        (evt.EVT_N_ACTION, self._commit),
        (evt.EVT_PDU_SENT, self._answered),
      ],
      ssl_context=self.certificates and self.certificates.server,
    )
    try:
      with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pacs, '_FIRST_PAUSE_S', 0.01)
        yield self
    finally:
      server.shutdown()

  @property
  def _tls_args(self) -> tuple[ssl.SSLContext, str] | None:
    return (self.certificates.client, 'localhost') if self.certificates else None

  def _store(self, event) -> int:
    self.stored += 1
    if self.abort_after is not None and self.stored > self.abort_after:
      self.abort_after = None
      event.assoc.abort()
      return 0x0000
    status = self.store_status
    if not self.forgets and status >> 12 not in (0xA, 0xC):
      dataset = event.dataset
      dataset.file_meta = event.file_meta
      self.kept[dataset.SOPInstanceUID] = dataset
    return status

  def _matching(self, query) -> list[pydicom.Dataset]:
    return [
      dataset
      for dataset in self.kept.values()
      if dataset.StudyInstanceUID == query.StudyInstanceUID
      and query.get('SeriesInstanceUID', '') in ('', dataset.SeriesInstanceUID)
    ]

  def _find(self, event):
    query = event.identifier
    for dataset in self._matching(query):
      answer = pydicom.Dataset()
      for element in query:
        answer[element.tag] = dataset.get(element.tag, element)
      answer.QueryRetrieveLevel = query.QueryRetrieveLevel
      self.find_change(answer)
      yield 0xFF00, answer

  def _changed(self, query) -> list[pydicom.Dataset]:
    found = self._matching(query)
    for dataset in found:
      self.change(dataset)
    return found

  def _get(self, event):
    found = self._changed(event.identifier)
    yield len(found)
    for dataset in found:
      yield 0xFF00, dataset

  def _move(self, event):
    port = self.destinations.get(event.move_destination)
    if port is None:
      yield None, None
      return
    found = self._changed(event.identifier)
    kinds = sorted({dataset.SOPClassUID for dataset in found})
    contexts = [pynetdicom.build_context(kind) for kind in kinds]
    yield '127.0.0.1', port, {'contexts': contexts, 'tls_args': self._tls_args}
    yield len(found)
    for dataset in found:
      yield 0xFF00, dataset

  def _commit(self, event):
    if self.commit_status == 0x0000:
      arguments = (event.assoc, event.action_information)
      self._to_report[event.assoc] = arguments
    return self.commit_status, None

  def _answered(self, event) -> None:
    """Reports once N-ACTION is answered: parts of two messages must not mix."""
    if type(event.pdu).__name__ == 'P_DATA_TF' and event.assoc in self._to_report:
      arguments = self._to_report.pop(event.assoc)
      threading.Thread(target=self._report, args=arguments).start()

  def _report(self, asking, asked) -> None:
    """Tells, on an association of its own where it knows a port, what it has."""
    report = pydicom.Dataset()
    report.TransactionUID = asked.TransactionUID
    report.ReferencedSOPSequence, report.FailedSOPSequence = [], []
    for item in asked.ReferencedSOPSequence:
      if item.ReferencedSOPInstanceUID in self.kept:
        report.ReferencedSOPSequence.append(item)
      else:
        item.FailureReason = 0x0112
        report.FailedSOPSequence.append(item)
    kind = 2 if report.FailedSOPSequence else 1
    content = (report, kind, _COMMITMENT, f'{_COMMITMENT}.1')
    port = self.destinations.get(asking.requestor.ae_title)
    if port is None:
      asking.send_n_event_report(*content)
      return
    entity = requesting.AE('FAKE')
    entity.add_requested_context(_COMMITMENT)
    role = pynetdicom.build_role(_COMMITMENT, scp_role=True)
    own = entity.associate(
      '127.0.0.1',
      port,
      ae_title=asking.requestor.ae_title,
      ext_neg=[role],
      tls_args=self._tls_args,
    )
    if own.is_established:
      own.send_n_event_report(*content)
      own.release()
