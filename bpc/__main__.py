"""``python -m bpc``: the same as the ``bpc`` command."""

from bpc.cli import app

if __name__ == "__main__":
    app()
