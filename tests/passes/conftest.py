"""Puts this directory on the path, so that tests below it share `families`."""
