"""all-MiniLM-L6-v2 learns the sentiment of tweets, is block-pruned, compiled, exported and timed."""
