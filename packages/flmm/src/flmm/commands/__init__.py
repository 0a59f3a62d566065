"""The command line `flmm`: one module for each command."""
