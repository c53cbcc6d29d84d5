"""From texts to token arrays: the tokenizer, pairs and windows."""
