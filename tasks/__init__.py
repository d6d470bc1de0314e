"""What users come for: judgments over many texts, in memory or in files larger than memory."""
