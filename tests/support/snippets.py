"""Fenced blocks of the documentation, and which of them a test cannot run.

A comment on the line before a block, `<!-- needs: docker, network -->`, says what it
needs; without one it is run as typed.
"""

import dataclasses
import itertools
import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What a test cannot have.
NEEDS = frozenset(
  (
    'cluster',
    'docker',
    'gpu',
    'hours',
    'kubernetes',
    'minutes',
    'network',
    'own data',
    'own shell',
    'pacs',
    'slicer',
  )
)
RUN = ('bash', 'python')
SHOWN = ('csv', 'ini', 'json', 'text', 'toml', 'xml', 'yaml')
_FENCE = re.compile(
  r'^(?P<indent> *)(?:<!-- needs: (?P<needs>[^>]*?) -->\n(?P=indent))?'
  r'(?P<fence>`{3,})(?P<language>[^\n`]*)\n(?P<code>.*?)^(?P=indent)(?P=fence) *$',
  re.MULTILINE | re.DOTALL,
)
_OURS = re.compile(r'(?:^|[\s;(&])(covid-tf|python tools/[\w/]+\.py)(?=\s)(.*)')


@dataclasses.dataclass(frozen=True)
class Block:
  """A fenced block.

  Attributes:
    page: its file, relative to the checkout.
    line: of the fence.
    language: after the fence, '' where there is none.
    needs: what its marker names.
    code: without the indent of the fence.
  """

  page: str
  line: int
  language: str
  needs: tuple[str, ...]
  code: str

  def __str__(self) -> str:
    return f'{self.page}:{self.line}'

  def lines(self) -> list[str]:
    """Shell lines without comments, continued ones joined."""
    joined = self.code.replace('\\\n', ' ').splitlines()
    bare = (re.sub(r'(^|\s)#.*', '', line).strip() for line in joined)
    return [line for line in bare if line]

  def commands(self) -> list[list[str]]:
    """Words of each `covid-tf …` and `python tools/….py …`."""
    found = []
    for line in self.lines() if self.language == 'bash' else ():
      for program, rest in _OURS.findall(line):
        reader = shlex.shlex(rest, posix=True, punctuation_chars=True)
        reader.whitespace_split = True
        words = itertools.takewhile(lambda word: word[0] not in ';|>&()', reader)
        found.append([program.split()[-1], *words])
    return found


def pages() -> list[str]:
  """Pages with blocks to check; tutorials run when the site is built."""
  found = [*ROOT.glob('*.md'), *ROOT.glob('serving/*.md'), *ROOT.glob('docs/*.md')]
  found += ROOT.glob('docs/adr/*.md')
  return sorted(
    path.relative_to(ROOT).as_posix()
    for path in found
    if '```{code-cell}' not in path.read_text('utf-8')
  )


def blocks(page: str) -> list[Block]:
  """Blocks of a page, in order; directives of the site are none."""
  text = (ROOT / page).read_text('utf-8')
  return [
    Block(
      page,
      text[: found.start('fence')].count('\n') + 1,
      found['language'].strip(),
      tuple(part.strip() for part in found['needs'].split(','))
      if found['needs'] is not None
      else (),
      re.sub(f'^{found["indent"]}', '', found['code'], flags=re.MULTILINE),
    )
    for found in _FENCE.finditer(text)
    if not found['language'].startswith('{')
  ]
