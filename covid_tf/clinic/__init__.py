"""The way to a PACS and back, by DIMSE and by DICOMweb (extra `clinic`)."""

from covid_tf.clinic import addresses
from covid_tf.clinic import dimse
from covid_tf.clinic import pacs

__all__ = ('connect',)


def connect(
  address: addresses.DimseAddress | addresses.WebAddress | str,
  *,
  own: addresses.OwnNode | None = None,
  security: addresses.Security | None = None,
  limits: pacs.Limits | None = None,
  use_move: bool = False,
) -> pacs.Archive:
  """The PACS at an address; nothing is sent yet.

  Args:
    address: `AET@host:port`, a URL, or what `addresses.parse` made of one.
    own: our AE title and port, for DIMSE.
    security: TLS, token, password.
    limits: how long it may take.
    use_move: retrieve by C-MOVE without trying C-GET first.

  Raises:
    errors.UsageError: the address or the settings are wrong, or the extra `clinic` is
      not installed.
  """
  if isinstance(address, str):
    address = addresses.parse(address, 'address')
  if isinstance(address, addresses.DimseAddress):
    return dimse.DimseArchive(
      address, own=own, security=security, limits=limits, use_move=use_move
    )
  pacs.need('dicomweb_client')
  from covid_tf.clinic import dicomweb

  return dicomweb.WebArchive(address, security=security, limits=limits)
