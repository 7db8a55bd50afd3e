"""The embedded services: everything Ferry needs on one machine, on loopback, without Docker."""
