"""`wavehook demo`: the whole loop against the simulator, in one process.

`command` is the command line, `story` is what happens, `view` is what a person sees.
"""
