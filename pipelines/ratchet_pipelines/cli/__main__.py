"""Run the command line: `python -m ratchet_pipelines.cli`."""

from ratchet_pipelines.cli.main import main

main()
