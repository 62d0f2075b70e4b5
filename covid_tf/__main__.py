"""`python -m covid_tf` is `covid-tf`."""

import sys

from covid_tf import cli

if __name__ == '__main__':
  sys.exit(cli.main())
