"""Which few of many candidates deserve verification: triage, hypervolume scores, diverse batches."""
