"""The command line `ratchet`: one module a group of commands."""
