"""The Delta tables of the lake: schemas, appending and reading, fingerprints, maintenance."""
