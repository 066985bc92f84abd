"""The run directory as a contract: names, lock, atomic writes, metrics, checkpoints that are whole or not there, and reading it all back.

Facts enter, files leave; the report room reads them back through `summary.read_run`. Nothing here imports torch.
"""
