"""Which family goes through which door: small models, saved, and used in fresh processes.

python -m tests.doors [FAMILY ...]      tries them, and writes results/doors.json and docs/doors.md
"""
