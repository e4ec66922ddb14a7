"""Experiments that several claims and figures look at: engines here, statements in `verification.claims`."""
