"""For every rule of `choreo check` a small choreography that breaks it, and its mended twin.

Each module is named after its rule and has `choreography(mended=...)`. What handlers do is of no
matter here: the check reads what they say they may do.
"""
