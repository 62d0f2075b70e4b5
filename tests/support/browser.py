"""Pages in Debian's Chromium, without a network: what tests of pages look through.

  with browser.chromium() as chromium:
    with chromium.page(path, width=412, dark=True) as page:
      page.keyboard.press('ArrowDown')  # A page of Playwright.
      browser.check_accessibility(page)

A page that asks for anything outside of its own files, that raises, or that writes an
error to the console fails the test. WebGL 2 is that of SwiftShader, on the processor.
"""

from collections.abc import Iterator
import contextlib
import io
import pathlib
import re
import shutil
from typing import Any

import numpy as np
from PIL import Image
import pytest

WIDTHS = (1400, 412)  # CSS pixels: a desk, a telephone.
_HEIGHT = 900
_PATIENCE_MS = 180_000  # Also on a busy machine, for anything that is waited for.
# What the page carries or lies beside it; anything else is a network.
_OUTSIDE = re.compile(r'^(?!file:|data:|blob:|about:)')
_ARGUMENTS = (
  '--no-sandbox',  # Tests run as root, and inside Bazel's own sandbox.
  '--disable-dev-shm-usage',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
)
_SOFTWARE_WEBGL = ('--use-angle=swiftshader', '--enable-unsafe-swiftshader')
_NO_WEBGL = ('--disable-gpu', '--disable-3d-apis')
_SERIOUS = ('serious', 'critical')


class Chromium:
  """A running browser that opens pages."""

  def __init__(self, browser: Any):
    self._browser = browser

  @contextlib.contextmanager
  def page(
    self,
    path: pathlib.Path,
    *,
    width: int = WIDTHS[0],
    height: int = _HEIGHT,
    dark: bool = False,
    scripts: bool = True,
    anchor: str = '',
  ) -> Iterator[Any]:
    """Opens a file as somebody who double-clicks it.

    Args:
      path: of the page.
      width, height: of the window, CSS pixels.
      dark: which colour scheme the system prefers.
      scripts: whether JavaScript is on.
      anchor: what follows '#' in the address.

    Yields:
      Playwright's Page, loaded.

    Raises:
      AssertionError: at the end, if the page asked for something that is not beside
        it, raised an error, or wrote one to the console.
    """
    faults: list[str] = []
    context = self._browser.new_context(
      viewport={'width': width, 'height': height},
      color_scheme='dark' if dark else 'light',
      java_script_enabled=scripts,
      offline=True,
    )
    context.set_default_timeout(_PATIENCE_MS)
    try:
      context.route(_OUTSIDE, lambda route: route.abort())
      page = context.new_page()
      page.on('request', lambda request: _note_outside(request.url, faults))
      page.on('websocket', lambda socket: faults.append(f'asked for {socket.url}'))
      page.on('pageerror', lambda error: faults.append(f'raised {error}'))
      page.on('console', lambda message: _note_error(message, faults))
      page.goto(path.resolve().as_uri() + (f'#{anchor}' if anchor else ''))
      yield page
      assert not faults, f'{path.name}: {"; ".join(faults)}'
    finally:
      context.close()


def _note_outside(url: str, faults: list[str]) -> None:
  if _OUTSIDE.match(url):
    faults.append(f'asked for {url}')


def _note_error(message: Any, faults: list[str]) -> None:
  if message.type == 'error':
    faults.append(f'wrote {message.text}')


@contextlib.contextmanager
def chromium(webgl: bool = True) -> Iterator[Chromium]:
  """Starts the browser; skips the test where it, or Playwright, is missing.

  Args:
    webgl: False: as on a machine without WebGL.
  """
  sync_api = pytest.importorskip(
    'playwright.sync_api', reason='playwright (of the extra dev) is not installed'
  )
  executable = shutil.which('chromium')
  if executable is None:
    pytest.skip('chromium is not installed (apt-get install chromium)')
  with sync_api.sync_playwright() as playwright:
    started = playwright.chromium.launch(
      executable_path=executable,
      args=[*_ARGUMENTS, *(_SOFTWARE_WEBGL if webgl else _NO_WEBGL)],
      timeout=_PATIENCE_MS,
    )
    try:
      yield Chromium(started)
    finally:
      started.close()


def check_accessibility(page: Any) -> None:
  """Asserts that axe-core finds nothing serious: names, contrast, structure.

  Raises:
    AssertionError: lists each rule that is broken, and where.
  """
  axe = pytest.importorskip(
    'axe_playwright_python.sync_playwright',
    reason='axe-playwright-python (of the extra dev) is not installed',
  )
  found = axe.Axe().run(page).response['violations']
  broken = [
    f'{rule["id"]} ({rule["impact"]}): {node["target"]} {node["failureSummary"]}'
    for rule in found
    if rule['impact'] in _SERIOUS
    for node in rule['nodes']
  ]
  assert not broken, '\n'.join(broken)


def check_page(chromium: Chromium, path: pathlib.Path) -> None:
  """Asserts that a page can be read by everybody: wide, narrow, light and dark.

  Raises:
    AssertionError: it asks for a network, axe-core finds something serious, or it
      must be scrolled sideways.
  """
  for width in WIDTHS:
    for dark in (False, True):
      with chromium.page(path, width=width, dark=dark) as page:
        check_accessibility(page)
        found = page.evaluate('document.documentElement.scrollWidth')
        assert found <= width, f'{path.name}: {found} pixels wide on {width}'


def screenshot(page: Any, selector: str = '') -> np.ndarray:
  """float32 [rows, columns, 4] in [0, 1]: what the window, or one element, shows."""
  image = page.locator(selector).screenshot() if selector else page.screenshot()
  return np.asarray(Image.open(io.BytesIO(image)).convert('RGBA'), np.float32) / 255
