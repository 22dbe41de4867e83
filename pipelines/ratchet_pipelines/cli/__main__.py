from ratchet_pipelines.cli.main import main

main()
