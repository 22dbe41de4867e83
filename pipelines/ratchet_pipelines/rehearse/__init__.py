"""The rehearsal as a command: what a release would do, on a virtual clock many times or in real processes once."""
