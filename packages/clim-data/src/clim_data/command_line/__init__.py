"""What the command lines of all packages share: how a program starts and ends, and its options.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_data.command_line.checks import (
        at_least as at_least,
        given as given,
        need_path as need_path,
        one_argument as one_argument,
        refuse_inside as refuse_inside,
        without_launcher_options as without_launcher_options,
    )
    from clim_data.command_line.exit_status import (
        FAILED as FAILED,
        INTERRUPTED as INTERRUPTED,
        MISTAKE as MISTAKE,
        SUCCEEDED as SUCCEEDED,
        TERMINATED as TERMINATED,
        run_command as run_command,
    )
    from clim_data.command_line.interrupts import importing as importing
    from clim_data.command_line.parser import (
        CommandParser as CommandParser,
        Commands as Commands,
        add_command as add_command,
        add_commands as add_commands,
    )
    from clim_data.command_line.program import run_program as run_program
    from clim_data.command_line.spelling import typed as typed
    from clim_data.command_line.threads import (
        limit_threads as limit_threads,
        usable_cpus as usable_cpus,
    )
    from clim_data.command_line.vocabulary import VOCABULARY as VOCABULARY, add_option as add_option
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "CommandParser": "clim_data.command_line.parser",
            "Commands": "clim_data.command_line.parser",
            "FAILED": "clim_data.command_line.exit_status",
            "INTERRUPTED": "clim_data.command_line.exit_status",
            "MISTAKE": "clim_data.command_line.exit_status",
            "SUCCEEDED": "clim_data.command_line.exit_status",
            "TERMINATED": "clim_data.command_line.exit_status",
            "VOCABULARY": "clim_data.command_line.vocabulary",
            "add_command": "clim_data.command_line.parser",
            "add_commands": "clim_data.command_line.parser",
            "add_option": "clim_data.command_line.vocabulary",
            "at_least": "clim_data.command_line.checks",
            "given": "clim_data.command_line.checks",
            "importing": "clim_data.command_line.interrupts",
            "limit_threads": "clim_data.command_line.threads",
            "need_path": "clim_data.command_line.checks",
            "one_argument": "clim_data.command_line.checks",
            "refuse_inside": "clim_data.command_line.checks",
            "run_command": "clim_data.command_line.exit_status",
            "run_program": "clim_data.command_line.program",
            "typed": "clim_data.command_line.spelling",
            "usable_cpus": "clim_data.command_line.threads",
            "without_launcher_options": "clim_data.command_line.checks",
        },
    )
