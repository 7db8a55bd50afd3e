"""Data: the contract, ways to bring data in, and ingest with quarantine."""
