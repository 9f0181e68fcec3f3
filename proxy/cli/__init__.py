"""The command line: `holdfast serve`, `status`, `queue`, `explain` and the rest.

Owns: options, exit codes, what a person reads in the terminal.
Knows nothing of: how anything is done; administrative commands talk to the HTTP API.

`commands` lists the commands, each command lies in the module of its name; `asking` gives a command its connection,
`client` speaks HTTP, `tables` draws, `exit_codes` says how a command ends.
"""

from proxy.cli.commands import main

__all__ = ["main"]
