"""The command line: flags, commands, progress and exit codes."""
