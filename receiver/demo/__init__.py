"""The command `wavehook demo`: the whole loop against the simulator, in one process.

Begin with `story`.
"""
