"""An archive looked through by a person: what is doubtful, what is accepted."""
