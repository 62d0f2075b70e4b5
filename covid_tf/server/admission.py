"""A bounded queue before the models: refuse early rather than swell."""

from collections.abc import Iterator
import contextlib
import threading

import grpc

from covid_tf.server import refusal


class Admission:
  """Lets `running` requests run and `waiting` more wait; the rest is refused."""

  def __init__(self, running: int, waiting: int):
    """Opens with all places free."""
    self._running = threading.BoundedSemaphore(running)
    self._places = running + waiting
    self._inside = 0
    self._lock = threading.Lock()

  @contextlib.contextmanager
  def admitted(self, context: grpc.ServicerContext) -> Iterator[None]:
    """Waits for a place to run.

    Args:
      context: of the request; one whose client is gone is not run any more.

    Raises:
      refusal.Refusal: the queue is full, or nobody waits for the answer.
    """
    with self._lock:
      if self._inside == self._places:
        raise refusal.Refusal(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            'The request queue is full, try again later')
      self._inside += 1
    try:
      with self._running:
        if not context.is_active():
          raise refusal.Refusal(
              grpc.StatusCode.CANCELLED, 'The client is gone, or its deadline is over')
        yield
    finally:
      with self._lock:
        self._inside -= 1
