"""What a run leaves on disk: its folder, its ledger and its reviews."""
