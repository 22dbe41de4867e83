"""The gate: a service that reads votes and answers Flagger's webhooks."""
