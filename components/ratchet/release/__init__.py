"""Release an adapter that passed offline, or roll it back: gate, Git, ledger, reconciler."""
