"""C-STORE: files go to a PACS as they are on disk, and every answer is read.

What has no answer yet when an association is lost is sent again: a PACS stores an
instance once. Only what a PACS does not take as it is, and what loses nothing by it, is
decompressed.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import threading
from typing import Any

import pydicom
from pydicom import dataset as dataset_lib
from pydicom import uid

from covid_tf.clinic import associations
from covid_tf.clinic import pacs
from covid_tf.readers import decoding

_SLOWEST_BYTES_PER_S = 1_000_000  # Ours: added to the time that an answer may take.


def store(
  peer: associations.Peer,
  instances: Sequence[pacs.Instance],
  on_answer: Callable[[pacs.StoreAnswer], None],
) -> tuple[pacs.StoreAnswer, ...]:
  """Sends instances; one answer each, in their order.

  Raises:
    errors.PACSError: the PACS cannot be reached, or has no association for us.
  """
  answers: dict[str, pacs.StoreAnswer] = {}

  def note(answer: pacs.StoreAnswer) -> None:
    answers[answer.instance.sop_instance_uid] = answer
    on_answer(answer)

  def send(deadline: pacs.Deadline) -> None:
    left = [each for each in instances if each.sop_instance_uid not in answers]
    for group in _in_associations(left):
      contexts = _contexts(peer, group)
      try:
        with peer.association(contexts, deadline) as association:
          for instance in group:
            note(_store_one(peer, association, instance, deadline))
      except associations.NotOfferedError:
        for instance in group:
          note(_not_stored(instance, 'it does not take this SOP class'))

  pacs.repeated(send, peer.name, peer.limits)
  return tuple(answers[each.sop_instance_uid] for each in instances)


def _contexts(peer: associations.Peer, group: Sequence[pacs.Instance]) -> list[Any]:
  """A context for each kind of file, and one for what it may be converted to."""
  kinds = {(each.sop_class_uid, each.transfer_syntax_uid) for each in group}
  plain = {kind for kind, syntax in kinds if _convertible(syntax)}
  contexts = [
    peer.context(kind, syntax)
    for kind, syntax in sorted(kinds)
    if syntax not in associations.UNCOMPRESSED
  ]
  return contexts + [
    peer.context(kind, syntax)
    for kind in sorted(plain)
    for syntax in associations.UNCOMPRESSED
  ]


def _store_one(
  peer: associations.Peer,
  association: Any,
  instance: pacs.Instance,
  deadline: pacs.Deadline,
) -> pacs.StoreAnswer:
  accepted = {
    context.transfer_syntax[0]
    for context in association.accepted_contexts
    if context.abstract_syntax == instance.sop_class_uid
  }
  if not accepted:
    return _not_stored(instance, 'it does not take this SOP class')
  as_it_is = instance.transfer_syntax_uid in accepted
  if not as_it_is and not _convertible(instance.transfer_syntax_uid):
    name = uid.UID(instance.transfer_syntax_uid).name
    return _not_stored(
      instance, f'it does not take {name}, which cannot be converted without loss'
    )
  try:
    content = instance.path if as_it_is else _plain(instance)
  except Exception:  # Whatever a decoder meets in damaged bytes.
    return _not_stored(
      instance,
      'it takes no compressed pixels, and these cannot be decoded: damaged or cut off',
    )
  slack_s = instance.size_bytes / _SLOWEST_BYTES_PER_S
  association.dimse_timeout = min(peer.limits.answer_s + slack_s, deadline.left_s() + 1)
  with _sending_from_files(peer.net):
    status = association.send_c_store(content)
  return _answer(instance, peer.status(status, 'C-STORE'))


def _answer(instance: pacs.Instance, status: int) -> pacs.StoreAnswer:
  if status == associations.SUCCESS:
    return pacs.StoreAnswer(instance, pacs.Outcome.STORED, status)
  # What is sent twice is stored once: that it is there is no failure.
  is_warning = status >> 12 == 0xB or status in (
    associations.DUPLICATE,
    0x0001,
    0x0107,
    0x0116,
  )
  outcome = pacs.Outcome.WARNING if is_warning else pacs.Outcome.FAILED
  return pacs.StoreAnswer(instance, outcome, status, associations.words(status))


def _convertible(syntax: str) -> bool:
  return syntax in associations.UNCOMPRESSED or syntax in associations.LOSSLESS


def _plain(instance: pacs.Instance) -> dataset_lib.Dataset:
  """The data set uncompressed, under the same UIDs."""
  found = pydicom.dcmread(instance.path)
  if found.file_meta.TransferSyntaxUID.is_compressed and (
    instance.transfer_syntax_uid != uid.DeflatedExplicitVRLittleEndian
  ):
    with decoding.silent_c_library():
      found.decompress(generate_instance_uid=False)
  if found.file_meta.TransferSyntaxUID == uid.DeflatedExplicitVRLittleEndian:
    found.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
  return found


def _not_stored(instance: pacs.Instance, reason: str) -> pacs.StoreAnswer:
  return pacs.StoreAnswer(instance, pacs.Outcome.FAILED, None, reason)


def _in_associations(
  instances: Sequence[pacs.Instance],
) -> Iterator[list[pacs.Instance]]:
  """Instances in groups whose kinds fit into one association's contexts."""
  group: list[pacs.Instance] = []
  kinds: set[tuple[str, str]] = set()
  for instance in instances:
    kind = (instance.sop_class_uid, instance.transfer_syntax_uid)
    # At most three contexts a kind: its own syntax and the two uncompressed.
    if kind not in kinds and 3 * (len(kinds) + 1) > associations.MOST_CONTEXTS:
      yield group
      group, kinds = [], set()
    kinds.add(kind)
    group.append(instance)
  if group:
    yield group


class _SendingFromFiles:
  """A setting of pynetdicom: files are sent as they are, piece by piece.

  Otherwise it reads and encodes them anew, and holds them twice. The setting is one for
  the process: it goes back to what it was when the last of several threads has sent.
  """

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._count = 0
    self._before = False

  @contextlib.contextmanager
  def __call__(self, net: Any) -> Iterator[None]:
    config = net._config
    with self._lock:
      if not self._count:
        self._before = config.STORE_SEND_CHUNKED_DATASET
        config.STORE_SEND_CHUNKED_DATASET = True
      self._count += 1
    try:
      yield
    finally:
      with self._lock:
        self._count -= 1
        if not self._count:
          config.STORE_SEND_CHUNKED_DATASET = self._before


_sending_from_files = _SendingFromFiles()
