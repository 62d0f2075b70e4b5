"""One module a command of `covid-tf`: `add_arguments(parser)` and `run(args)`."""
