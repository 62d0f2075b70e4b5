"""A PACS that speaks DIMSE: C-ECHO, C-STORE, C-FIND, C-GET, C-MOVE, storage commitment.

An association that was refused for now, was aborted or lost is opened again. A refusal
that is for good is not repeated.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import time
from typing import Any

from pydicom import dataset as dataset_lib

from covid_tf import errors
from covid_tf.clinic import addresses
from covid_tf.clinic import associations
from covid_tf.clinic import commitment
from covid_tf.clinic import pacs
from covid_tf.clinic import storing
from covid_tf.readers import elements

_LATE_S = 5.0  # Instances of a C-MOVE may overtake its last answer.

words = associations.words  # Also of the failure reasons of STOW-RS.


class DimseArchive:
  """A PACS reached as an application entity."""

  def __init__(
    self,
    address: addresses.DimseAddress,
    *,
    own: addresses.OwnNode | None = None,
    security: addresses.Security | None = None,
    limits: pacs.Limits | None = None,
    use_move: bool = False,
  ):
    """Connects nothing yet.

    Args:
      address: the PACS.
      own: our AE title and, for C-MOVE and storage commitment, our port.
      security: TLS; None for a connection in the clear.
      limits: how long it may take.
      use_move: retrieve by C-MOVE without trying C-GET first.

    Raises:
      errors.UsageError: the extra `clinic` is not installed, or flags do not fit.
    """
    self._peer = associations.Peer(address, own=own, security=security, limits=limits)
    self._limits = self._peer.limits
    self._use_move = use_move
    if use_move:
      self._peer.require_port('C-MOVE')

  @property
  def name(self) -> str:
    """Its address, as messages show it."""
    return self._peer.name

  def echo(self) -> float:
    """Seconds of association and C-ECHO."""

    def ask(deadline: pacs.Deadline) -> float:
      start = time.monotonic()
      context = self._peer.context(associations.VERIFICATION)
      with self._peer.association([context], deadline) as association:
        self._peer.require_context(association, associations.VERIFICATION)
        status = self._peer.status(association.send_c_echo(), 'C-ECHO')
        if status != associations.SUCCESS:
          raise self._peer.failed('C-ECHO', status)
      return time.monotonic() - start

    return pacs.repeated(ask, self.name, self._limits)

  def store(
    self,
    instances: Sequence[pacs.Instance],
    on_answer: Callable[[pacs.StoreAnswer], None] = lambda answer: None,
  ) -> tuple[pacs.StoreAnswer, ...]:
    """Sends instances by C-STORE; see `pacs.Archive`."""
    return storing.store(self._peer, instances, on_answer)

  def find(
    self, study_uid: str, series_uid: str | None = None
  ) -> tuple[pacs.Listed, ...]:
    """Lists instances by C-FIND, series by series; see `pacs.Archive`."""

    def ask(deadline: pacs.Deadline) -> tuple[pacs.Listed, ...]:
      context = self._peer.context(associations.STUDY_ROOT_FIND)
      with self._peer.association([context], deadline) as association:
        self._peer.require_context(association, associations.STUDY_ROOT_FIND)
        all_series = (
          [series_uid] if series_uid else self._series(association, study_uid, deadline)
        )
        return tuple(
          listed
          for series in all_series
          for listed in self._instances(association, study_uid, series, deadline)
        )

    return pacs.repeated(ask, self.name, self._limits)

  def _series(
    self, association: Any, study_uid: str, deadline: pacs.Deadline
  ) -> list[str]:
    query = _identifier('SERIES', study_uid)
    query.SeriesInstanceUID = ''
    found = self._matches(association, query, deadline)
    return sorted({self._uid_of(match, 'SeriesInstanceUID') for match in found})

  def _instances(
    self, association: Any, study_uid: str, series_uid: str, deadline: pacs.Deadline
  ) -> list[pacs.Listed]:
    query = _identifier('IMAGE', study_uid, series_uid)
    query.SOPInstanceUID = ''
    query.SOPClassUID = ''
    found = self._matches(association, query, deadline)
    return [
      pacs.Listed(
        study_uid,
        series_uid,
        self._uid_of(match, 'SOPInstanceUID'),
        str(match.get('SOPClassUID') or ''),
      )
      for match in found
    ]

  def _matches(
    self, association: Any, query: dataset_lib.Dataset, deadline: pacs.Deadline
  ) -> list[dataset_lib.Dataset]:
    """What a C-FIND answers; all of it is of the study that was asked for."""
    found: list[dataset_lib.Dataset] = []
    for answer, match in association.send_c_find(query, associations.STUDY_ROOT_FIND):
      deadline.left_s()
      status = self._peer.status(answer, 'C-FIND')
      if status == associations.SUCCESS:
        return found
      if status not in associations.PENDING:
        raise self._peer.failed('C-FIND', status)
      if match is None:
        raise errors.PACSError(f'{self.name}: a match of C-FIND cannot be read.')
      for keyword in ('StudyInstanceUID', 'SeriesInstanceUID'):
        if query.get(keyword) and match.get(keyword, query[keyword].value) != (
          query[keyword].value
        ):
          raise errors.PACSError(
            f'{self.name}: C-FIND answered with another {keyword} than was asked for.'
          )
      found.append(match)
    raise pacs.TransientError(f'{self.name}: C-FIND ended without a last answer.')

  def _uid_of(self, match: dataset_lib.Dataset, keyword: str) -> str:
    found = str(match.get(keyword) or '').strip(' \0')
    if not elements.legal_uid(found):
      raise errors.PACSError(
        f'{self.name}: C-FIND answered without a legal {keyword} (digits and dots).'
      )
    return found

  def retrieve(
    self, study_uid: str, series_uid: str | None, receiver: pacs.Receiver
  ) -> None:
    """Retrieves by C-GET, or C-MOVE where that is all there is; see `pacs.Archive`."""

    def get(deadline: pacs.Deadline) -> None:
      is_done = False
      if not self._use_move:
        with contextlib.suppress(associations.NotOfferedError):
          is_done = self._get(study_uid, series_uid, receiver, deadline)
      if not is_done:
        self._peer.require_port(f'{self.name} offers no C-GET, and C-MOVE')
        self._move(study_uid, series_uid, receiver, deadline)

    pacs.repeated(get, self.name, self._limits)

  def _get(
    self,
    study_uid: str,
    series_uid: str | None,
    receiver: pacs.Receiver,
    deadline: pacs.Deadline,
  ) -> bool:
    """Whether C-GET is offered; then all that it sent has been taken."""
    classes = _classes(receiver)
    contexts = [self._peer.context(associations.STUDY_ROOT_GET)]
    contexts += self._proposed(classes)[: associations.MOST_CONTEXTS - 1]
    roles = [self._peer.net.build_role(kind, scp_role=True) for kind in classes]
    handlers = [(self._peer.net.evt.EVT_C_STORE, _taking(receiver))]
    with self._peer.association(contexts, deadline, roles, handlers) as association:
      if not associations.accepts(association, associations.STUDY_ROOT_GET):
        return False
      query = _retrieved(study_uid, series_uid)
      answers = association.send_c_get(query, associations.STUDY_ROOT_GET)
      self._await_end('C-GET', association, answers, receiver, deadline)
    return True

  def _move(
    self,
    study_uid: str,
    series_uid: str | None,
    receiver: pacs.Receiver,
    deadline: pacs.Deadline,
  ) -> None:
    contexts = self._proposed(_classes(receiver))
    handlers = [(self._peer.net.evt.EVT_C_STORE, _taking(receiver))]
    move = self._peer.context(associations.STUDY_ROOT_MOVE)
    with (
      self._peer.listening(contexts, handlers),
      self._peer.association([move], deadline) as association,
    ):
      self._peer.require_context(association, associations.STUDY_ROOT_MOVE)
      query = _retrieved(study_uid, series_uid)
      answers = association.send_c_move(
        query, self._peer.own.ae_title, associations.STUDY_ROOT_MOVE
      )
      self._await_end('C-MOVE', association, answers, receiver, deadline)
      end = time.monotonic() + min(_LATE_S, self._limits.answer_s)
      while receiver.missing and not receiver.failure and time.monotonic() < end:
        time.sleep(0.05)

  def _await_end(
    self,
    operation: str,
    association: Any,
    answers: Iterator[tuple[dataset_lib.Dataset, dataset_lib.Dataset | None]],
    receiver: pacs.Receiver,
    deadline: pacs.Deadline,
  ) -> None:
    """Follows a retrieval to its last answer; raises what failed."""
    for answer, _ in answers:
      if receiver.failure:
        association.abort()
        raise receiver.failure
      status = self._peer.status(answer, operation)
      deadline.left_s()
      if status in associations.PENDING:
        continue
      # 0xB000: some sub-operations failed; which, `receiver.missing` knows.
      if status not in (associations.SUCCESS, 0xB000):
        raise self._peer.failed(operation, status)
      return
    raise pacs.TransientError(f'{self.name}: {operation} ended without a last answer.')

  def commit(self, instances: Sequence[pacs.Instance]) -> pacs.Commitment | None:
    """Asks for storage commitment (PS3.4 annex J); see `pacs.Archive`."""
    return commitment.ask(self._peer, instances)

  def _proposed(self, classes: Sequence[str]) -> list[Any]:
    """Storage contexts for what is to come: each syntax alone, the usual ones first."""
    return [
      self._peer.context(kind, syntax)
      for syntax in (*associations.UNCOMPRESSED, *associations.COMPRESSED)
      for kind in classes
    ]


def _identifier(
  level: str, study_uid: str, series_uid: str | None = None
) -> dataset_lib.Dataset:
  query = dataset_lib.Dataset()
  query.QueryRetrieveLevel = level
  query.StudyInstanceUID = study_uid
  if series_uid:
    query.SeriesInstanceUID = series_uid
  return query


def _retrieved(study_uid: str, series_uid: str | None) -> dataset_lib.Dataset:
  return _identifier('SERIES' if series_uid else 'STUDY', study_uid, series_uid)


def _classes(receiver: pacs.Receiver) -> list[str]:
  """SOP classes of what is to come."""
  found = {listed.sop_class_uid for listed in receiver.listed.values()}
  return sorted(
    found - {''} | (set(associations.USUAL_CLASSES) if '' in found else set())
  )


def _taking(receiver: pacs.Receiver) -> Callable[[Any], int]:
  """A handler of EVT_C_STORE that hands files to a receiver."""

  def handle(event: Any) -> int:
    if receiver.failure:
      return 0xA700
    try:
      receiver.write(event.encoded_dataset())
    except OSError:
      return 0xA700
    except Exception as error:
      receiver.failure = receiver.failure or error
      return 0xC000
    return associations.SUCCESS

  return handle
