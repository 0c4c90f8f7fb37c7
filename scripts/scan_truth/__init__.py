"""Labelled files for `secretfs scan`: values by the providers' published shapes, places where they stand, clean files."""
