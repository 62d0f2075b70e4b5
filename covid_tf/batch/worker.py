"""The inside of a local worker process: studies in, values out, over one pipe."""

from collections.abc import Callable
from concurrent import futures
import os
import signal
import threading
import warnings

STUDIES_AT_A_TIME = 2  # One has the models; the other is read or written.
READY = 'ready'
VALUE = 'value'
RAISED = 'raised'


def serve(connection, function: Callable, environment: dict[str, str]) -> None:
  """Works until the pipe says None or closes.

  Args:
    connection: brings (number, study), takes (READY,), then for each study
      (VALUE, number, value) or (RAISED, number, name of the exception).
    function: applied to each study.
    environment: set before anything heavy is imported.
  """
  # Both reach the whole process group; the parent decides what ends when.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  os.environ.update(environment)
  sending = threading.Lock()

  def send(*message) -> None:
    with sending:
      connection.send(message)

  def work(number: int, study) -> None:
    try:
      value = function(study)
    except Exception as error:
      send(RAISED, number, type(error).__name__)
    else:
      send(VALUE, number, value)

  with warnings.catch_warnings(action='ignore'), futures.ThreadPoolExecutor(
      STUDIES_AT_A_TIME) as pool:
    try:
      send(READY)
      while (message := connection.recv()) is not None:
        pool.submit(work, *message)
    except (EOFError, OSError):
      # The parent is gone. Nobody waits for what is in hand, and all of it is
      # either whole under its name or not there.
      os._exit(1)
