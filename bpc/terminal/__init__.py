"""What every command line of bpc shares: the console, errors without tracebacks, checks of where output goes."""
