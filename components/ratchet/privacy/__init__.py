"""Replace personal data and secrets in users' texts by typed placeholders, before any dataset is built."""
