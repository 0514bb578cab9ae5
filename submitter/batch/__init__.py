"""Batches: many inputs for one model, each submitted and billed once, however often it is run.

Begin with `plan`: it reads the rows (`rows`) and earlier results (`results`), checks and prices
them (`prices`), and returns a `batch.Batch`, which submits them and waits. `results` writes the
file.
"""
