"""The verbs of the command line: one module each, found by listing.

A module `figures/commands/VERB.py` has `add_parser(subparsers)`, which adds a parser and sets its `run` default to a
function of the parsed arguments that returns the exit status. Trouble that the user can cure is raised as
`verification.errors.UserError`.
"""
