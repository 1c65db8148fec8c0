"""Small models in Hugging Face's world: what their config.json says, and how `from_pretrained` makes them of it."""
