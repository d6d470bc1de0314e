"""Files of rows in, the same rows with their judgments out: streamed, resumable, in the same order."""
